"""Many uploads at once, and the bars that show them."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cli.client import ApiClient, ApiProblem, Recording, ServerUnreachable
from cli.errors import CliError
from cli.gather import MediaFile, reason_of
from cli.output import Output, note, size_text
from cli.upload import Uploader, UploadStopped

if TYPE_CHECKING:
    from rich.progress import Progress

PARALLEL_UPLOADS = 4
PLAIN_LINE_EVERY_S = 10.0
STOP_S = 2.0
"""Most that the end of the command waits for uploads to notice."""
REFUSED_FOR_ALL = frozenset({401, 403})
"""Statuses that say nothing of one file: the key is no good."""


@dataclass(frozen=True)
class UploadFailure:
    """One file that did not arrive, while others may have."""

    name: str
    reason: str


class Shown(Protocol):
    """What displays uploads; called from several threads."""

    def at(self, recording: Recording, offset: int) -> None:
        """So many bytes are there or on their way."""

    def done(self, recording: Recording) -> None:
        """The whole file is there."""


Ended = queue.SimpleQueue[tuple[Recording, Exception | None] | None]
"""Uploads that ended, with their error; None is Ctrl-C."""


@contextmanager
def _ctrl_c_ends(ended: Ended) -> Iterator[None]:
    """Ctrl-C as an item of the queue. As an exception it would be lost when it falls into a destructor, and the
    command would hang on in a dead connection."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: ended.put(None))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def upload_all(
    client: ApiClient,
    pairs: Sequence[tuple[Recording, MediaFile]],
    output: Output,
    *,
    patience_s: float,
) -> list[UploadFailure]:
    """Upload files a few at a time.

    Returns:
        The files that failed by themselves (changed, unreadable, refused).

    Raises:
        ServerUnreachable, ApiProblem: no file can be uploaded any more; the others were stopped.
        KeyboardInterrupt: after the running uploads were told to stop.
    """
    if not pairs:
        return []
    failures: list[UploadFailure] = []
    waiting: queue.SimpleQueue[tuple[Recording, MediaFile]] = queue.SimpleQueue()
    ended: Ended = queue.SimpleQueue()
    for pair in pairs:
        waiting.put(pair)
    stop = threading.Event()
    total = sum(file.size_bytes for _, file in pairs)
    with _ctrl_c_ends(ended), _uploads_shown(output, len(pairs), total) as shown:
        uploader = Uploader(
            client, on_offset=shown.at, on_no_room=_NoRoom().told, stop=stop, patience_s=patience_s
        )
        threads = [
            # daemons: Ctrl-C must not wait for one that hangs in a dead connection
            threading.Thread(target=_work, args=(uploader, waiting, ended), name="upload", daemon=True)
            for _ in range(min(PARALLEL_UPLOADS, len(pairs)))
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in pairs:
                end = ended.get()
                if end is None:
                    raise KeyboardInterrupt
                recording, error = end
                if error is None:
                    shown.done(recording)
                else:
                    failures.append(_failure_of(error, recording))
        finally:
            stop.set()
            deadline = time.monotonic() + STOP_S
            for thread in threads:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
    return failures


class _NoRoom:
    """Says once why uploads wait, however many do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_told = False

    def told(self, problem: ApiProblem) -> None:
        with self._lock:
            if self._has_told:
                return
            self._has_told = True
        note(f"waiting for room on the server: {problem.message}")


def _work(
    uploader: Uploader,
    waiting: queue.SimpleQueue[tuple[Recording, MediaFile]],
    ended: Ended,
) -> None:
    """One thread: upload what waits until nothing does."""
    while True:
        try:
            recording, file = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            uploader.upload(recording, file)
        except UploadStopped:
            return
        except Exception as error:
            ended.put((recording, error))
        else:
            ended.put((recording, None))


def _failure_of(error: Exception, recording: Recording) -> UploadFailure:
    """How one upload failed by itself; raises what ends them all."""
    match error:
        case ServerUnreachable():
            raise error
        case ApiProblem() if error.is_transient or error.status in REFUSED_FOR_ALL:
            raise error
        case CliError():
            return UploadFailure(recording["name"], error.message)
        case OSError():
            return UploadFailure(recording["name"], f"cannot be read: {reason_of(error)}")
    raise error


@contextmanager
def _uploads_shown(output: Output, n_files: int, total: int) -> Iterator[Shown]:
    if output.live:
        with _byte_bars() as progress:
            yield _Bars(progress, total)
    else:
        yield _Lines(n_files, total)


class _Bars:
    """A bar for all files and one for each that is under way."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._offsets: dict[str, int] = {}
        self._all = progress.add_task("uploading", total=total)
        self._tasks: dict[str, int] = {}

    def at(self, recording: Recording, offset: int) -> None:
        from rich.progress import TaskID

        key = recording["id"]
        with self._lock:
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task(recording["name"], total=recording["size_bytes"])
            self._offsets[key] = offset
            self._progress.update(TaskID(self._tasks[key]), completed=offset)
            self._progress.update(self._all, completed=sum(self._offsets.values()))

    def done(self, recording: Recording) -> None:
        from rich.progress import TaskID

        self.at(recording, recording["size_bytes"])
        with self._lock:
            self._progress.remove_task(TaskID(self._tasks[recording["id"]]))


class _Lines:
    """A line for each file that arrived or is continued, and one on the whole every few seconds."""

    def __init__(self, n_files: int, total: int) -> None:
        self._n_files = n_files
        self._total = total
        self._lock = threading.Lock()
        self._offsets: dict[str, int] = {}
        self._n_done = 0
        self._last_line_at = time.monotonic()

    def at(self, recording: Recording, offset: int) -> None:
        with self._lock:
            if recording["id"] not in self._offsets and offset > 0:
                note(f"continuing {recording['name']} at {size_text(offset)}")
            self._offsets[recording["id"]] = offset
            if time.monotonic() - self._last_line_at >= PLAIN_LINE_EVERY_S:
                self._last_line_at = time.monotonic()
                sent = size_text(sum(self._offsets.values()))
                note(f"uploaded {self._n_done} of {self._n_files} files, {sent} of {size_text(self._total)}")

    def done(self, recording: Recording) -> None:
        with self._lock:
            self._n_done += 1
            self._offsets[recording["id"]] = recording["size_bytes"]
            note(f"uploaded {recording['name']} ({size_text(recording['size_bytes'])})")


@contextmanager
def bytes_shown(output: Output, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that hears how many bytes were just read, behind one bar on a terminal."""
    if not output.live:
        yield lambda n_bytes: None
        return
    with _byte_bars() as progress:
        task = progress.add_task(what, total=total)
        yield lambda n_bytes: progress.update(task, advance=n_bytes)


def _byte_bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=40, no_wrap=True)),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
