"""Memory of every process of a running stack, what is in hand and what waits, every few seconds."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil
import redis

from tests.chaos.system import System
from workers.queue import CONTROL_QUEUE, GPU_QUEUE, MEDIA_QUEUE, QUALITY_QUEUE

MIB = 2**20
WARM_UP_S = 100.0
"""Connections, caches and the first rounds of PostgreSQL's autovacuum, one a minute, are over then."""
DECODER = "speech.isolated"
"""The module that a decoding process runs."""


@dataclass(frozen=True)
class Memory:
    """Of one part: its main process and all that it started, but for decoders, which live for one recording each."""

    n_processes: int
    rss_bytes: int
    """Resident, what is shared counted in each process."""
    pss_bytes: int
    """Resident, what is shared divided among who shares it."""
    anonymous_bytes: int
    """Resident and of no file and no shared segment: heaps and stacks."""


@dataclass(frozen=True)
class Sample:
    """One look at the system."""

    at_s: float
    """Since the first upload."""
    memory: Mapping[str, Memory]
    """By part."""
    n_finished: int
    n_unsplit: int
    """Recordings received and not begun."""
    n_splitting: int
    n_untranscribed: int
    """Segments not begun."""
    n_transcribing: int
    messages: Mapping[str, int]
    """Wake-ups that wait, by queue."""


@dataclass(frozen=True)
class Growth:
    """A part's memory early in a warm run and at its end, medians: see `warm_thirds`."""

    part: str
    n_processes: int
    rss_mib: tuple[float, float]
    pss_mib: tuple[float, float]
    anonymous_mib: tuple[float, float]
    peak_pss_mib: float

    @property
    def judged_mib(self) -> tuple[float, float]:
        """What must be steady: heaps and stacks. The rest is libraries, whose share depends on who else on the machine
        has them open, and PostgreSQL's buffers, of fixed size and resident once a page has been in them."""
        return self.anonymous_mib

    @property
    def percent(self) -> float:
        """By how much it grew."""
        return percent(self.judged_mib)


def percent(pair: tuple[float, float]) -> float:
    """By how much the second is more than the first, in percent."""
    return 100 * (pair[1] / pair[0] - 1)


class Sampler:
    """Looks at the system every `interval_s` in a thread of its own, from `start` to `stop`."""

    def __init__(self, system: System, interval_s: float, look_in: Callable[[], None]) -> None:
        self.samples: list[Sample] = []
        self._system = system
        self._interval_s = interval_s
        self._look_in = look_in
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._begun = 0.0
        self._thread = threading.Thread(target=self._run, name="sampler")

    def start(self) -> None:
        """Begin; the first sample is of now."""
        self._begun = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End, and raise what went wrong meanwhile."""
        self._is_over.set()
        self._thread.join()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what ended the sampling, if something did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with redis.Redis.from_url(self._system.stack.redis_url, socket_timeout=10) as broker:
                while True:
                    self.samples.append(self._sample(broker))
                    self._look_in()
                    if self._is_over.wait(self._interval_s):
                        return
        except BaseException as error:
            self._error = error

    def _sample(self, broker: redis.Redis) -> Sample:
        memory = {part: memory_of(pid) for part, pid in self._system.stack.pids.items()}
        (row,) = self._system.query(
            """
            SELECT count(*) FILTER (WHERE state = 'received') AS unsplit,
                   count(*) FILTER (WHERE state = 'splitting') AS splitting,
                   count(*) FILTER (WHERE finished_at IS NOT NULL) AS finished,
                   (SELECT count(*) FROM segments WHERE state = 'pending') AS untranscribed,
                   (SELECT count(*) FROM segments WHERE state = 'running') AS transcribing
            FROM recordings
            """
        )
        queues = (MEDIA_QUEUE, GPU_QUEUE, CONTROL_QUEUE, QUALITY_QUEUE)
        return Sample(
            time.monotonic() - self._begun,
            {part: found for part, found in memory.items() if found is not None},
            row.finished,
            row.unsplit,
            row.splitting,
            row.untranscribed,
            row.transcribing,
            {queue: int(broker.llen(queue)) for queue in queues},  # type: ignore[arg-type]
        )


def memory_of(pid: int) -> Memory | None:
    """Of a process and all below it; None when it is gone.

    Not of the decoding processes: what lives for a second cannot grow, and whether a look meets one or none is a
    matter of chance that is larger than any growth (`make bench-media` measures them).
    """
    found = []
    with suppress(psutil.NoSuchProcess):
        main = psutil.Process(pid)
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a server process whose client went meanwhile
                if DECODER not in process.cmdline():
                    found.append(process.memory_full_info())
    if not found:
        return None
    return Memory(
        len(found),
        sum(one.rss for one in found),
        sum(one.pss for one in found),
        sum(one.rss - one.shared for one in found),
    )


def growth_of(samples: Sequence[Sample]) -> list[Growth]:
    """How each part's memory grew, once the run was warm."""
    early, last = warm_thirds(samples)
    parts = [part for part in early[0].memory if all(part in one.memory for one in (*early, *last))]
    return [
        Growth(
            part,
            round(_median(one.memory[part].n_processes for one in last)),
            _pair(early, last, lambda one, part=part: one.memory[part].rss_bytes),  # type: ignore[misc]
            _pair(early, last, lambda one, part=part: one.memory[part].pss_bytes),  # type: ignore[misc]
            _pair(early, last, lambda one, part=part: one.memory[part].anonymous_bytes),  # type: ignore[misc]
            max(one.memory[part].pss_bytes for one in samples if part in one.memory) / MIB,
        )
        for part in parts
    ]


def warm_thirds(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples of the first and of the last third of the time after a quarter of the run, or `WARM_UP_S` if that is
    longer, but at most half of the run."""
    end = samples[-1].at_s
    start = max(end / 4, min(WARM_UP_S, end / 2))
    third = (end - start) / 3
    early = [one for one in samples if start <= one.at_s <= start + third]
    last = [one for one in samples if end - third <= one.at_s]
    return early or [samples[-1]], last


def _pair(
    early: Sequence[Sample], last: Sequence[Sample], size: Callable[[Sample], int]
) -> tuple[float, float]:
    return _median(map(size, early)) / MIB, _median(map(size, last)) / MIB


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
