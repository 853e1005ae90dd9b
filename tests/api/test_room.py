"""The disk is not filled, nobody takes all of it, and who was refused goes on when there is room."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cli.client import ApiClient, ApiProblem
from cli.gather import MediaFile
from cli.upload import Uploader
from db.settings import Settings
from tests.api.conftest import MEDIA, Tus, assert_received

EXABYTE = 2**60


def begins(tus: Tus, media: bytes = MEDIA) -> Any:
    return tus.create(tus.submit(media, name=f"{uuid.uuid4()}.wav"), len(media))


def test_an_upload_that_the_disk_has_no_room_for_is_refused_before_a_byte(
    tus: Tus, settings: Settings, engine: Engine, upload_dir: Path
) -> None:
    settings.free_disk_min_bytes = EXABYTE
    refused = begins(tus)
    assert (refused.status_code, refused.json()["code"]) == (507, "no_room")
    assert refused.headers["Retry-After"] == "30"
    assert "1073741824.00 GiB of its disk free" in refused.json()["detail"]
    assert list(upload_dir.iterdir()) == []
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM uploads")) == 0


def test_a_disk_that_fills_up_meanwhile_keeps_what_is_there(tus: Tus, settings: Settings) -> None:
    recording_id, url = tus.begin(MEDIA)
    assert tus.patch(url, MEDIA[:500_000], 0).status_code == 204
    settings.free_disk_min_bytes = EXABYTE
    refused = tus.patch(url, MEDIA[500_000:], 500_000)
    assert (refused.status_code, refused.json()["code"]) == (507, "no_room")
    assert tus.offset(url) == 500_000
    settings.free_disk_min_bytes = 1
    assert tus.patch(url, MEDIA[500_000:], 500_000).status_code == 204
    assert_received(tus, recording_id, MEDIA)


def test_one_broadcaster_may_not_take_all_the_room_and_others_are_not_hurt(
    tus: Tus, settings: Settings, make_broadcaster: Any
) -> None:
    settings.incoming_quota_bytes = 5 * len(MEDIA) // 2
    recording_id, url = tus.begin(MEDIA)
    assert begins(tus).status_code == 201
    refused = begins(tus)
    assert (refused.status_code, refused.json()["code"]) == (429, "incoming_quota_full")
    assert refused.json()["waiting_bytes"] == 2 * len(MEDIA)
    other = Tus(tus.client, make_broadcaster().headers)
    assert begins(other).status_code == 201
    # arrived, it still counts until it is split, or nobody wants it any more
    assert tus.patch(url, MEDIA, 0).status_code == 204
    assert begins(tus).status_code == 429
    cancelled = tus.client.post(f"/v1/recordings/{recording_id}/cancel", headers=tus.headers)
    assert cancelled.status_code == 200, cancelled.text
    assert begins(tus).status_code == 201


def test_what_is_longer_than_the_quota_passes_alone(tus: Tus, settings: Settings) -> None:
    settings.incoming_quota_bytes = 10
    assert begins(tus).status_code == 201
    assert begins(tus).status_code == 429


def test_the_last_room_is_given_to_one_of_many(tus: Tus, settings: Settings) -> None:
    settings.incoming_quota_bytes = 3 * len(MEDIA)
    ids = [tus.submit(MEDIA, name=f"{number}.wav") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: tus.create(one, len(MEDIA)).status_code, ids))
    assert sorted(answers) == [201] * 3 + [429] * 5


def test_the_client_waits_until_there_is_room_and_says_why(
    tus: Tus, settings: Settings, server_url: str, owner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.upload.LONGEST_ROOM_WAIT_S", 0.05)
    file = tmp_path / "a.wav"
    file.write_bytes(MEDIA)
    recording_id = tus.submit(MEDIA)
    settings.free_disk_min_bytes = EXABYTE
    told: list[ApiProblem] = []
    is_told = threading.Event()

    def hear(problem: ApiProblem) -> None:
        told.append(problem)
        is_told.set()

    def make_room() -> None:
        is_told.wait(30)
        settings.free_disk_min_bytes = 1

    with ApiClient(server_url, owner.key) as client, ThreadPoolExecutor(1) as pool:
        room = pool.submit(make_room)
        uploader = Uploader(client, on_no_room=hear, patience_s=0)
        status = file.stat()
        uploader.upload(
            client.recording(recording_id), MediaFile(file, "a.wav", status.st_size, status.st_mtime_ns)
        )
        room.result()
    assert [problem.code for problem in told] == ["no_room"], "said once"
    assert_received(tus, recording_id, MEDIA)
