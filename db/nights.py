"""Nights: when one is due, beginning it once, and reading it.

A night is named by the local date of the morning that it ends in, and measures what happened between the night before
and its own due time: `[from_at, until_at)`. The windows of all nights that are not `missed` follow each other without
overlap, so no production and no correction counts twice or is left out.

Beginning is one INSERT: whoever is second finds the row there. Everything else is done on rows that are there, under
`lock_nights`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, text

NIGHTS_LOCK = 0x464F4E49  # "FONI"
"""Advisory lock of whoever prepares, settles or changes what nights rest on (baselines, alerts)."""

MAX_CATCH_UP_DAYS = 14
"""A night takes in no more than this, however long nobody measured."""

FIRST_WINDOW = dt.timedelta(hours=24)
"""What the first night of all looks back on."""


class ZoneUnknown(Exception):
    """The setting names no time zone."""


class NightRefused(Exception):
    """A night cannot be begun as it was asked for."""


@dataclass(frozen=True)
class Schedule:
    """When nights are due: a time of day in a time zone."""

    time: dt.time
    zone: ZoneInfo

    @classmethod
    def of(cls, time: str, zone: str) -> Schedule:
        """From `HH:MM` and the zone's IANA name.

        Raises:
            ZoneUnknown: no such zone.
        """
        try:
            return cls(dt.time.fromisoformat(time), ZoneInfo(zone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ZoneUnknown(
                f"FONOTECA_NIGHT_ZONE: {zone!r} is no time zone of the IANA database (such as Europe/Madrid)"
            ) from error

    def due_at(self, night: dt.date) -> dt.datetime:
        """When `night` is due, in UTC.

        A local time that exists twice is due the first time; one that clocks jump over, when they jump.
        """
        local = dt.datetime.combine(night, self.time, self.zone)
        due = local.astimezone(dt.UTC)
        if due.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return due
        # In a gap, fold=0 reads the time with the offset before it, fold=1 with the one after: the jump lies between.
        early, late = local.replace(fold=1).astimezone(dt.UTC), due
        before = early.astimezone(self.zone).utcoffset()
        while late - early > dt.timedelta(seconds=1):
            middle = early + (late - early) // 2
            if middle.astimezone(self.zone).utcoffset() == before:
                early = middle
            else:
                late = middle
        return late.replace(microsecond=0)

    def newest_due(self, now: dt.datetime) -> dt.date:
        """The newest night that is due at `now`."""
        night = now.astimezone(self.zone).date() + dt.timedelta(days=1)
        while self.due_at(night) > now:
            night -= dt.timedelta(days=1)
        return night


@dataclass(frozen=True)
class QualityNight:
    """One row of `quality_nights`."""

    night: dt.date
    state: str
    from_at: dt.datetime
    until_at: dt.datetime
    begun_at: dt.datetime
    prepared_at: dt.datetime | None
    finished_at: dt.datetime | None
    failure_reason: str | None

    @property
    def failures(self) -> dict[str, str]:
        """What could not be measured or done, by part."""
        lines = (self.failure_reason or "").splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)


_COLUMNS = "night, state, from_at, until_at, begun_at, prepared_at, finished_at, failure_reason"


def lock_nights(connection: Connection) -> None:
    """Wait for, and hold until the end of the transaction, the right to change nights and what they rest on."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": NIGHTS_LOCK})


# --- beginning -------------------------------------------------------------------------------------------


def begin_if_due(
    connection: Connection, schedule: Schedule, *, now: dt.datetime, installed_at: dt.datetime | None = None
) -> QualityNight | None:
    """Begin the newest due night where nobody has; nights in between that nobody began are noted as missed.

    Args:
        installed_at: a first night that was due before this is not begun: there was nothing to measure.

    Returns:
        The night, if it was this call that began it.
    """
    night = schedule.newest_due(now)
    until_at = schedule.due_at(night)
    newest = _newest(connection)
    if newest is None:
        if installed_at is not None and until_at < installed_at:
            return None
        return _insert(connection, night, until_at - FIRST_WINDOW, until_at)
    # a window that ends before the last one did: the zone was changed, or a night was begun early by hand
    if newest.night >= night or until_at <= newest.until_at:
        return None
    from_at = _window_start(connection, until_at)
    if from_at >= until_at:
        return None  # somebody else began it since the newest one was read
    begun = _insert(connection, night, from_at, until_at)
    if begun is not None:
        _note_missed(connection, schedule, newest.night, night)
    return begun


def begin_now(
    connection: Connection, schedule: Schedule, *, now: dt.datetime, night: dt.date | None = None
) -> QualityNight:
    """Begin a night ahead of its time: its window ends now, and the next one's begins there.

    Args:
        night: its name. None: the newest due night where nobody has begun it, else the coming one.

    Raises:
        NightRefused: that night was begun before, or lies too far ahead.
    """
    due = schedule.newest_due(now)
    coming = due + dt.timedelta(days=1)
    newest = _newest(connection)
    if night is None:
        night = due if newest is None or newest.night < due else coming
    if night > coming:
        raise NightRefused(f"the night of {night} cannot begin yet: the newest that can is {coming}")
    if newest is not None and night <= newest.night:
        raise NightRefused(
            f"the night of {night} cannot begin: {newest.night} is {newest.state} already, and nights go in order"
        )
    if newest is not None and newest.until_at >= now:
        raise NightRefused(f"the night of {newest.night} ended just now: nothing has happened since")
    start = _window_start(connection, now) if newest is not None else now - FIRST_WINDOW
    begun = _insert(connection, night, start, now)
    if begun is None:
        raise NightRefused(f"the night of {night} was begun by somebody else at this moment")
    return begun


def _newest(connection: Connection) -> QualityNight | None:
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM quality_nights ORDER BY night DESC LIMIT 1")
    ).one_or_none()
    return QualityNight(*row) if row is not None else None


def _window_start(connection: Connection, until_at: dt.datetime) -> dt.datetime:
    """Where the last window ended that was, or is being, measured."""
    last: dt.datetime | None = connection.scalar(
        text("SELECT max(until_at) FROM quality_nights WHERE state <> 'missed'")
    )
    earliest = until_at - dt.timedelta(days=MAX_CATCH_UP_DAYS)
    return max(last, earliest) if last is not None else earliest


def _insert(
    connection: Connection, night: dt.date, from_at: dt.datetime, until_at: dt.datetime
) -> QualityNight | None:
    row = connection.execute(
        text(
            "INSERT INTO quality_nights (night, from_at, until_at) VALUES (:night, :from_at, :until_at) "
            f"ON CONFLICT (night) DO NOTHING RETURNING {_COLUMNS}"
        ),
        {"night": night, "from_at": from_at, "until_at": until_at},
    ).one_or_none()
    return QualityNight(*row) if row is not None else None


def _note_missed(connection: Connection, schedule: Schedule, after: dt.date, before: dt.date) -> None:
    missed = [after + dt.timedelta(days=n) for n in range(1, (before - after).days)]
    windows = [(schedule.due_at(night - dt.timedelta(days=1)), schedule.due_at(night)) for night in missed]
    rows = [
        {"night": night, "from_at": from_at, "until_at": until_at}
        for night, (from_at, until_at) in zip(missed, windows, strict=True)
        if from_at < until_at  # a date that clocks jumped over has none
    ]
    if rows:
        connection.execute(
            text(
                "INSERT INTO quality_nights (night, state, from_at, until_at, finished_at) "
                "VALUES (:night, 'missed', :from_at, :until_at, now()) ON CONFLICT (night) DO NOTHING"
            ),
            rows,
        )


def first_worker_at(connection: Connection) -> dt.datetime | None:
    """When the first worker of all started; None before that."""
    started: dt.datetime | None = connection.scalar(text("SELECT min(started_at) FROM workers"))
    return started


# --- going on --------------------------------------------------------------------------------------------


def read_night(
    connection: Connection, night: dt.date | None = None, *, lock: bool = False
) -> QualityNight | None:
    """One night, or the newest one; None where there is none.

    Args:
        lock: keep others from changing the row until the end of the transaction.
    """
    row = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM quality_nights WHERE CAST(:night AS date) IS NULL OR night = :night "
            f"ORDER BY night DESC LIMIT 1 {'FOR UPDATE' if lock else ''}"
        ),
        {"night": night},
    ).one_or_none()
    return QualityNight(*row) if row is not None else None


def list_nights(connection: Connection, limit: int) -> list[QualityNight]:
    """The newest nights, newest first."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM quality_nights ORDER BY night DESC LIMIT :limit"), {"limit": limit}
    )
    return [QualityNight(*row) for row in rows]


def open_nights(connection: Connection) -> list[QualityNight]:
    """Nights that are being measured, the oldest first."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM quality_nights WHERE state = 'measuring' ORDER BY night")
    )
    return [QualityNight(*row) for row in rows]


def is_ready(connection: Connection, night: QualityNight, *, now: dt.datetime, deadline_h: float) -> bool:
    """Whether a night can be settled: every run of it is finished or given up, or its deadline is over."""
    if now >= night.begun_at + dt.timedelta(hours=deadline_h):
        return True
    if night.prepared_at is None:
        return False
    waiting = connection.scalar(
        text(
            "SELECT EXISTS (SELECT FROM evaluation_runs WHERE night = :night "
            "AND finished_at IS NULL AND abandoned_reason IS NULL)"
        ),
        {"night": night.night},
    )
    return not waiting


def mark_prepared(connection: Connection, night: dt.date) -> None:
    """Note that the night's runs are made."""
    connection.execute(
        text("UPDATE quality_nights SET prepared_at = now() WHERE night = :night AND prepared_at IS NULL"),
        {"night": night},
    )


def mark_done(connection: Connection, night: dt.date) -> None:
    """Note that the night is scored and judged."""
    connection.execute(
        text(
            "UPDATE quality_nights SET state = 'done', finished_at = now() "
            "WHERE night = :night AND state = 'measuring'"
        ),
        {"night": night},
    )


def note_failure(connection: Connection, night: dt.date, part: str, reason: str | None) -> None:
    """Write down what kept `part` of a night from being done, in place of what was there; None takes it away."""
    row = read_night(connection, night, lock=True)
    if row is None:
        return
    part = part.replace(": ", ":")
    failures = {name: why for name, why in row.failures.items() if name != part}
    if reason is not None:
        failures[part] = " ".join(reason.split())
    connection.execute(
        text("UPDATE quality_nights SET failure_reason = :reason WHERE night = :night"),
        {"night": night, "reason": "\n".join(f"{name}: {why}" for name, why in failures.items()) or None},
    )


def nights_without_report(connection: Connection, since: dt.datetime) -> Sequence[dt.date]:
    """Nights settled since then that have no report yet, the oldest first."""
    return connection.scalars(
        text(
            "SELECT n.night FROM quality_nights n WHERE n.state = 'done' AND n.finished_at >= :since "
            "AND NOT EXISTS (SELECT FROM quality_reports r WHERE r.night = n.night) ORDER BY n.night"
        ),
        {"since": since},
    ).all()
