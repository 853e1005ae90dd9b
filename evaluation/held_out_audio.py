"""The audio of held-out sets: hash and duration of every clip, remembered, and one clip's samples.

Remembering is for the night: tens of thousands of clips that did not change are not read again to know it. A file
counts as unchanged while its size, its time of change and that of its entry are the same; one that changed in the last
two seconds is not remembered, since it could change again within the clock's grain.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from evaluation.manifests import HeldOutError
from speech.audio import MediaReader
from speech.errors import MediaError

Clip = npt.NDArray[np.float32]

VERSION = 1
READERS = 4
SAVE_EVERY_FILES = 2_000
"""So that a first look at a large set that is interrupted goes on where it was."""
FRESH_NS = 2_000_000_000
MAX_NAMED = 5

_IN_PARQUET = re.compile(r"(.+\.parquet)#(\d+)")


class AudioChanged(HeldOutError):
    """A clip's bytes are not those that were registered."""


@dataclass(frozen=True)
class AudioFacts:
    """What is known of one clip without its samples."""

    sha256: str
    duration_samples: int
    """At 16 kHz; 0 where it cannot be decoded: its prediction will say why."""


class AudioIndex:
    """Hashes and durations of one set's files. A context manager: what was learnt is written at its end.

    Args:
        cache: folder of the remembered ones; None remembers nothing.
        folder: the set's.
    """

    def __init__(self, cache: Path | None, folder: Path) -> None:
        self._folder = folder
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self._file = cache / f"{folder.name}-{name}.json" if cache else None
        self._known: dict[str, Any] = self._load()
        self._seen: set[str] = set()
        self._n_unsaved = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for gone in self._known.keys() - self._seen:
                del self._known[gone]
                self._n_unsaved += 1
        if self._n_unsaved:
            self._save()

    def look_at(self, audios: Sequence[tuple[str, str]]) -> list[AudioFacts]:
        """Facts of each (path inside the folder, where it is listed), in the same order.

        Raises:
            HeldOutError: files are missing or cannot be read.
        """
        by_file: dict[str, str] = {}
        for audio, where in audios:
            by_file.setdefault(file_of(audio)[0], where)
        stamps = self._stamps(by_file)
        self._seen |= stamps.keys()
        stale = [name for name, stamp in stamps.items() if self._known.get(name, {}).get("stamp") != stamp]
        with ThreadPoolExecutor(READERS, thread_name_prefix="look-at-audio") as readers:
            learnt = readers.map(lambda name: (name, _facts_of(self._folder / name, by_file[name])), stale)
            try:
                for name, facts in learnt:
                    self._known[name] = {"stamp": stamps[name], "clips": facts}
                    self._n_unsaved += 1
                    if self._n_unsaved >= SAVE_EVERY_FILES:
                        self._save()
            except BaseException:
                readers.shutdown(cancel_futures=True)
                raise
        found = []
        for audio, where in audios:
            name, row = file_of(audio)
            clips = self._known[name]["clips"]
            if row >= len(clips):
                raise HeldOutError(f"{where}: {name} changed while it was read")
            found.append(AudioFacts(*clips[row]))
        for name in stale:
            if time.time_ns() - max(stamps[name][1:]) < FRESH_NS:
                self._known[name]["stamp"] = None
        return found

    def _stamps(self, by_file: dict[str, str]) -> dict[str, list[int]]:
        stamps: dict[str, list[int]] = {}
        problems = []
        for name, where in by_file.items():
            try:
                stat = (self._folder / name).stat()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                problems.append(f"{where}: {name}: {reason}")
                continue
            stamps[name] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if problems:
            more = f"\n... and {len(problems) - MAX_NAMED:,} more" if len(problems) > MAX_NAMED else ""
            raise HeldOutError("\n".join(problems[:MAX_NAMED]) + more)
        return stamps

    def _load(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # not there yet, or damaged: everything is looked at again
        if not isinstance(content, dict) or content.get("version") != VERSION:
            return {}
        files = content.get("files")
        return files if isinstance(files, dict) else {}

    def _save(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, "files": self._known}, file)
            Path(name).replace(self._file)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        self._n_unsaved = 0


def file_of(audio: str) -> tuple[str, int]:
    """The file that holds a clip, and which of its clips it is."""
    inside = _IN_PARQUET.fullmatch(audio)
    return (inside[1], int(inside[2])) if inside else (audio, 0)


def read_audio(datasets: Path, audio: str) -> bytes:
    """The bytes of one clip's file, as it lies under `datasets`.

    Raises:
        OSError: it cannot be read.
        HeldOutError: a parquet file that cannot be read, or lacks the row.
    """
    name, row = file_of(audio)
    file = datasets / name
    return _parquet_clip(file, row) if name != audio else file.read_bytes()


def decode_clip(content: bytes, name: str) -> Clip:
    """Samples at 16 kHz, float32. Raises a `speech.errors.MediaError` subclass where there are none."""
    with MediaReader(io.BytesIO(content), name=name) as media:
        return np.concatenate([block.samples for block in media.blocks()])


def load_clip(datasets: Path, audio: str, *, sha256: str | None = None) -> Clip:
    """One clip, float32 at 16 kHz.

    Args:
        audio: as registered, relative to `datasets`.
        sha256: of its bytes as registered.

    Raises:
        OSError: its file cannot be read.
        AudioChanged: it is another clip by now.
        HeldOutError: a parquet file that cannot be read, or lacks the row.
        speech.errors.MediaError: it holds no audio that can be decoded.
    """
    content = read_audio(datasets, audio)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise AudioChanged(f"{audio}: its audio changed after the set was registered")
    return decode_clip(content, audio)


def _facts_of(file: Path, where: str) -> list[tuple[str, int]]:
    """(sha256, duration in samples) of each clip in a file."""
    try:
        if file.suffix == ".parquet":
            return [_facts(content, str(file)) for content in _parquet_clips(file)]
        return [_facts(file.read_bytes(), str(file))]
    except OSError as error:
        raise HeldOutError(f"{where}: {file}: {error.strerror or error}") from error


def _facts(content: bytes, name: str) -> tuple[str, int]:
    try:
        with MediaReader(io.BytesIO(content), name=name) as media:
            for _ in media.blocks():
                pass
            n_samples = media.n_samples
    except MediaError:
        n_samples = 0
    return hashlib.sha256(content).hexdigest(), n_samples


def audio_column(schema: Any) -> str:
    """The struct with `bytes`; set.toml may have named it, so it is found by its form."""
    import pyarrow as pa

    names = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    return "audio" if "audio" in names else str(names[0])


def _parquet_clips(file: Path) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            column = audio_column(parquet.schema_arrow)
            for batch in parquet.iter_batches(batch_size=64, columns=[f"{column}.bytes"]):
                for record in batch.column(0).to_pylist():
                    yield _bytes_of(record, file, number)
                    number += 1
    except pa.ArrowException as error:
        raise HeldOutError(f"{file}: not a readable parquet file ({error})") from error


def _bytes_of(record: dict[str, Any] | None, file: Path, number: int) -> bytes:
    content = (record or {}).get("bytes")
    if not isinstance(content, bytes):
        raise HeldOutError(f"{file}, row {number}: it holds no audio bytes")
    return content


_row_groups = threading.Lock()


def _parquet_clip(file: Path, row: int) -> bytes:
    stat = file.stat()
    # one reader at a time: else each would decompress the same group of rows
    with _row_groups:
        starts = _group_starts(file, stat.st_mtime_ns)
        group = max((n for n, start in enumerate(starts[:-1]) if start <= row), default=-1)
        if group < 0 or row >= starts[-1]:
            raise HeldOutError(f"{file}, row {row}: it has {starts[-1]} rows")
        column = _group(file, stat.st_mtime_ns, group)
        return _bytes_of(column[row - starts[group]].as_py(), file, row)


@lru_cache(maxsize=64)
def _group_starts(file: Path, mtime_ns: int) -> list[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            sizes = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
    except pa.ArrowException as error:
        raise HeldOutError(f"{file}: not a readable parquet file ({error})") from error
    return [sum(sizes[:n]) for n in range(len(sizes) + 1)]


@lru_cache(maxsize=2)
def _group(file: Path, mtime_ns: int, group: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            column = audio_column(parquet.schema_arrow)
            return parquet.read_row_group(group, columns=[f"{column}.bytes"]).column(0)
    except pa.ArrowException as error:
        raise HeldOutError(f"{file}: not a readable parquet file ({error})") from error
