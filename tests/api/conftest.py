"""What the API's tests share: a client that speaks tus, and ways to break a connection."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from db.settings import Settings

BODY_TYPE = "application/offset+octet-stream"


MEDIA = random.Random(7).randbytes(1_000_003)


@dataclass(frozen=True)
class Tus:
    """One broadcaster's tus client. Checks nothing: tests do."""

    client: httpx.Client
    headers: dict[str, str]

    def submit(self, media: bytes, name: str = "a.wav", *, sha256: bool | str = True) -> str:
        """Announce one recording; returns its id."""
        announced: dict[str, Any] = {"name": name, "size_bytes": len(media)}
        if sha256:
            announced["sha256"] = hashlib.sha256(media).hexdigest() if sha256 is True else sha256
        answer = self.client.post(
            "/v1/batches", json={"name": "batch", "recordings": [announced]}, headers=self.headers
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["recordings"][0]["id"])

    def create(self, recording_id: str, length_bytes: int, **headers: str) -> httpx.Response:
        """POST /v1/uploads."""
        metadata = f"filename Li4vLi4veA==,recording_id {base64.b64encode(recording_id.encode()).decode()}"
        sent = {"Tus-Resumable": "1.0.0", "Upload-Length": str(length_bytes), "Upload-Metadata": metadata}
        return self.client.post("/v1/uploads", headers=self.headers | sent | headers)

    def begin(self, media: bytes, **submitted: Any) -> tuple[str, str]:
        """Announce a recording and create its upload; returns (recording id, url)."""
        recording_id = self.submit(media, **submitted)
        created = self.create(recording_id, len(media))
        assert created.status_code == 201, created.text
        return recording_id, created.headers["Location"]

    def patch_headers(self, offset_bytes: int, checksum: tuple[str, bytes] | None = None) -> dict[str, str]:
        """Headers of a PATCH."""
        headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": str(offset_bytes), "Content-Type": BODY_TYPE}
        if checksum:
            algorithm, content = checksum
            digest = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
            headers["Upload-Checksum"] = f"{algorithm} {digest}"
        return self.headers | headers

    def patch(
        self, url: str, content: bytes, offset_bytes: int, checksum: tuple[str, bytes] | None = None
    ) -> httpx.Response:
        """PATCH bytes; `checksum` is (algorithm, the content whose digest is sent)."""
        return self.client.patch(url, content=content, headers=self.patch_headers(offset_bytes, checksum))

    def head(self, url: str) -> httpx.Response:
        """HEAD."""
        return self.client.head(url, headers=self.headers | {"Tus-Resumable": "1.0.0"})

    def delete(self, url: str) -> httpx.Response:
        """DELETE."""
        return self.client.delete(url, headers=self.headers | {"Tus-Resumable": "1.0.0"})

    def offset(self, url: str) -> int:
        """The offset that the server tells."""
        answer = self.head(url)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"])

    def recording(self, recording_id: str) -> dict[str, Any]:
        """GET the recording."""
        answer = self.client.get(f"/v1/recordings/{recording_id}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def finish(self, url: str, media: bytes) -> httpx.Response:
        """Ask for the offset and send the rest, patiently while a dying request holds the lock."""
        return wait_for(lambda: self._send_rest(url, media))

    def _send_rest(self, url: str, media: bytes) -> httpx.Response | None:
        offset_bytes = self.offset(url)
        answer = self.patch(url, media[offset_bytes:], offset_bytes)
        # 423: locked; 409: the dying request moved the offset between HEAD and PATCH
        return None if answer.status_code in {423, 409} else answer

    def open_patch(
        self, url: str, content: bytes, offset_bytes: int, length_bytes: int, **checksum: Any
    ) -> socket.socket:
        """Send the head of a PATCH of `length_bytes` and only `content` of it; returns the open connection."""
        address = urlsplit(str(self.client.base_url))
        connection = socket.create_connection((address.hostname, address.port), timeout=30)
        headers = self.patch_headers(offset_bytes, **checksum) | {
            "Host": address.netloc,
            "Content-Length": str(length_bytes),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"PATCH {url} HTTP/1.1\r\n{head}\r\n".encode() + content)
        return connection


def wait_for(attempt: Callable[[], Any], timeout_s: float = 20) -> Any:
    """The first truthy answer of `attempt`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = attempt()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still not after {timeout_s} s"
        time.sleep(0.01)


def assert_received(tus: Tus, recording_id: str, media: bytes) -> None:
    """The recording has its media, and no upload is left."""
    recording = tus.recording(recording_id)
    assert recording["state"] == "received"
    assert recording["sha256"] == hashlib.sha256(media).hexdigest()
    assert recording["received_at"] is not None
    assert recording["upload"] is None


@pytest.fixture
def tus(client: httpx.Client, owner: Any) -> Tus:
    """A tus client of the fixture `owner`."""
    return Tus(client, owner.headers)


@pytest.fixture
def upload_dir(settings: Settings) -> Path:
    """Where unfinished uploads are gathered."""
    return settings.require_upload_dir()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes the server commit every 64 KiB instead of every 8 MiB; returns that number."""
    step = 2**16
    monkeypatch.setattr("api.receive.WRITE_BYTES", step // 4)
    monkeypatch.setattr("api.receive.COMMIT_EVERY_BYTES", step)
    return step
