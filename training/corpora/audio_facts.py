"""What is known of every clip of a corpus once it was decoded: hashes, length, damage, level.

Clips are decoded in processes of their own, since libav's decoders are C code and meet files that volunteers made: one
that ends its process is found, told and left out. What was learnt is kept in a small SQLite file, so that a clip that
did not change is not decoded again, also after a run that was killed.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
import os
import signal
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from evaluation.held_out_audio import audio_column, file_of
from speech.audio import SAMPLE_RATE_HZ, MediaReader, MediaSource
from speech.errors import MediaError

DECODE_AT_MOST_S = 120
"""A longer file is no utterance: it is not read to its end."""
FILES_A_TASK = 8
TASKS_A_WORKER = 4
"""Handed over ahead, so that no process waits."""
REMEMBER_EVERY_S = 5.0
FRESH_NS = 2_000_000_000
"""What changed in the last two seconds is not remembered: it could change again within the clock's grain."""
PARQUET_ROWS_AT_ONCE = 16
VERSION = 1

OnProgress = Callable[[int, int], None]
"""Hears (clips that are known, clips in all)."""


@dataclass(frozen=True)
class AudioFacts:
    """One clip."""

    sha256: str
    """Of its bytes as stored; empty where there are none."""
    samples_sha256: str
    """Of its samples at 16 kHz, 16 bits: the same for the same sound as wav, as flac, and inside parquet."""
    n_samples: int
    """At 16 kHz; of a file longer than `DECODE_AT_MOST_S`, those that were decoded."""
    n_lost: int
    """Samples that could not be decoded; zeros stand in their place."""
    peak: float
    """Of the absolute samples; 1 is full scale."""
    missing: bool = False
    problem: str = ""
    """Why there is no sound; empty where there is."""

    @property
    def duration_s(self) -> float:
        return self.n_samples / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Task:
    """What one process does at a time: some files, or one group of rows of a parquet file."""

    folder: Path
    names: tuple[str, ...]
    """Relative to the folder."""
    group: int | None = None
    """Of the one parquet file."""
    first_row: int = 0
    n_rows: int = 0

    @property
    def clips(self) -> tuple[str, ...]:
        if self.group is None:
            return self.names
        return tuple(f"{self.names[0]}#{self.first_row + number}" for number in range(self.n_rows))


Check = Callable[[Task], list[AudioFacts]]


def look_at(
    folder: Path,
    audios: Sequence[str],
    memory: AudioMemory,
    decoders: Decoders,
    *,
    on_progress: OnProgress | None = None,
) -> dict[str, AudioFacts]:
    """Facts of each clip, by its path inside the folder. Never raises for what is wrong with a clip.

    Args:
        audios: as `ListedRow.audio`.
    """
    wanted = list(dict.fromkeys(audios))
    known: dict[str, AudioFacts] = {}
    stamps: dict[str, tuple[int, int, int]] = {}
    for name in dict.fromkeys(file_of(audio)[0] for audio in wanted):
        try:
            stat = (folder / name).stat()
            stamps[name] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        except (OSError, ValueError) as error:
            stamps[name] = (0, 0, 0)
            reason = getattr(error, "strerror", None) or str(error)
            known[name] = AudioFacts("", "", 0, 0, 0.0, missing=True, problem=reason)
    remembered = memory.recall(folder)
    stale: list[str] = []
    for audio in wanted:
        name = file_of(audio)[0]
        if name in known:
            known[audio] = known[name]
            continue
        stamp, facts = remembered.get(audio, (None, None))
        if facts is not None and stamp == stamps[name]:
            known[audio] = facts
        else:
            stale.append(audio)

    n_known = len(wanted) - len(stale)
    show = on_progress or (lambda n_known, n_wanted: None)
    show(n_known, len(wanted))
    still_wanted = set(stale)
    for task, facts_of_task in decoders.work(_tasks(folder, stale, known)):
        learnt = [
            (audio, facts)
            for audio, facts in zip(task.clips, facts_of_task, strict=True)
            if audio in still_wanted
        ]
        known.update(learnt)
        memory.learn(folder, [(audio, stamps[file_of(audio)[0]], facts) for audio, facts in learnt])
        n_known += len(learnt)
        show(n_known, len(wanted))
    gone = AudioFacts("", "", 0, 0, 0.0, missing=True, problem="the parquet file has no such row")
    return {audio: known.get(audio, gone) for audio in wanted}


def _tasks(folder: Path, stale: Sequence[str], known: dict[str, AudioFacts]) -> Iterator[Task]:
    """What is to be done, in order. A parquet file that cannot be read becomes known as such."""
    files = [audio for audio in stale if file_of(audio)[0] == audio]
    for start in range(0, len(files), FILES_A_TASK):
        yield Task(folder, tuple(files[start : start + FILES_A_TASK]))
    rows: dict[str, list[int]] = {}
    for audio in stale:
        name, row = file_of(audio)
        if name != audio:
            rows.setdefault(name, []).append(row)
    for name, numbers in rows.items():
        try:
            starts = _group_starts(folder / name)
        except Exception as error:
            unreadable = AudioFacts("", "", 0, 0, 0.0, problem=f"not a readable parquet file ({error})")
            known.update((f"{name}#{number}", unreadable) for number in numbers)
            continue
        wanted = set(numbers)
        for group, (first, end) in enumerate(itertools.pairwise(starts)):
            if not wanted.isdisjoint(range(first, end)):
                yield Task(folder, (name,), group, first, end - first)


def _group_starts(file: Path) -> list[int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        sizes = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
    return [sum(sizes[:n]) for n in range(len(sizes) + 1)]


# --- in processes ------------------------------------------------------------------------------------------


class Decoders:
    """Processes that decode, started when there is work and kept until the end. A context manager."""

    def __init__(self, workers: int, check: Check | None = None) -> None:
        """`workers` 1 decodes in this process. `check` is `check_audio`, unless a test says otherwise."""
        self._workers = workers
        self._check = check or check_audio
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def work(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, list[AudioFacts]]]:
        """Each task with its facts, as they come."""
        if self._workers <= 1:
            for task in tasks:
                yield task, self._check(task)
            return
        running: dict[Future[list[AudioFacts]], Task] = {}
        while True:
            ended = self._fill(running, tasks)
            if not running and not ended:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
            for future in finished:
                done = running.pop(future)
                try:
                    facts = future.result()
                except BrokenProcessPool:
                    ended.append(done)
                else:
                    yield done, facts
            if ended:
                # a process ended: whichever clip did it is among these, and each is tried alone
                ended += running.values()
                running.clear()
                self._end()
                yield from self._one_by_one(ended)

    def _fill(self, running: dict[Future[list[AudioFacts]], Task], tasks: Iterator[Task]) -> list[Task]:
        """Hand over work until enough is waiting; the task at which it was seen that a process had ended."""
        while len(running) < self._workers * TASKS_A_WORKER:
            task = next(tasks, None)
            if task is None:
                break
            if self._pool is None:
                self._pool = _new_pool(self._workers)
            try:
                running[self._pool.submit(self._check, task)] = task
            except BrokenProcessPool:
                return [task]
        return []

    def _one_by_one(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[AudioFacts]]]:
        """Each clip alone in a process, so that it is known which one ends it."""
        self._pool = _new_pool(1)
        for task in tasks:
            found: list[AudioFacts] = []
            for part in _alone(task):
                try:
                    found += self._pool.submit(self._check, part).result()
                except BrokenProcessPool:
                    ended = AudioFacts("", "", 0, 0, 0.0, problem="decoding it ended the process")
                    found += [ended] * len(part.clips)
                    self._end()
                    self._pool = _new_pool(1)
            yield task, found
        self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _alone(task: Task) -> Iterator[Task]:
    if task.group is not None:
        yield task  # a group of rows is read together
        return
    for name in task.names:
        yield Task(task.folder, (name,))


def _new_pool(workers: int) -> ProcessPoolExecutor:
    # spawned, not forked: libav and pyarrow have threads
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_ignore_interrupts
    )


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that hands out the work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def check_audio(task: Task) -> list[AudioFacts]:
    """Facts of the task's clips, in order."""
    if task.group is not None:
        return _facts_of_group(task)
    return [_facts_of_file(task.folder / name, name) for name in task.names]


def _facts_of_file(file: Path, name: str) -> AudioFacts:
    try:
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        return AudioFacts("", "", 0, 0, 0.0, missing=True, problem=error.strerror or str(error))
    return _decoded(file, name, sha256)


def _facts_of_group(task: Task) -> list[AudioFacts]:
    import pyarrow.parquet as pq

    name = task.names[0]
    found: list[AudioFacts] = []
    try:
        with pq.ParquetFile(task.folder / name) as parquet:
            column = audio_column(parquet.schema_arrow)
            batches = parquet.iter_batches(
                batch_size=PARQUET_ROWS_AT_ONCE, row_groups=[task.group], columns=[f"{column}.bytes"]
            )
            for batch in batches:
                found += [_facts_of_bytes(record, name) for record in batch.column(0).to_pylist()]
    except Exception as error:  # what is wrong with one file is told of its rows
        unreadable = AudioFacts("", "", 0, 0, 0.0, problem=f"these rows cannot be read ({error})")
        found += [unreadable] * (task.n_rows - len(found))
    return found


def _facts_of_bytes(record: dict[str, Any] | None, name: str) -> AudioFacts:
    content = (record or {}).get("bytes")
    if not isinstance(content, bytes):
        return AudioFacts("", "", 0, 0, 0.0, missing=True, problem="the row holds no audio bytes")
    return _decoded(io.BytesIO(content), name, hashlib.sha256(content).hexdigest())


def _decoded(source: MediaSource, name: str, sha256: str) -> AudioFacts:
    digest = hashlib.sha256()
    peak = 0.0
    try:
        with MediaReader(source, name=name) as media:
            for block in media.blocks():
                samples = np.clip(np.rint(block.samples * 32_768), -32_768, 32_767).astype("<i2")
                digest.update(samples.tobytes())
                peak = max(peak, float(np.abs(block.samples).max()))
                if media.n_samples > DECODE_AT_MOST_S * SAMPLE_RATE_HZ:
                    break
            n_lost = sum(span.end_sample - span.start_sample for span in media.failed)
            return AudioFacts(sha256, digest.hexdigest(), media.n_samples, n_lost, peak)
    except MediaError as error:
        problem = error.reason
    except Exception as error:  # whatever a decoder makes of a broken file, the others are read
        problem = f"{type(error).__name__}: {error}"
    return AudioFacts(sha256, "", 0, 0, 0.0, problem=problem)


# --- what is remembered ------------------------------------------------------------------------------------


class AudioMemory:
    """Facts of clips by folder, in a SQLite file. A context manager; damaged, it is begun anew."""

    def __init__(self, file: Path | None) -> None:
        """`file` None: nothing is remembered."""
        self._file = file
        self._learnt: deque[tuple[Any, ...]] = deque()
        self._written_at = time.monotonic()
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = _open(self._file)
            except sqlite3.DatabaseError:
                self._file.unlink()
                self._connection = _open(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._write()
            self._connection.close()

    def recall(self, folder: Path) -> dict[str, tuple[tuple[int, int, int], AudioFacts]]:
        """Stamp and facts of each clip of a folder."""
        if self._connection is None:
            return {}
        rows = self._connection.execute(
            "SELECT audio, size, changed_ns, entry_ns, sha256, samples_sha256, n_samples, n_lost, peak, missing, "
            "problem FROM clips WHERE folder = ?",
            (_key(folder),),
        )
        found = {}
        for (
            audio,
            size,
            changed_ns,
            entry_ns,
            sha256,
            samples,
            n_samples,
            n_lost,
            peak,
            missing,
            problem,
        ) in rows:
            facts = AudioFacts(sha256, samples, n_samples, n_lost, peak, bool(missing), problem)
            found[audio] = ((size, changed_ns, entry_ns), facts)
        return found

    def learn(self, folder: Path, learnt: Sequence[tuple[str, tuple[int, int, int], AudioFacts]]) -> None:
        """Remember clips, now or within seconds."""
        if self._connection is None:
            return
        oldest_fresh = time.time_ns() - FRESH_NS
        self._learnt += [
            (_key(folder), audio, *stamp, *astuple(facts))
            for audio, stamp, facts in learnt
            if facts.sha256 and max(stamp[1:]) < oldest_fresh
        ]
        if time.monotonic() - self._written_at > REMEMBER_EVERY_S:
            self._write()

    def _write(self) -> None:
        if self._connection is None:
            return
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._learnt
            )
        self._learnt.clear()
        self._written_at = time.monotonic()


def _key(folder: Path) -> str:
    return os.fsencode(folder.resolve()).decode("utf-8", "backslashreplace")


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError("made by another version")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS clips (folder TEXT, audio TEXT, size INTEGER, changed_ns INTEGER, "
            "entry_ns INTEGER, sha256 TEXT, samples_sha256 TEXT, n_samples INTEGER, n_lost INTEGER, peak REAL, "
            "missing INTEGER, problem TEXT, PRIMARY KEY (folder, audio)) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection
