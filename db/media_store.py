"""The object store: original media, working copies and their peaks, by key, in a local folder or a bucket.

Addresses: `file:///folder`, `s3://bucket/prefix` (and what else obstore speaks: gs://, az://); credentials come
from the provider's own environment variables.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

READ_BUFFER_BYTES = 1 << 20
"""Bytes fetched per range request while a file is read."""

STREAM_PART_BYTES = 1 << 16
"""Smallest part of a stream but the last."""


def original_key(broadcaster_id: int, recording_id: uuid.UUID) -> str:
    """Key of a recording's media as it was submitted."""
    return f"{broadcaster_id}/{recording_id}/original"


def working_copy_key(broadcaster_id: int, recording_id: uuid.UUID, attempt: int) -> str:
    """Key of the 16 kHz mono copy that one split attempt writes. Each attempt has a key of its own, so that
    a worker given up for dead cannot overwrite the copy that its successor's segments refer to."""
    return f"{broadcaster_id}/{recording_id}/working-{attempt}.flac"


def peaks_key(working_copy_key: str) -> str:
    """Key of the peaks that were made with a working copy: what a player draws (`speech/peaks.py`)."""
    return working_copy_key.removesuffix(".flac") + ".dat"


class MediaMissing(Exception):
    """The database names a key that the object store does not hold."""


class MediaStore:
    """Objects by key. Safe to share between threads; make one after a fork, not before."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: ObjectStore
        self._folder: Path | None = None
        if url.startswith("file://"):
            self._folder = Path(unquote(urlsplit(url).path))
            self._store = LocalStore(self._folder, mkdir=True, automatic_cleanup=True)
        else:
            self._store = from_url(url)

    def put_file(self, key: str, path: Path) -> None:
        """Store a file's bytes under `key`, replacing what was there. Large files go up in parts."""
        obstore.put(self._store, key, path)

    def open(self, key: str) -> BinaryIO:
        """A seekable reader that fetches ranges as it is read; of a folder, the file itself. To be closed.

        Raises:
            MediaMissing: no such object.
        """
        try:
            if self._folder is not None:
                return (self._folder / key).open("rb")
            reader = obstore.open_reader(self._store, key, buffer_size=READ_BUFFER_BYTES)
        except (NotFoundError, FileNotFoundError) as error:
            raise self._missing(key) from error
        return cast("BinaryIO", reader)

    def size_bytes(self, key: str) -> int:
        """Length of an object. Raises MediaMissing as above."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except (NotFoundError, FileNotFoundError) as error:
            raise self._missing(key) from error

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.size_bytes(key)
        except MediaMissing:
            return False
        return True

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of an object from `start` to before `stop`, in parts, by one request.

        Raises:
            MediaMissing: no such object; before the first part.
        """
        try:
            answer = obstore.get(self._store, key, options={"range": (start, stop)})
        except (NotFoundError, FileNotFoundError) as error:
            raise self._missing(key) from error
        return (bytes(part) for part in answer.stream(min_chunk_size=STREAM_PART_BYTES))

    def _missing(self, key: str) -> MediaMissing:
        return MediaMissing(
            f"{key} is not in the object store {self.url}: it was removed, or the address changed"
        )

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        try:
            obstore.delete(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return

    def check(self) -> None:
        """Raise what the store raises when it cannot be reached."""
        obstore.list_with_delimiter(self._store, prefix="health-check")
