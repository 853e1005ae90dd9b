"""Uploads by tus 1.0 (https://tus.io/protocols/resumable-upload) that survive whatever cuts them.

Written over httpx because tuspy has no timeouts (a silently dropped connection hangs it for good), lets a
`~/.netrc` entry replace the API key, retries what cannot heal (401, 404) after one fixed delay, and opens a
connection and a file handle for every chunk, closing the handle when the garbage collector comes by.
"""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from cli.client import ApiClient, ApiProblem, Recording, ServerUnreachable
from cli.errors import CliError
from cli.gather import MediaFile, changed, require_unchanged

if TYPE_CHECKING:
    import httpx

CHUNK_BYTES = 8 * 2**20
"""Bytes of one PATCH: what is sent again at most after a cut."""
SMALLEST_CHUNK_BYTES = 2**18
"""On a line that is cut more often than a large chunk takes to pass."""
SLICE_BYTES = 2**17
"""Bytes between two looks at the progress bar and at Ctrl-C."""
CHUNK_TIMEOUT_S = 60.0
"""For which a connection may stand still."""
FINISH_TIMEOUT_S = 1800.0
"""After the last chunk the server checks the whole file and moves it to its store before it answers."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
ROOM_PATIENCE_S = 24 * 3600.0
"""For which a server that is there may say that it has no room just now."""
LONGEST_ROOM_WAIT_S = 60.0
NO_ROOM = frozenset({"no_room", "incoming_quota_full"})
TUS_VERSION = {"Tus-Resumable": "1.0.0"}

GONE = frozenset({404, 410})
CONFLICT, LOCKED, CHECKSUM_MISMATCH = 409, 423, 460
WHOLE_FILE_MISMATCH = "checksum_mismatch"
"""460 for the file as a whole: the server dropped all of it, and sending it again by itself could go on for ever."""


def is_resent(problem: ApiProblem) -> bool:
    """True for the refusal of one chunk after which the server's offset says how to go on."""
    if problem.code == WHOLE_FILE_MISMATCH:
        return False
    return problem.status in (CONFLICT, LOCKED, CHECKSUM_MISMATCH)


class UploadStopped(Exception):
    """The person, or the failure of another upload, asked to stop."""


class Pace:
    """How one upload behaves on a bad line: smaller chunks and longer waits after a failure, back to the full
    size after successes, and an end after too long without a byte arriving."""

    def __init__(
        self,
        patience_s: float,
        largest_chunk_bytes: int,
        stop: threading.Event,
        on_no_room: Callable[[ApiProblem], None] = lambda problem: None,
    ) -> None:
        self._on_no_room = on_no_room
        self._room_asked_at: float | None = None
        self.chunk_bytes = largest_chunk_bytes
        self._largest_chunk_bytes = largest_chunk_bytes
        self._patience_s = patience_s
        self._stop = stop
        self._n_tries = 0
        self._progress_at = time.monotonic()

    def succeeded(self) -> None:
        """A chunk arrived."""
        self.chunk_bytes = min(self.chunk_bytes * 2, self._largest_chunk_bytes)
        self._n_tries = 0
        self._progress_at = time.monotonic()
        self._room_asked_at = None

    def wait(self, error: ApiProblem | ServerUnreachable) -> None:
        """A try failed: wait before the next one. Raises `error` when it has gone on for too long."""
        if isinstance(error, ApiProblem) and error.code in NO_ROOM:
            self._wait_for_room(error)
            return
        if time.monotonic() - self._progress_at > self._patience_s:
            raise error
        self.chunk_bytes = max(self.chunk_bytes // 2, min(SMALLEST_CHUNK_BYTES, self._largest_chunk_bytes))
        longest = min(FIRST_WAIT_S * 2**self._n_tries, LONGEST_WAIT_S)
        self._n_tries += 1
        # spread out, so that many clients do not come back to a restarted server in one instant
        self._stop.wait(longest * random.uniform(0.5, 1))  # noqa: S311

    def _wait_for_room(self, problem: ApiProblem) -> None:
        """The server is well and says to come back: the line is not at fault, and patience is longer."""
        now = time.monotonic()
        if self._room_asked_at is None:
            self._room_asked_at = now
            self._on_no_room(problem)
        elif now - self._room_asked_at > ROOM_PATIENCE_S:
            raise problem
        wait_s = min(problem.retry_after_s or LONGEST_ROOM_WAIT_S, LONGEST_ROOM_WAIT_S)
        self._stop.wait(wait_s * random.uniform(0.5, 1))  # noqa: S311
        self._progress_at = time.monotonic()


class Uploader:
    """Sends the media of recordings. One object serves several threads, one recording at a time in each."""

    def __init__(
        self,
        client: ApiClient,
        *,
        on_offset: Callable[[Recording, int], None] = lambda recording, offset: None,
        on_no_room: Callable[[ApiProblem], None] = lambda problem: None,
        stop: threading.Event | None = None,
        patience_s: float = 600.0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """`on_offset` hears how many bytes of a recording are on their way or there, `on_no_room` that the server has
        no room now, and why; `patience_s`: give up after so long without a byte arriving."""
        self._client = client
        self._on_no_room = on_no_room
        self._on_offset = on_offset
        self._stop = stop or threading.Event()
        self._patience_s = patience_s
        self._chunk_bytes = chunk_bytes

    def upload(self, recording: Recording, file: MediaFile) -> None:
        """Bring `file` to the server as the media of `recording`, from where an earlier upload stopped.

        Raises:
            ServerUnreachable: no answer for `patience_s`.
            ApiProblem: the server refused the upload, for good or for `patience_s`.
            CliError: the file changed since it was hashed.
            OSError: the file cannot be read.
            UploadStopped: `stop` was set.
        """
        unfinished = recording["upload"]
        url = unfinished["url"] if unfinished else None
        pace = Pace(self._patience_s, self._chunk_bytes, self._stop, self._on_no_room)
        with file.path.open("rb") as media:
            require_unchanged(file, media.fileno())
            while True:
                self._check_stop()
                try:
                    if url is None:
                        url = self._create(recording, file)
                        if url is None:
                            return
                    offset = self._offset(url)
                    self._send_from(offset, url, recording, file, media, pace)
                    return
                except (ApiProblem, ServerUnreachable) as error:
                    if isinstance(error, ApiProblem):
                        if error.status in GONE and url is not None:
                            url = None  # expired, or finished by a request whose answer was lost
                        elif not (error.is_transient or is_resent(error)):
                            raise
                    pace.wait(error)

    def _create(self, recording: Recording, file: MediaFile) -> str | None:
        """The address of a new upload, or of the unfinished one; None when the media is there already."""
        metadata = base64.b64encode(recording["id"].encode()).decode()
        headers = {
            **TUS_VERSION,
            "Upload-Length": str(file.size_bytes),
            "Upload-Metadata": f"recording_id {metadata}",
        }
        try:
            answer = self._client.send("POST", "/v1/uploads", headers=headers)
        except ApiProblem as problem:
            if problem.code == "media_already_received":
                return None
            if problem.code == "upload_exists":
                unfinished = self._client.recording(recording["id"])["upload"]
                if unfinished:
                    return unfinished["url"]
            raise
        return _path(answer.headers["Location"])

    def _offset(self, url: str) -> int:
        answer = self._client.send("HEAD", _path(url), headers=TUS_VERSION)
        return self._offset_of(answer)

    def _send_from(
        self,
        offset: int,
        url: str,
        recording: Recording,
        file: MediaFile,
        media: BinaryIO,
        pace: Pace,
    ) -> None:
        """Send everything from `offset` on. A finished upload gets one empty chunk: the server then ends
        what a crash may have kept it from."""
        while True:
            self._on_offset(recording, offset)
            media.seek(offset)
            chunk = media.read(pace.chunk_bytes)
            require_unchanged(file, media.fileno())
            if offset + len(chunk) > file.size_bytes or (not chunk and offset < file.size_bytes):
                raise changed(file)
            is_last = offset + len(chunk) == file.size_bytes
            digest = base64.b64encode(hashlib.sha256(chunk).digest()).decode()
            answer = self._client.send(
                "PATCH",
                _path(url),
                content=self._slices(recording, offset, chunk),
                headers={
                    **TUS_VERSION,
                    "Content-Type": "application/offset+octet-stream",
                    "Content-Length": str(len(chunk)),
                    "Upload-Offset": str(offset),
                    "Upload-Checksum": f"sha256 {digest}",
                },
                timeout=FINISH_TIMEOUT_S if is_last else CHUNK_TIMEOUT_S,
            )
            offset = self._offset_of(answer)
            pace.succeeded()
            if offset == file.size_bytes:
                self._on_offset(recording, offset)
                return

    def _slices(self, recording: Recording, offset: int, chunk: bytes) -> Iterator[bytes]:
        view = memoryview(chunk)
        for start in range(0, len(chunk), SLICE_BYTES):
            self._check_stop()
            yield bytes(view[start : start + SLICE_BYTES])
            self._on_offset(recording, min(offset + start + SLICE_BYTES, offset + len(chunk)))

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise UploadStopped

    def _offset_of(self, answer: httpx.Response) -> int:
        try:
            return int(answer.headers["Upload-Offset"])
        except (KeyError, ValueError):
            raise CliError(
                f"{self._client.server} answered {answer.request.method} {answer.request.url.path} without a "
                "valid Upload-Offset: something between here and the server changes its answers"
            ) from None


def _path(url: str) -> str:
    """The path of an upload's address from /v1 on: a server behind a proxy may not know its own host name,
    and the API key goes to no other host."""
    return url[url.index("/v1/") :] if "/v1/" in url else url
