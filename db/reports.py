"""What the nightly report reads, and where it is kept: every query of `evaluation.report`."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, text

STORAGE_FOLDER = "quality"
"""Folder of all reports in the object store."""


def storage_prefix(night: dt.date) -> str:
    """Where a night's pages lie in the object store."""
    return f"{STORAGE_FOLDER}/{night.isoformat()}"


class NightUnknown(Exception):
    """No night of this date was begun. Written for a person."""


@dataclass(frozen=True)
class NightRow:
    """One row of `quality_nights`."""

    night: dt.date
    state: str
    from_at: dt.datetime
    until_at: dt.datetime
    failure_reason: str | None


@dataclass(frozen=True)
class StoredReport:
    """One row of `quality_reports`."""

    night: dt.date
    document: dict[str, Any]
    storage_prefix: str
    created_at: dt.datetime


def read_night(connection: Connection, night: dt.date) -> NightRow:
    """One night.

    Raises:
        NightUnknown: it was never begun.
    """
    row = connection.execute(
        text(
            "SELECT night, state, from_at, until_at, failure_reason FROM quality_nights WHERE night = :night"
        ),
        {"night": night},
    ).one_or_none()
    if row is None:
        raise NightUnknown(f"there is no night of {night}: it was never begun")
    return NightRow(*row)


def read_nights(connection: Connection, until: dt.date, n_days: int) -> list[NightRow]:
    """The nights of the last `n_days` days up to `until`, in order."""
    rows = connection.execute(
        text(
            "SELECT night, state, from_at, until_at, failure_reason FROM quality_nights "
            "WHERE night <= :until AND night > :after ORDER BY night"
        ),
        {"until": until, "after": until - dt.timedelta(days=n_days)},
    )
    return [NightRow(*row) for row in rows]


def read_verdict_history(connection: Connection, until: dt.date, n_days: int) -> list[RowMapping]:
    """All verdicts of the last `n_days` days with the model they are about, night by night."""
    rows = connection.execute(
        text(
            "SELECT verdicts.night, question, subject, verdict, cause, sentence, verdicts.model_id, run_id, "
            "  baseline_id, reference_id, wer, wer_low, wer_high, baseline_wer, difference, difference_low, "
            "  difference_high, p_value, effect, nights, margin, n_utterances, n_words, chart, evidence, "
            "  models.name AS model_name, models.weights_sha256, models.is_demo "
            "FROM quality_verdicts AS verdicts LEFT JOIN models ON models.id = verdicts.model_id "
            "WHERE verdicts.night <= :until AND verdicts.night > :after "
            "ORDER BY verdicts.night, question, subject"
        ),
        {"until": until, "after": until - dt.timedelta(days=n_days)},
    )
    return list(rows.mappings())


def read_runs(connection: Connection, night: dt.date) -> list[RowMapping]:
    """The night's evaluation runs with their set and model, by name of the set."""
    rows = connection.execute(
        text(
            "SELECT runs.id AS run_id, runs.set_id, sets.name AS set_name, runs.night, runs.started_at, "
            "  runs.finished_at, runs.abandoned_reason, runs.prompt, runs.decode_settings, runs.device, "
            "  runs.code_version, runs.model_id, models.name AS model_name, models.weights_sha256, models.is_demo "
            "FROM evaluation_runs AS runs JOIN held_out_sets AS sets ON sets.id = runs.set_id "
            "LEFT JOIN models ON models.id = runs.model_id WHERE runs.night = :night ORDER BY sets.name"
        ),
        {"night": night},
    )
    return list(rows.mappings())


def read_run_before(connection: Connection, set_id: int, night: dt.date) -> RowMapping | None:
    """The newest finished and scored nightly run of a set before `night`."""
    row = connection.execute(
        text(
            "SELECT runs.id AS run_id, runs.night FROM evaluation_runs AS runs "
            "WHERE runs.set_id = :set_id AND runs.night < :night AND runs.finished_at IS NOT NULL "
            "  AND EXISTS (SELECT FROM evaluation_scores WHERE run_id = runs.id) "
            "ORDER BY runs.night DESC LIMIT 1"
        ),
        {"set_id": set_id, "night": night},
    )
    return row.mappings().one_or_none()


def read_baselines(connection: Connection, ids: Iterable[int]) -> dict[int, RowMapping]:
    """Baselines by id, with the run and the model behind them."""
    rows = connection.execute(
        text(
            "SELECT baselines.id, baselines.run_id, baselines.accepted_at, baselines.accepted_by, baselines.reason, "
            "  runs.night, models.name AS model_name, models.weights_sha256 "
            "FROM baselines JOIN evaluation_runs AS runs ON runs.id = baselines.run_id "
            "LEFT JOIN models ON models.id = runs.model_id WHERE baselines.id = ANY(:ids)"
        ),
        {"ids": list(ids)},
    )
    return {row["id"]: row for row in rows.mappings()}


def read_drift_references(connection: Connection, ids: Iterable[int]) -> dict[int, RowMapping]:
    """Drift references by id."""
    rows = connection.execute(
        text(
            "SELECT id, from_at, until_at, accepted_at, accepted_by, reason FROM drift_references WHERE id = ANY(:ids)"
        ),
        {"ids": list(ids)},
    )
    return {row["id"]: row for row in rows.mappings()}


def read_scores(
    connection: Connection, run_ids: Iterable[uuid.UUID]
) -> dict[tuple[uuid.UUID, str], RowMapping]:
    """Stored scores by run and normaliser."""
    rows = connection.execute(
        text("SELECT * FROM evaluation_scores WHERE run_id = ANY(:ids)"), {"ids": list(run_ids)}
    )
    return {(row["run_id"], row["normalizer"]): row for row in rows.mappings()}


def read_alerts(connection: Connection, night: dt.date) -> list[RowMapping]:
    """Alerts as of a night: open ones, and those that were closed in it. The newest first."""
    rows = connection.execute(
        text(
            "SELECT kind, subject, opened_night, last_night, n_quiet_nights, closed_by, close_reason, "
            "  (closed_at IS NULL OR last_night > :night) AS is_open "
            "FROM alerts WHERE opened_night <= :night AND (closed_at IS NULL OR last_night >= :night) "
            "ORDER BY is_open DESC, opened_night DESC, kind, subject"
        ),
        {"night": night},
    )
    return list(rows.mappings())


def read_findings(connection: Connection, night: dt.date) -> list[RowMapping]:
    """Measures without references that stand out this night, the most certain first."""
    rows = connection.execute(
        text(
            "SELECT unit_kind, broadcasters.name AS broadcaster, unit, measure, value, centre, adjusted_p, "
            "  n_segments, n_recordings, n_nights "
            "FROM quality_measures AS measures "
            "LEFT JOIN broadcasters ON broadcasters.id = measures.broadcaster_id "
            "WHERE night = :night AND adjusted_p IS NOT NULL ORDER BY adjusted_p, unit_kind, unit, measure"
        ),
        {"night": night},
    )
    return list(rows.mappings())


def count_compared_measures(connection: Connection, night: dt.date) -> tuple[int, int]:
    """Of a night's measures without references: how many were compared with a history, and how many there are."""
    row = connection.execute(
        text("SELECT count(p_value), count(*) FROM quality_measures WHERE night = :night"), {"night": night}
    ).one()
    return int(row[0]), int(row[1])


def save_report(connection: Connection, night: dt.date, document: dict[str, Any]) -> None:
    """Keep a night's document; a second one replaces the first."""
    connection.execute(
        text(
            "INSERT INTO quality_reports (night, document, storage_prefix) "
            "VALUES (:night, CAST(:document AS jsonb), :prefix) "
            "ON CONFLICT (night) DO UPDATE SET document = excluded.document, "
            "  storage_prefix = excluded.storage_prefix, created_at = now()"
        ),
        {
            "night": night,
            "document": json.dumps(document, ensure_ascii=False, allow_nan=False),
            "prefix": storage_prefix(night),
        },
    )


def read_report(connection: Connection, night: dt.date | None = None) -> StoredReport | None:
    """One night's report, or the newest one."""
    row = connection.execute(
        text(
            "SELECT night, document, storage_prefix, created_at FROM quality_reports "
            "WHERE CAST(:night AS date) IS NULL OR night = :night ORDER BY night DESC LIMIT 1"
        ),
        {"night": night},
    ).one_or_none()
    return StoredReport(*row) if row is not None else None


def read_report_nights(connection: Connection, around: dt.date, limit: int = 3) -> list[dt.date]:
    """Nights with a report, the nearest to `around` first."""
    rows = connection.execute(
        text(
            "SELECT night FROM quality_reports ORDER BY abs(night - CAST(:around AS date)), night LIMIT :limit"
        ),
        {"around": around, "limit": limit},
    )
    return [row[0] for row in rows]
