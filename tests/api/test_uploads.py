"""Uploads arrive whole or resume, whatever is cut, changed, repeated or sent by somebody else."""

from __future__ import annotations

import hashlib
import itertools
import random
import socket
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from api.staging import StagedFile
from db.media_store import MediaStore, original_key
from tests.api.conftest import BODY_TYPE, MEDIA, Tus, assert_received, wait_for


def stored(media_store: MediaStore, owner: Any, recording_id: str) -> bytes:
    """What the object store holds for a recording."""
    with closing(media_store.open(original_key(owner.id, uuid.UUID(recording_id)))) as reader:
        return bytes(reader.read())


def test_a_file_in_one_piece(
    tus: Tus, owner: Any, media_store: MediaStore, upload_dir: Path, engine: Engine
) -> None:
    recording_id, url = tus.begin(MEDIA, sha256=False)
    upload = tus.recording(recording_id)["upload"]
    assert upload == {"url": url, "offset_bytes": 0}
    answer = tus.patch(url, MEDIA, 0)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(len(MEDIA)))
    assert_received(tus, recording_id, MEDIA)
    assert stored(media_store, owner, recording_id) == MEDIA
    assert list(upload_dir.iterdir()) == []
    assert tus.head(url).status_code == 404
    with engine.connect() as connection:
        event = connection.execute(text("SELECT kind, payload FROM events")).one()
        assert connection.scalar(text("SELECT count(*) FROM uploads")) == 0
    assert event.kind == "recording.received"
    assert event.payload["sha256"] == hashlib.sha256(MEDIA).hexdigest()


def test_the_media_worker_is_woken(tus: Tus, valkey_url: str) -> None:
    import redis

    recording_id, url = tus.begin(b"audio")
    with redis.Redis.from_url(valkey_url) as queue:
        assert queue.llen("media") == 0
        assert tus.patch(url, b"audio", 0).status_code == 204
        assert queue.llen("media") == 1
    assert_received(tus, recording_id, b"audio")


def test_pieces_with_and_without_checksums(tus: Tus, owner: Any, media_store: MediaStore) -> None:
    recording_id, url = tus.begin(MEDIA)
    edges = [0, 1, 70_000, 70_000, 600_000, len(MEDIA)]
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        algorithm = (None, "sha256", "sha1")[number % 3]
        piece = MEDIA[start:end]
        answer = tus.patch(url, piece, start, (algorithm, piece) if algorithm else None)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(end))
    assert_received(tus, recording_id, MEDIA)
    assert stored(media_store, owner, recording_id) == MEDIA


def test_bytes_with_the_creation(tus: Tus, client: httpx.Client, owner: Any) -> None:
    recording_id = tus.submit(b"first and second")
    metadata = tus.create(recording_id, 16).request.headers["Upload-Metadata"]
    tus.delete(tus.recording(recording_id)["upload"]["url"])
    headers = owner.headers | {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "16",
        "Upload-Metadata": metadata,
        "Content-Type": BODY_TYPE,
    }
    created = client.post("/v1/uploads", headers=headers, content=b"first ")
    assert (created.status_code, created.headers["Upload-Offset"]) == (201, "6")
    assert tus.patch(created.headers["Location"], b"and second", 6).status_code == 204
    assert_received(tus, recording_id, b"first and second")


def test_a_creation_whose_body_does_not_fit_leaves_nothing(
    tus: Tus, client: httpx.Client, owner: Any, upload_dir: Path
) -> None:
    recording_id = tus.submit(b"first and second")
    metadata = tus.create(recording_id, 16).request.headers["Upload-Metadata"]
    tus.delete(tus.recording(recording_id)["upload"]["url"])
    headers = owner.headers | {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "16",
        "Upload-Metadata": metadata,
        "Content-Type": BODY_TYPE,
    }
    answer = client.post("/v1/uploads", headers=headers, content=b"more than the sixteen announced")
    assert answer.status_code == 413
    assert tus.recording(recording_id)["upload"] is None
    assert list(upload_dir.iterdir()) == []
    assert tus.create(recording_id, 16).status_code == 201


def test_cut_at_random_points_and_resumed(
    tus: Tus, owner: Any, media_store: MediaStore, small_steps: int
) -> None:
    dice = random.Random(3)
    recording_id, url = tus.begin(MEDIA)
    for _ in range(6):
        offset_bytes = tus.offset(url)
        sent = dice.randrange(1, (len(MEDIA) - offset_bytes) // 2)
        connection = tus.open_patch(
            url, MEDIA[offset_bytes : offset_bytes + sent], offset_bytes, len(MEDIA) - offset_bytes
        )
        # committed while the connection is open: all but less than a step that is written and, of what is not written
        # yet, a quarter of a step; that, when it goes
        held = small_steps + small_steps // 4
        wait_for(lambda least=offset_bytes + sent - held: tus.offset(url) >= least)
        connection.close()
        wait_for(lambda: unlocked(tus, url))
        assert offset_bytes <= tus.offset(url) <= offset_bytes + sent
    assert tus.finish(url, MEDIA).status_code == 204
    assert_received(tus, recording_id, MEDIA)
    assert stored(media_store, owner, recording_id) == MEDIA


def unlocked(tus: Tus, url: str) -> bool:
    """Whether nobody writes the upload: an empty PATCH at a wrong offset gets as far as the offset."""
    return tus.patch(url, b"", 10**15).status_code == 409


def test_what_arrived_is_kept_when_the_client_vanishes(tus: Tus, upload_dir: Path) -> None:
    _, url = tus.begin(MEDIA)
    connection = tus.open_patch(url, MEDIA[:300_000], 0, len(MEDIA))
    # nothing tells when the server's process has read it all: its buffers are small, so wait a moment
    wait_for(lambda: (upload_dir / url.rsplit("/", 1)[1]).exists())
    connection.shutdown(socket.SHUT_WR)
    wait_for(lambda: unlocked(tus, url))
    connection.close()
    # one network buffer may go down with the connection; more must not
    assert 300_000 - 2 * 2**16 <= tus.offset(url) <= 300_000


def test_a_piece_with_checksum_counts_whole_or_not_at_all(tus: Tus, owner: Any, upload_dir: Path) -> None:
    _, url = tus.begin(MEDIA)
    connection = tus.open_patch(url, MEDIA[:300_000], 0, len(MEDIA), checksum=("sha256", MEDIA))
    wait_for(lambda: (upload_dir / url.rsplit("/", 1)[1]).exists())
    connection.close()
    wait_for(lambda: unlocked(tus, url))
    assert tus.offset(url) == 0
    assert tus.finish(url, MEDIA).status_code == 204


def test_a_changed_piece_is_discarded(tus: Tus) -> None:
    recording_id, url = tus.begin(MEDIA)
    assert tus.patch(url, MEDIA[:1000], 0).status_code == 204
    changed = b"x" + MEDIA[1001:2000]
    answer = tus.patch(url, changed, 1000, ("sha1", MEDIA[1000:2000]))
    assert (answer.status_code, answer.json()["code"]) == (460, "chunk_checksum_mismatch")
    assert tus.offset(url) == 1000
    # the last piece too: a changed end must not finish the upload
    answer = tus.patch(url, b"x" * (len(MEDIA) - 1000), 1000, ("sha256", MEDIA[1000:]))
    assert answer.status_code == 460
    assert tus.offset(url) == 1000
    assert tus.finish(url, MEDIA).status_code == 204
    assert_received(tus, recording_id, MEDIA)


def test_another_file_than_announced_is_removed_and_can_be_sent_again(tus: Tus, upload_dir: Path) -> None:
    recording_id, url = tus.begin(MEDIA, name="novas/día.wav")
    other = MEDIA[:-1] + bytes([MEDIA[-1] ^ 1])
    answer = tus.patch(url, other, 0)
    assert (answer.status_code, answer.json()["code"]) == (460, "checksum_mismatch")
    detail = answer.json()["detail"]
    for named in ("novas/día.wav", hashlib.sha256(MEDIA).hexdigest(), hashlib.sha256(other).hexdigest()):
        assert named in detail
    assert list(upload_dir.iterdir()) == []
    assert tus.head(url).status_code == 404
    assert tus.recording(recording_id)["state"] == "awaiting_media"
    again = tus.create(recording_id, len(MEDIA)).headers["Location"]
    assert tus.patch(again, MEDIA, 0).status_code == 204
    assert_received(tus, recording_id, MEDIA)


def test_a_wrong_offset_is_told_the_right_one(tus: Tus) -> None:
    _, url = tus.begin(MEDIA)
    tus.patch(url, MEDIA[:1000], 0)
    for offset_bytes in (0, 999, 1001, 10**15):
        answer = tus.patch(url, MEDIA[1000:2000], offset_bytes)
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_offset")
        assert answer.headers["Upload-Offset"] == "1000"
        assert tus.offset(url) == 1000


def test_too_many_bytes_are_refused(tus: Tus, client: httpx.Client) -> None:
    recording_id, url = tus.begin(b"audio")
    assert tus.patch(url, b"audio and more", 0).json()["code"] == "upload_too_long"
    in_chunks = client.patch(url, content=iter([b"aud", b"io and", b" more"]), headers=tus.patch_headers(0))
    assert (in_chunks.status_code, in_chunks.json()["code"]) == (413, "upload_too_long")
    assert tus.finish(url, b"audio").status_code == 204
    assert_received(tus, recording_id, b"audio")


def test_one_writer_at_a_time(tus: Tus, small_steps: int) -> None:
    recording_id, url = tus.begin(MEDIA)
    with tus.open_patch(url, MEDIA[:200_000], 0, len(MEDIA)) as first:
        wait_for(lambda: tus.offset(url) >= small_steps)
        for answer in (tus.patch(url, MEDIA[:10], 0), tus.delete(url)):
            assert (answer.status_code, answer.json()["code"]) == (423, "upload_in_use")
        first.sendall(MEDIA[200_000:])
        assert first.recv(64).startswith(b"HTTP/1.1 204")
    assert_received(tus, recording_id, MEDIA)


def test_the_lock_holds_between_processes(tus: Tus, upload_dir: Path) -> None:
    _, url = tus.begin(MEDIA)
    with StagedFile(upload_dir, uuid.UUID(url.rsplit("/", 1)[1])):
        assert tus.patch(url, MEDIA, 0).status_code == 423
    assert tus.patch(url, MEDIA, 0).status_code == 204


def test_ending_an_upload_removes_its_bytes(tus: Tus, upload_dir: Path) -> None:
    recording_id, url = tus.begin(MEDIA)
    tus.patch(url, MEDIA[:1000], 0)
    assert len(list(upload_dir.iterdir())) == 1
    assert tus.delete(url).status_code == 204
    assert list(upload_dir.iterdir()) == []
    assert tus.delete(url).status_code == tus.head(url).status_code == 404
    assert tus.patch(url, MEDIA, 0).status_code == 404
    assert list(upload_dir.iterdir()) == []
    assert tus.recording(recording_id)["upload"] is None


def test_what_stands_against_an_upload(tus: Tus) -> None:
    recording_id, url = tus.begin(b"audio")
    exists = tus.create(recording_id, 5)
    assert (exists.status_code, exists.json()["code"], exists.json()["url"]) == (409, "upload_exists", url)
    tus.patch(url, b"audio", 0)
    received = tus.create(recording_id, 5)
    assert (received.status_code, received.json()["code"]) == (409, "media_already_received")
    differs = tus.create(tus.submit(b"audio"), 6)
    assert (differs.status_code, differs.json()["code"]) == (422, "upload_length_differs")
    unknown = tus.create(str(uuid.uuid4()), 5)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "recording_not_found")


BAD_HEADERS = [
    ({"Tus-Resumable": "0.2.2"}, 412, "unsupported_tus_version"),
    ({"Upload-Length": "-1"}, 400, "bad_upload_header"),
    ({"Upload-Length": "१२"}, 400, "bad_upload_header"),
    ({"Upload-Metadata": ""}, 400, "bad_upload_header"),
    ({"Upload-Metadata": "recording_id !!!"}, 400, "bad_upload_header"),
    ({"Upload-Metadata": "recording_id Li4vLi4v"}, 400, "bad_upload_header"),
    ({"Upload-Checksum": "md5 AAAA"}, 400, "unsupported_checksum"),
    ({"Upload-Checksum": "sha256 AAAA"}, 400, "unsupported_checksum"),
    ({"Upload-Checksum": "sha256 é"}, 400, "unsupported_checksum"),
]


def test_headers_that_cannot_be_read(tus: Tus) -> None:
    recording_id = tus.submit(b"audio")
    for headers, status, code in BAD_HEADERS:
        encoded: Any = {name: value.encode() for name, value in headers.items()}
        answer = tus.create(recording_id, 5, **encoded)
        assert (answer.status_code, answer.json()["code"]) == (status, code), headers
        assert answer.headers["Tus-Resumable"] == "1.0.0"


def test_a_body_of_another_type_is_refused(tus: Tus, client: httpx.Client) -> None:
    _, url = tus.begin(b"audio")
    headers = tus.patch_headers(0) | {"Content-Type": "audio/wav"}
    assert client.patch(url, content=b"audio", headers=headers).json()["code"] == "wrong_upload_type"


def test_options_needs_no_key_and_head_says_when_it_expires(tus: Tus, client: httpx.Client) -> None:
    answer = client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        *("creation", "creation-with-upload", "checksum", "termination", "expiration")
    }
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha256,sha1"
    _, url = tus.begin(b"audio")
    head = tus.head(url)
    assert head.headers["Upload-Length"] == "5"
    assert head.headers["Upload-Expires"].endswith(" GMT")
    assert head.headers["Cache-Control"] == "no-store"


def test_methods_may_be_overridden(tus: Tus, client: httpx.Client) -> None:
    recording_id, url = tus.begin(b"audio")
    headers = tus.patch_headers(0) | {"X-HTTP-Method-Override": "PATCH"}
    assert client.post(url, content=b"audio", headers=headers).status_code == 204
    assert_received(tus, recording_id, b"audio")


@pytest.mark.parametrize("key", [None, "fono_0000000000000000_" + "0" * 64])
def test_a_body_without_a_valid_key_is_never_written(
    tus: Tus, client: httpx.Client, upload_dir: Path, key: str | None
) -> None:
    _, url = tus.begin(MEDIA)
    headers = tus.patch_headers(0)
    del headers["Authorization"]
    if key:
        headers["Authorization"] = f"Bearer {key}"
    for answer in (
        client.patch(url, content=MEDIA, headers=headers),
        client.post("/v1/uploads", content=MEDIA, headers=headers | {"Upload-Length": str(len(MEDIA))}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "unknown_api_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert list(upload_dir.iterdir()) == []
    assert tus.offset(url) == 0


def test_another_broadcasters_upload_does_not_exist(
    tus: Tus, make_broadcaster: Callable[..., Any], upload_dir: Path
) -> None:
    recording_id, url = tus.begin(MEDIA)
    stranger = Tus(tus.client, make_broadcaster().headers)
    assert stranger.head(url).status_code == stranger.delete(url).status_code == 404
    assert stranger.patch(url, MEDIA, 0).status_code == 404
    assert stranger.create(recording_id, len(MEDIA)).status_code == 404
    assert list(upload_dir.iterdir()) == []
    assert tus.offset(url) == 0


def test_staged_files_never_lie_outside_their_folder(tus: Tus, tmp_path: Path, upload_dir: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(upload_dir)}
    for escape in ("..%2f..%2fevil", "../../evil", "%2e%2e/evil", "..", str(tmp_path / "evil")):
        answer = tus.patch(f"/v1/uploads/{escape}", b"evil", 0)
        assert answer.status_code in {404, 405, 422}
    _, url = tus.begin(MEDIA)  # its metadata holds the file name ../../x
    tus.patch(url, MEDIA[:1000], 0)
    assert [path.name for path in upload_dir.iterdir()] == [url.rsplit("/", 1)[1]]
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(upload_dir)} == before


def test_a_link_in_the_place_of_a_staged_file_is_not_followed(
    tus: Tus, upload_dir: Path, tmp_path: Path
) -> None:
    _, url = tus.begin(MEDIA)
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (upload_dir / url.rsplit("/", 1)[1]).symlink_to(target)
    assert tus.patch(url, MEDIA, 0).status_code == 500
    assert target.read_bytes() == b"precious"


PIECES = st.lists(
    st.tuples(
        st.integers(0, 4000),
        st.sampled_from(["plain", "checksum", "changed", "shifted", "excess", "ask"]),
    ),
    max_size=8,
)


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(size=st.integers(1, 10_000), pieces=PIECES)
def test_any_chunking_ends_with_the_same_file(
    tus: Tus, owner: Any, media_store: MediaStore, size: int, pieces: list[tuple[int, str]]
) -> None:
    media = MEDIA[:size]
    recording_id, url = tus.begin(media)
    offset_bytes = 0
    for length, kind in pieces:
        piece = media[offset_bytes : offset_bytes + length]
        if offset_bytes + len(piece) == size:
            break
        if kind == "changed" and piece:
            changed = bytes([piece[0] ^ 1]) + piece[1:]
            assert tus.patch(url, changed, offset_bytes, ("sha256", piece)).status_code == 460
        elif kind == "shifted":
            assert tus.patch(url, piece, offset_bytes + 1).status_code == 409
        elif kind == "excess":
            assert tus.patch(url, media[offset_bytes:] + b"x", offset_bytes).status_code == 413
        elif kind == "ask":
            assert tus.offset(url) == offset_bytes
        else:
            checksum = ("sha1", piece) if kind == "checksum" else None
            answer = tus.patch(url, piece, offset_bytes, checksum)
            offset_bytes += len(piece)
            assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(offset_bytes))
    assert tus.patch(url, media[offset_bytes:], offset_bytes).status_code == 204
    assert_received(tus, recording_id, media)
    assert stored(media_store, owner, recording_id) == media
