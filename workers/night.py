"""One look at the nights: settle what is measured, begin what is due, prepare what was begun, report what is settled.

Called every minute, and harmless however often: each step is done on rows, in a transaction of its own, and a step that
was done is not done again. So a beat that runs twice, a task that is delivered twice and a worker killed anywhere cost
nothing but the work at hand.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

from db.connect import transaction
from db.media_store import MediaStore
from db.nights import (
    QualityNight,
    Schedule,
    begin_if_due,
    first_worker_at,
    is_ready,
    lock_nights,
    nights_without_report,
    note_failure,
    open_nights,
)
from db.settings import Settings
from evaluation.night import prepare, report, settle
from workers.queue import wake_evaluate

log = structlog.get_logger(__name__)

REPORT_PATIENCE = dt.timedelta(days=2)
"""How long a report that cannot be written is tried again."""
FIRST_RETRY = dt.timedelta(minutes=1)
LAST_RETRY = dt.timedelta(hours=1)


@dataclass
class Retries:
    """When what failed in this process is due again: a minute later, then two, then four, up to an hour."""

    _failures: dict[tuple[str, dt.date], tuple[int, dt.datetime]] = field(default_factory=dict)

    def is_due(self, step: str, night: dt.date, now: dt.datetime) -> bool:
        return (step, night) not in self._failures or now >= self._failures[step, night][1]

    def failed(self, step: str, night: dt.date, now: dt.datetime) -> None:
        n = self._failures.get((step, night), (0, now))[0]
        self._failures[step, night] = (n + 1, now + min(LAST_RETRY, FIRST_RETRY * (1 << min(n, 10))))

    def succeeded(self, step: str, night: dt.date) -> None:
        self._failures.pop((step, night), None)


def look_after_nights(
    engine: Engine,
    settings: Settings,
    store: MediaStore,
    *,
    now: dt.datetime | None = None,
    retries: Retries | None = None,
) -> None:
    """Bring every night as far as it can be brought now.

    What fails is logged, written to the night's row and tried again later; it keeps no other night from going on,
    except that nights are settled in order, since charts go on from one to the next.
    """
    moment = now or dt.datetime.now(dt.UTC)
    retries = retries or Retries()
    schedule = Schedule.of(settings.night_time, settings.night_zone)
    _settle_ready(engine, settings, moment, retries)
    with transaction(engine) as tx:
        lock_nights(tx.connection)
        installed_at = first_worker_at(tx.connection) or moment
        begun = begin_if_due(tx.connection, schedule, now=moment, installed_at=installed_at)
    if begun is not None:
        log.info(
            "night_begun", night=str(begun.night), from_at=str(begun.from_at), until_at=str(begun.until_at)
        )
    _prepare_open(engine, settings, moment, retries)
    _settle_ready(engine, settings, moment, retries)
    _report_settled(engine, settings, store, moment, retries)


def _open(engine: Engine) -> list[QualityNight]:
    with engine.connect() as connection:
        return open_nights(connection)


def _prepare_open(engine: Engine, settings: Settings, now: dt.datetime, retries: Retries) -> None:
    for night in _open(engine):
        if night.prepared_at is not None or not retries.is_due("preparing", night.night, now):
            continue
        try:
            n_runs = prepare(engine, night.night, settings)
        except Exception as error:
            _failed(engine, "preparing", night.night, error, now, retries)
            continue
        retries.succeeded("preparing", night.night)
        if n_runs:
            wake_evaluate()


def _settle_ready(engine: Engine, settings: Settings, now: dt.datetime, retries: Retries) -> None:
    for night in _open(engine):
        with engine.connect() as connection:
            if not is_ready(connection, night, now=now, deadline_h=settings.night_deadline_h):
                return  # a later one goes on from this one's charts
        if not retries.is_due("settling", night.night, now):
            return
        try:
            with transaction(engine) as tx:
                settle(tx.connection, night.night, settings)
        except Exception as error:
            _failed(engine, "settling", night.night, error, now, retries)
            return
        retries.succeeded("settling", night.night)


def _report_settled(
    engine: Engine, settings: Settings, store: MediaStore, now: dt.datetime, retries: Retries
) -> None:
    with engine.connect() as connection:
        # by the database's clock, which wrote when they were settled
        waiting = nights_without_report(connection, dt.datetime.now(dt.UTC) - REPORT_PATIENCE)
    for night in waiting:
        if not retries.is_due("report", night, now):
            continue
        try:
            with transaction(engine) as tx:
                report(tx.connection, store, night, settings)
        except Exception as error:
            _failed(engine, "report", night, error, now, retries)
            continue
        retries.succeeded("report", night)
        log.info("night_reported", night=str(night))


def _failed(
    engine: Engine, step: str, night: dt.date, error: Exception, now: dt.datetime, retries: Retries
) -> None:
    retries.failed(step, night, now)
    log.exception("night_step_failed", step=step, night=str(night))
    with transaction(engine) as tx:
        note_failure(tx.connection, night, step, f"{type(error).__name__}: {error}")
