"""What Prometheus reads: requests, bytes taken in, and how much work waits."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.queue import count_waiting

WAITING_CAP = 100_000
"""Queues are counted up to here: past it the number means "far too many" all the same."""

router = APIRouter()


class QueueCollector(Collector):
    """Counts what waits whenever Prometheus asks, so that the numbers are never stale."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """How much waits; only `fonoteca_database_up` 0 while the database does not answer."""
        up = GaugeMetricFamily("fonoteca_database_up", "1 when the database answers.")
        waiting = GaugeMetricFamily(
            "fonoteca_queue_waiting", f"Work that waits, counted up to {WAITING_CAP}.", labels=["state"]
        )
        try:
            with self._engine.connect() as connection:
                counted = count_waiting(connection, cap=WAITING_CAP)
        except SQLAlchemyError:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        waiting.add_metric(["recordings_received"], counted.recordings)
        waiting.add_metric(["segments_pending"], counted.segments)
        return [up, waiting]


class Metrics:
    """The metrics of one application."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(QueueCollector(engine))
        self.requests = Counter(
            "fonoteca_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.duration_s = Histogram(
            "fonoteca_http_request_duration_seconds",
            "Time from the first byte of a request to the end of its answer.",
            ["method", "route"],
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
            registry=self.registry,
        )
        self.body_bytes = Counter(
            "fonoteca_http_request_body_bytes", "Bytes of request bodies read.", registry=self.registry
        )


@router.get("/metrics", include_in_schema=False)
def get_metrics(request: Request) -> Response:
    """All metrics in Prometheus' text form."""
    metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
