"""What Prometheus reads of the queue and the workers. `docs/queue.md` lists it.

All of it comes from the database, that of the workers too: they write what they count into their rows, so that no
worker needs a port of its own and one scrape shows them all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.recent import Recent
from db.queue_figures import (
    Depth,
    Done,
    LiveWorker,
    QueueFigures,
    RecentAttempts,
    done_by_broadcaster,
    queue_figures,
)
from db.states import AttemptOutcome, Priority, WorkQueue
from db.throughput import Throughput

KEEP_S = 10.0
KEEP_DONE_S = 60.0
"""What is done is read from every finished transcript's row."""

log = structlog.get_logger(__name__)


class QueueCollector(Collector):
    """Asks the database when Prometheus asks, at most once in KEEP_S."""

    def __init__(self, engine: Engine) -> None:
        self._figures = Recent(engine, queue_figures, keep_s=KEEP_S)
        self._done = Recent(engine, done_by_broadcaster, keep_s=KEEP_DONE_S)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The queue; of it only `fonoteca_database_up` 0 while the database does not answer in time."""
        up = GaugeMetricFamily(
            "fonoteca_database_up", "1 when the database answers, and within a few seconds."
        )
        try:
            figures = self._figures.get()
        except SQLAlchemyError as error:
            log.warning("queue_not_measured", error=str(error))
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *_of_queue(figures), *self._done_by_broadcaster()]

    def _done_by_broadcaster(self) -> Iterable[Metric]:
        try:
            return _done(self._done.get())
        except SQLAlchemyError as error:
            # the archive may be larger than the time that its sum is given: the queue is told all the same
            log.warning("done_not_measured", error=str(error))
            return []


def _of_queue(figures: QueueFigures) -> Iterable[Metric]:
    yield from _by_class(figures.depths)
    yield from _by_broadcaster(figures.depths)
    paused = GaugeMetricFamily(
        "fonoteca_queue_paused", "1 while nothing of a queue is begun.", labels=["queue"]
    )
    for queue in WorkQueue:
        paused.add_metric([queue], int(queue in figures.paused))
    yield paused
    yield from _throughput(figures.throughput)
    yield from _attempts(figures.attempts)
    yield from _workers(figures.workers)


def _by_class(depths: Iterable[Depth]) -> Iterable[Metric]:
    """Every class has a value, so that rates and alerts need not tell nothing from no answer."""
    waiting, held, age_s = (defaultdict[tuple[str, str], float](float) for _ in range(3))
    for depth in depths:
        key = depth.queue.value, depth.priority.value
        if depth.is_held:
            held[key] += depth.n_waiting
        else:
            waiting[key] += depth.n_waiting
            age_s[key] = max(age_s[key], depth.age_s)
    labels = ["queue", "class"]
    families = [
        (
            GaugeMetricFamily(
                "fonoteca_queue_waiting", "Recordings to split, segments to transcribe.", labels=labels
            ),
            waiting,
        ),
        (
            GaugeMetricFamily(
                "fonoteca_queue_held", "Of what is paused, besides those that wait.", labels=labels
            ),
            held,
        ),
        (
            GaugeMetricFamily(
                "fonoteca_queue_oldest_age_seconds",
                "Since the oldest that waits was received, or split. 0 where nothing waits.",
                labels=labels,
            ),
            age_s,
        ),
    ]
    for family, values in families:
        for queue in WorkQueue:
            for priority in Priority:
                family.add_metric([queue, priority], values[queue.value, priority.value])
        yield family


def _by_broadcaster(depths: Iterable[Depth]) -> Iterable[Metric]:
    audio_s, media_bytes = (defaultdict[tuple[str, str], float](float) for _ in range(2))
    for depth in depths:
        key = depth.broadcaster, "held" if depth.is_held else "waiting"
        if depth.queue is WorkQueue.TRANSCRIBE:
            audio_s[key] += depth.audio_s
        else:
            media_bytes[key] += depth.size_bytes
    for name, text, values in (
        ("fonoteca_audio_waiting_seconds", "Audio that is split and not transcribed.", audio_s),
        ("fonoteca_media_waiting_bytes", "Media that is not split: its duration is not known.", media_bytes),
    ):
        family = GaugeMetricFamily(name, text, labels=["broadcaster", "state"])
        for key, value in sorted(values.items()):
            family.add_metric(key, value)
        yield family


def _done(done: Iterable[Done]) -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "fonoteca_audio_done_seconds",
        "Audio of finished recordings, by what became of it.",
        labels=["broadcaster", "outcome"],
    )
    for row in done:
        family.add_metric([row.broadcaster, "transcribed"], row.transcribed_s)
        family.add_metric([row.broadcaster, "no_speech"], row.no_speech_s)
        family.add_metric([row.broadcaster, "failed"], row.failed_s)
    return [family]


def _throughput(throughput: Throughput) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "fonoteca_rtfx",
        "Seconds of audio transcribed per second of wall time, by all workers, in the last 10 minutes.",
        value=throughput.rtfx,
    )


def _attempts(attempts: Iterable[RecentAttempts]) -> Iterable[Metric]:
    ended, failed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in attempts:
        ended[row.queue.value, row.outcome.value] += row.n
        if row.outcome is AttemptOutcome.FAILED:
            failed[row.queue.value, row.error_code or "unknown"] += row.n
        elif row.outcome is AttemptOutcome.LOST:
            failed[row.queue.value, "worker_died"] += row.n
    outcomes = GaugeMetricFamily(
        "fonoteca_attempts_recent", "Attempts begun in the last 10 minutes.", labels=["queue", "outcome"]
    )
    for queue in WorkQueue:
        for outcome in AttemptOutcome:
            outcomes.add_metric([queue, outcome], ended[queue.value, outcome.value])
    yield outcomes
    failures = GaugeMetricFamily(
        "fonoteca_failures_recent",
        "Those of them that failed, or lost their worker.",
        labels=["queue", "error"],
    )
    for key, n in sorted(failed.items()):
        failures.add_metric(key, n)
    yield failures


def _workers(workers: Iterable[LiveWorker]) -> Iterable[Metric]:
    workers = list(workers)
    alive = GaugeMetricFamily("fonoteca_workers", "Workers whose lease is not over.", labels=["role"])
    roles = Counter(worker.role for worker in workers)
    for role in sorted({"gpu", "media"} | roles.keys()):
        alive.add_metric([role], roles[role])
    yield alive
    gpus = [worker for worker in workers if worker.role == "gpu"]
    counted = (
        ("claims", "Times that it asked the queue, also in vain.", [w.claims for w in gpus]),
        ("claim_seconds", "Seconds that this took.", [w.claim_s for w in gpus]),
        ("busy_seconds", "Seconds in which its engine had work.", [w.busy_s for w in gpus]),
        ("transcribed_audio_seconds", "Audio that it transcribed.", [w.transcribed_s for w in gpus]),
    )
    for name, text, values in counted:
        family = CounterMetricFamily(f"fonoteca_worker_{name}", text, labels=["worker", "host"])
        for worker, value in zip(gpus, values, strict=True):
            family.add_metric([str(worker.id), worker.host], value)
        yield family
