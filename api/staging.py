"""The staged file of an unfinished upload: locked, written, synced, hashed, removed.

Its name is the upload's id and nothing that a client chose, so it always lies in the upload folder.
Everything here blocks: call it from a worker thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self


class UploadLocked(Exception):
    """Another request is writing this upload."""


class StagedBytesLost(Exception):
    """The file holds fewer bytes than are known to have been written."""


def staged_path(folder: Path, upload_id: uuid.UUID) -> Path:
    """Where an upload's bytes are gathered."""
    return folder / str(upload_id)


class StagedFile:
    """An upload's file, open and locked. The lock goes with the process: a killed server leaves none behind."""

    def __init__(self, folder: Path, upload_id: uuid.UUID) -> None:
        """Open the file, made where it is missing, and lock it.

        Raises:
            UploadLocked: another request, of this process or another, holds it.
        """
        self.path = staged_path(folder, upload_id)
        self.position = 0
        """Bytes written so far."""
        while True:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._fd)
                if isinstance(error, BlockingIOError):
                    raise UploadLocked(str(upload_id)) from error
                raise
            if os.fstat(self._fd).st_nlink:
                break
            os.close(self._fd)  # removed by its last holder between open and lock: not the file of that name
        self._sync_folder()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give the lock back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def cut(self, offset_bytes: int) -> None:
        """Drop what lies behind `offset_bytes`, and go on from there.

        Raises:
            StagedBytesLost: the file is shorter.
        """
        size = os.fstat(self._fd).st_size
        if size < offset_bytes:
            raise StagedBytesLost(f"{self.path.name} holds {size} bytes of {offset_bytes}")
        os.ftruncate(self._fd, offset_bytes)
        self.position = offset_bytes

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self.position)
            self.position += written
            view = view[written:]

    def sync(self) -> None:
        """Return once everything written is on disk."""
        os.fdatasync(self._fd)

    def sha256(self) -> bytes:
        """Digest of the whole file, read back from disk: what is stored is what was sent."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").digest()

    def remove(self) -> None:
        """Remove the file. The lock stays until `close`."""
        self.path.unlink(missing_ok=True)
