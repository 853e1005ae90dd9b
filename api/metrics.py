"""What Prometheus reads: requests, bytes taken in, how much work waits, and what the newest night said of quality."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.metrics_queue import QueueCollector
from db.nights import Schedule, ZoneUnknown, first_worker_at
from db.settings import Settings
from db.verdicts import QualityFigures, quality_figures

router = APIRouter()


VERDICTS = ("ok", "watch", "regressed", "improved")
OVERDUE_GRACE = dt.timedelta(hours=1)
"""Past its deadline a night is settled within minutes; after so long, nobody does."""


class QualityCollector(Collector):
    """What the newest settled night said, and whether nights are settled at all."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Gauges of quality; none while the database does not answer."""
        try:
            with self._engine.connect() as connection:
                figures = quality_figures(connection)
                overdue = self._is_overdue(connection, figures)
        except SQLAlchemyError:
            return []
        return [*_rates(figures), *_state(figures), *self._nights(figures, overdue)]

    def _is_overdue(self, connection: Connection, figures: QualityFigures) -> bool | None:
        """Whether a night should be settled by now and is not; None where the schedule cannot be read."""
        settings = self._settings
        patience = dt.timedelta(hours=settings.night_deadline_h) + OVERDUE_GRACE
        try:
            schedule = Schedule.of(settings.night_time, settings.night_zone)
        except ZoneUnknown:
            return None
        night = schedule.newest_due(dt.datetime.now(dt.UTC) - patience)
        if figures.night is not None:
            # by its date: the window of a night that was begun by hand ends before it would have been due
            return figures.night < night
        installed_at = first_worker_at(connection)
        return installed_at is not None and installed_at <= schedule.due_at(night)

    def _nights(self, figures: QualityFigures, is_overdue: bool | None) -> Iterable[Metric]:
        last = GaugeMetricFamily(
            "fonoteca_quality_last_night_timestamp_seconds", "When the newest night was settled (Unix time)."
        )
        if figures.settled_at is not None:
            last.add_metric([], figures.settled_at.timestamp())
        overdue = GaugeMetricFamily(
            "fonoteca_quality_nights_overdue", "1 while a night is past its deadline and not settled."
        )
        if is_overdue is not None:
            overdue.add_metric([], int(is_overdue))
        return [last, overdue]


def _rates(figures: QualityFigures) -> Iterable[Metric]:
    """Word error rates of the newest settled night; a set that was not measured in it has none."""
    described = {
        "wer": "Word error rate of the newest night, as a fraction.",
        "wer_low": "Lower end of its 95 % interval.",
        "wer_high": "Upper end of its 95 % interval.",
        "baseline_wer": "What the baseline made of the same utterances.",
    }
    for name, text in described.items():
        family = GaugeMetricFamily(f"fonoteca_quality_{name}", text, labels=["set"])
        for row in figures.verdicts:
            value = getattr(row, name)
            if row.question == "regression" and value is not None:
                family.add_metric([row.subject], value)
        yield family


def _state(figures: QualityFigures) -> Iterable[Metric]:
    verdict = GaugeMetricFamily(
        "fonoteca_quality_verdict",
        "1 for the verdict of the newest night, 0 for the others.",
        labels=["question", "subject", "verdict"],
    )
    for row in figures.verdicts:
        for name in VERDICTS:
            verdict.add_metric([row.question, row.subject, name], int(row.verdict == name))
    alerts = GaugeMetricFamily("fonoteca_alerts_open", "1 for each open alert.", labels=["kind", "subject"])
    for kind, subject in figures.alerts:
        alerts.add_metric([kind, subject], 1)
    messages = GaugeMetricFamily(
        "fonoteca_messages_waiting", "Messages that are not delivered yet.", labels=["channel"]
    )
    for channel in ("email", "webhook"):
        messages.add_metric([channel], figures.messages.get(channel, 0))
    return [verdict, alerts, messages]


class Metrics:
    """The metrics of one application."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(QueueCollector(engine))
        self.registry.register(QualityCollector(engine, settings))
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
