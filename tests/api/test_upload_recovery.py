"""Whatever fails in the middle of an upload, what is left resumes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from db.connect import transaction
from db.settings import PROJECT_ROOT, Settings
from db.uploads import expire_uploads, find_orphans
from tests.api.conftest import MEDIA, Tus, assert_received, wait_for


def test_bytes_gone_from_disk_are_sent_again(tus: Tus, upload_dir: Path) -> None:
    recording_id, url = tus.begin(MEDIA)
    tus.patch(url, MEDIA[:1000], 0)
    os.truncate(upload_dir / url.rsplit("/", 1)[1], 10)
    answer = tus.patch(url, MEDIA[1000:], 1000)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_bytes_lost")
    assert tus.offset(url) == 0
    assert tus.finish(url, MEDIA).status_code == 204
    assert_received(tus, recording_id, MEDIA)


def test_a_file_longer_than_its_offset_is_cut(tus: Tus, upload_dir: Path) -> None:
    recording_id, url = tus.begin(MEDIA)
    tus.patch(url, MEDIA[:1000], 0)
    with (upload_dir / url.rsplit("/", 1)[1]).open("ab") as file:
        file.write(b"bytes whose commit never came" * 100_000)
    assert tus.finish(url, MEDIA).status_code == 204
    assert_received(tus, recording_id, MEDIA)


@pytest.mark.parametrize(
    "fails",
    ["api.uploads.uploads.finish_upload", "db.media_store.MediaStore.put_file", "db.uploads.add_events"],
)
def test_a_failure_while_finishing_leaves_an_upload_that_resumes(
    tus: Tus, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("injected")

    recording_id, url = tus.begin(MEDIA)
    tus.patch(url, MEDIA[:1000], 0)
    with monkeypatch.context() as patch:
        patch.setattr(fails, fail)
        answer = tus.patch(url, MEDIA[1000:], 1000)
        assert answer.status_code in {503, 507}
    assert tus.recording(recording_id)["state"] == "awaiting_media"
    assert tus.offset(url) < len(MEDIA)
    assert tus.finish(url, MEDIA).status_code == 204
    assert_received(tus, recording_id, MEDIA)


def test_expiry(tus: Tus, engine: Engine) -> None:
    kept_id, kept = tus.begin(MEDIA, name="kept.wav")
    expired_id, expired = tus.begin(MEDIA, name="expired.wav")
    never_id = tus.submit(MEDIA, name="never.wav")
    with transaction(engine) as tx:
        old = "now() - interval '73 hours'"
        tx.connection.execute(text(f"UPDATE recordings SET updated_at = {old}"))
        tx.connection.execute(
            text(f"UPDATE uploads SET updated_at = {old} WHERE recording_id = :id"), {"id": expired_id}
        )
    with transaction(engine) as tx:
        ids = expire_uploads(tx.connection, 72)
        assert [str(upload_id) for upload_id in ids] == [expired.rsplit("/", 1)[1]]
        assert find_orphans(tx.connection, [*ids, uuid.UUID(kept.rsplit("/", 1)[1])]) == ids
    with transaction(engine) as tx:
        assert expire_uploads(tx.connection, 72) == []
    assert tus.recording(kept_id)["state"] == "awaiting_media"
    for recording_id in (expired_id, never_id):
        recording = tus.recording(recording_id)
        assert (recording["state"], recording["failure"]["code"]) == ("failed", "media_never_arrived")
    with engine.connect() as connection:
        kinds = connection.scalars(text("SELECT kind FROM events")).all()
    assert kinds == ["recording.failed"] * 2
    # it may still come late
    again = tus.create(expired_id, len(MEDIA))
    assert again.status_code == 201
    assert tus.recording(expired_id)["failure"] is None
    assert tus.patch(again.headers["Location"], MEDIA, 0).status_code == 204
    assert_received(tus, expired_id, MEDIA)


def test_a_server_that_ends_in_mid_body_twice(settings: Settings, owner: Any, upload_dir: Path) -> None:
    media = random.Random(1).randbytes(30 * 2**20)
    step = 8 * 2**20
    with serve() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        tus = Tus(client, owner.headers)
        recording_id, url = tus.begin(media)
        with tus.open_patch(url, media[: 12 * 2**20], 0, len(media)) as connection:
            wait_for(lambda: tus.offset(url) >= step)
            server.process.send_signal(signal.SIGTERM)
            answer = connection.makefile("rb").read()
            server.process.wait(timeout=30)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"server_stopping"' in answer
    with serve() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        tus = Tus(client, owner.headers)
        kept = tus.offset(url)
        assert f"{kept} bytes of a.wav are kept".encode() in answer
        assert step <= kept <= 12 * 2**20
        with tus.open_patch(url, media[kept:-1], kept, len(media) - kept):
            wait_for(lambda: tus.offset(url) >= kept + step)
            server.process.kill()
            server.process.wait(timeout=30)
    with serve() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        tus = Tus(client, owner.headers)
        offset_bytes = tus.offset(url)
        assert kept + step <= offset_bytes < len(media)
        staged = upload_dir / url.rsplit("/", 1)[1]
        assert staged.stat().st_size >= offset_bytes
        assert tus.finish(url, media).status_code == 204
        assert_received(tus, recording_id, media)


class serve:  # noqa: N801 - reads as a verb
    """A server process for as long as the block runs."""

    def __enter__(self) -> serve:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api.serve"],
            env=os.environ | {"FONOTECA_API_PORT": str(self.port)},
            cwd=PROJECT_ROOT,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the server ended while starting"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=30)
