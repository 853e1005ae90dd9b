"""Takes an upload's bytes from the network to disk.

Without a checksum the offset is committed every COMMIT_EVERY_BYTES, and whatever has arrived is kept when the
client vanishes or the server stops. With a checksum the bytes of one request count all together or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

import anyio
import structlog
from sqlalchemy import Engine
from starlette.requests import ClientDisconnect, Request

from api.staging import StagedFile
from db.connect import transaction
from db.uploads import Upload, advance_upload

COMMIT_EVERY_BYTES = 8 * 2**20
"""What a crash can cost an upload without checksums."""

WRITE_BYTES = 2**20
"""Bytes gathered before a thread writes them."""

IDLE_BODY_S = 60.0
"""A body from which nothing has come for so long belongs to a connection that is gone, although nobody said so.
Until then its lock answers the client's own next try with 423."""

log = structlog.get_logger(__name__)


class UploadGone(Exception):
    """The upload was ended or moved on while its bytes came in."""


class BodyTooLong(Exception):
    """More bytes came than the upload has left."""


class ChunkChecksumMismatch(Exception):
    """The bytes of this request do not have the digest that came with them."""


class Ending(Enum):
    """How a body ended."""

    COMPLETE = "complete"
    VANISHED = "vanished"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Checksum:
    """A digest announced for the bytes of one request."""

    algorithm: str
    digest: bytes


@dataclass
class OpenBodies:
    """The bodies being read, so that a stopping server can end them with their bytes kept."""

    stopping: bool = False
    _scopes: set[anyio.CancelScope] = field(default_factory=set)

    @contextmanager
    def reading(self) -> Iterator[anyio.CancelScope]:
        """A scope that ends when the server stops or its deadline passes."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self.stopping:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def stop(self) -> None:
        """End all of them, and those still to come. Call it in the event loop."""
        self.stopping = True
        for scope in list(self._scopes):
            scope.cancel()


class Receiver:
    """One request's bytes on their way into a staged file."""

    def __init__(self, engine: Engine, upload: Upload, staged: StagedFile, checksum: Checksum | None) -> None:
        self._engine = engine
        self._upload = upload
        self._staged = staged
        self._checksum = checksum
        self._hasher = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._committed_bytes = upload.offset_bytes
        self._pending = bytearray()

    async def receive(self, request: Request, bodies: OpenBodies) -> Ending:
        """Read the request's body to its end, or as far as it comes; write it; commit what counts.

        The last byte of the upload is left uncommitted: `finish` does that.

        Raises:
            BodyTooLong: the rest is not read; what was committed before stays.
            ChunkChecksumMismatch: nothing of it was kept.
            UploadGone: nothing more can be kept.
        """
        ending = Ending.COMPLETE
        with bodies.reading() as scope:
            try:
                scope.deadline = anyio.current_time() + IDLE_BODY_S
                async for chunk in request.stream():
                    scope.deadline = anyio.current_time() + IDLE_BODY_S
                    if self._staged.position + len(self._pending) + len(chunk) > self._upload.length_bytes:
                        raise BodyTooLong
                    self._pending += chunk
                    if len(self._pending) >= WRITE_BYTES:
                        scope.deadline = float("inf")  # a slow disk is not an idle client
                        await anyio.to_thread.run_sync(self._write)
                scope.deadline = float("inf")
            except ClientDisconnect:
                ending = Ending.VANISHED
        if scope.cancelled_caught:
            ending = Ending.STOPPED if bodies.stopping else Ending.VANISHED
        # kept even when the task is cancelled meanwhile: the bytes are here
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._end, ending)
        return ending

    @property
    def complete(self) -> bool:
        """Whether the file has all the upload's bytes."""
        return self._staged.position == self._upload.length_bytes

    @property
    def committed_bytes(self) -> int:
        """The upload's offset in the database."""
        return self._committed_bytes

    def _write(self) -> None:
        data, self._pending = self._pending, bytearray()
        self._staged.write(data)
        if self._hasher is not None:
            self._hasher.update(data)
        elif self._staged.position - self._committed_bytes >= COMMIT_EVERY_BYTES:
            self._commit()

    def _commit(self) -> None:
        position = self._staged.position
        if not self._committed_bytes < position < self._upload.length_bytes:
            return
        self._staged.sync()
        with transaction(self._engine) as tx:
            moved = advance_upload(
                tx.connection, self._upload.id, from_bytes=self._committed_bytes, to_bytes=position
            )
        if not moved:
            raise UploadGone
        self._committed_bytes = position

    def _end(self, ending: Ending) -> None:
        self._write()
        if self._hasher is None or self._checksum is None:
            self._commit()
        elif ending is not Ending.COMPLETE:
            self._staged.cut(self._upload.offset_bytes)
        elif self._hasher.digest() != self._checksum.digest:
            self._staged.cut(self._upload.offset_bytes)
            raise ChunkChecksumMismatch(self._hasher.hexdigest())
        else:
            self._commit()
