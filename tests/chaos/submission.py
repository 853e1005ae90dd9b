"""Three broadcasters that send their recordings, with the client that people use, whatever happens to the server."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

from cli.client import ApiClient, ApiProblem, Recording, ServerUnreachable
from cli.stack import make_key
from cli.upload import TUS_VERSION, Uploader
from db.states import Priority
from tests.chaos.media import Material
from tests.chaos.system import QUOTA_BYTES, System

BROADCASTERS = ("radio-norte", "radio-sur", "television")
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Upload:
    """One recording on its way."""

    client: ApiClient
    recording: Recording
    material: Material


class Submission:
    """Batches of three broadcasters, made at once; their media are sent when `release` says so.

    Use it as a context manager: the end waits for nothing and stops what is not sent.
    """

    def __init__(self, system: System, material: Sequence[Material], *, name: str, threads: int = 3) -> None:
        self.batch_ids: list[str] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._sent: list[Future[None]] = []
        self._clients: list[ApiClient] = []
        self._interrupt: Callable[[], None] | None = None
        self._interrupting = threading.Lock()
        self.n_sent_away = 0
        """Times that an upload was told that there is no room."""
        self._to_send = self._make_batches(system, material, name)

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for client in self._clients:
            client.close()

    def _make_batches(self, system: System, material: Sequence[Material], name: str) -> list[Upload]:
        uploads: list[Upload] = []
        priorities = list(Priority)
        for number, broadcaster in enumerate(BROADCASTERS):
            client = ApiClient(system.stack.api_url, make_key(system.engine, broadcaster, "chaos"))
            self._clients.append(client)
            own = material[number :: len(BROADCASTERS)]
            batch, _ = client.create_batch(
                name=name,
                priority=priorities[number],
                recordings=[
                    {"name": part.file.name, "size_bytes": part.file.size_bytes, "sha256": part.sha256}
                    for part in own
                ],
                idempotency_key=str(uuid.uuid4()),
            )
            self.batch_ids.append(batch["id"])
            by_name = {part.file.name: part for part in own}
            uploads += [
                Upload(client, found, by_name[found["name"]]) for found in client.recordings(batch["id"])
            ]
        return sorted(uploads, key=lambda upload: upload.material.file.name)

    @property
    def n_left(self) -> int:
        """Recordings whose media nobody has begun to send."""
        return len(self._to_send)

    @property
    def is_sending(self) -> bool:
        """Whether media are on their way."""
        return any(not future.done() for future in self._sent)

    def release(self, n_recordings: int) -> None:
        """Send the media of so many recordings more."""
        now, self._to_send = self._to_send[:n_recordings], self._to_send[n_recordings:]
        self._sent += [self._pool.submit(self._send, upload) for upload in now]

    def take_all_room(self, number: int) -> Callable[[], bool] | None:
        """Announce an upload for all the room that one broadcaster has left, and send nothing.

        Returns:
            What gives the room back, to be called until it says True; None where there was no room to take.
        """
        client = self._clients[number % len(self._clients)]
        length_bytes = QUOTA_BYTES
        for _ in range(3):
            try:
                return self._hold_room(client, length_bytes)
            except ApiProblem as problem:
                length_bytes = QUOTA_BYTES - int(problem.content.get("waiting_bytes", QUOTA_BYTES))
                if length_bytes <= 0:
                    return None
            except ServerUnreachable:
                return None
        return None

    def _hold_room(self, client: ApiClient, length_bytes: int) -> Callable[[], bool]:
        batch, _ = client.create_batch(
            name="all the room",
            priority="archive",
            recordings=[{"name": "never.wav", "size_bytes": length_bytes, "sha256": "0" * 64}],
            idempotency_key=str(uuid.uuid4()),
        )
        (recording,) = client.recordings(batch["id"])
        metadata = base64.b64encode(recording["id"].encode()).decode()
        headers = {"Upload-Length": str(length_bytes), "Upload-Metadata": f"recording_id {metadata}"}
        try:
            answer = client.send("POST", "/v1/uploads", headers=TUS_VERSION | headers)
        except ApiProblem:
            client.send("POST", f"/v1/batches/{batch['id']}/cancel")
            raise
        location = answer.headers["Location"]
        path = location[location.index("/v1/") :]

        def give_back() -> bool:
            try:
                client.send("DELETE", path, headers=TUS_VERSION)
            except ApiProblem as problem:
                if problem.status != HTTPStatus.NOT_FOUND:
                    return False
            except ServerUnreachable:
                return False
            try:
                client.send("POST", f"/v1/batches/{batch['id']}/cancel")
            except (ApiProblem, ServerUnreachable):
                return False
            return True

        return give_back

    def interrupt_next(self, strike: Callable[[], None]) -> None:
        """Have `strike` called once in the middle of the next body that is sent."""
        self._interrupt = strike

    @property
    def is_interrupt_due(self) -> bool:
        """Whether `interrupt_next` still waits for a body."""
        return self._interrupt is not None

    def raise_errors(self) -> None:
        """Raise what an upload ended with, if one did not succeed."""
        for future in self._sent:
            if future.done():
                future.result()

    def _send(self, upload: Upload) -> None:
        uploader = Uploader(
            upload.client,
            on_offset=self._hear,
            on_no_room=self._hear_no_room,
            stop=self._stop,
            patience_s=PATIENCE_S,
        )
        uploader.upload(upload.recording, upload.material.file)

    def _hear_no_room(self, _problem: ApiProblem) -> None:
        self.n_sent_away += 1

    def _hear(self, recording: Recording, offset: int) -> None:
        if 0 < offset < recording["size_bytes"]:
            with self._interrupting:
                strike, self._interrupt = self._interrupt, None
            if strike is not None:
                strike()
