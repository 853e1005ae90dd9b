"""Baselines of fixed sets and reference windows of drift: accepting, retiring, listing.

One baseline is in force for a set's content. Sets of one name with other texts or audio are other sets: accepting a
baseline for the newest retires those of the older ones. Callers hold `db.nights.lock_nights`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

MAX_FAILED_SHARE = 0.01
"""A run without a text for more of its utterances is no measurement."""


class BaselineRefused(Exception):
    """A baseline cannot be accepted or retired as asked. Written for a person."""


@dataclass(frozen=True)
class BaselineRow:
    """A baseline and the run it stands on."""

    id: int
    set_id: int
    set_name: str
    run_id: uuid.UUID
    night: dt.date | None
    """Of the run; None for one by hand."""
    model_id: int
    model: str
    weights_sha256: str
    prompt: str | None
    decode_settings: dict[str, Any] | None
    device: str | None
    code_version: str | None
    wer: float | None
    """By the card's normaliser, over all words; None until the run is scored."""
    accepted_at: dt.datetime
    accepted_by: str
    reason: str
    retired_at: dt.datetime | None
    retired_reason: str | None


_SELECT = """
    SELECT b.id, b.set_id, s.name AS set_name, b.run_id, r.night, r.model_id, m.name AS model, m.weights_sha256,
           r.prompt, r.decode_settings, r.device, r.code_version,
           (SELECT wer FROM evaluation_scores e WHERE e.run_id = b.run_id AND e.normalizer = 'basic') AS wer,
           b.accepted_at, b.accepted_by, b.reason, b.retired_at, b.retired_reason
    FROM baselines b
    JOIN held_out_sets s ON s.id = b.set_id
    JOIN evaluation_runs r ON r.id = b.run_id
    JOIN models m ON m.id = r.model_id
"""


def find_baseline(
    connection: Connection, set_id: int, *, at: dt.datetime | None = None
) -> BaselineRow | None:
    """The baseline in force for a set, now or at a moment."""
    row = connection.execute(
        text(
            f"{_SELECT} WHERE b.set_id = :set_id AND "
            "CASE WHEN CAST(:at AS timestamptz) IS NULL THEN b.retired_at IS NULL "
            "ELSE b.accepted_at <= :at AND (b.retired_at IS NULL OR b.retired_at > :at) END"
        ),
        {"set_id": set_id, "at": at},
    ).one_or_none()
    return BaselineRow(*row) if row is not None else None


def find_predecessor(connection: Connection, set_name: str, set_id: int) -> BaselineRow | None:
    """The baseline in force for a set of this name with other texts or audio."""
    row = connection.execute(
        text(
            f"{_SELECT} WHERE s.name = :name AND b.set_id <> :set_id AND b.retired_at IS NULL "
            "ORDER BY b.id DESC LIMIT 1"
        ),
        {"name": set_name, "set_id": set_id},
    ).one_or_none()
    return BaselineRow(*row) if row is not None else None


def list_baselines(connection: Connection, *, with_retired: bool = False) -> list[BaselineRow]:
    """Baselines by name of the set, the newest first."""
    rows = connection.execute(
        text(
            f"{_SELECT} WHERE b.retired_at IS NULL OR :with_retired ORDER BY s.name, b.accepted_at DESC, b.id DESC"
        ),
        {"with_retired": with_retired},
    )
    return [BaselineRow(*row) for row in rows]


def accept_baseline(
    connection: Connection, *, set_id: int, run_id: uuid.UUID, accepted_by: str, reason: str
) -> int:
    """Put a run in force as the baseline of its set, retiring those of all sets of its name; the new one's id."""
    connection.execute(
        text(
            """
            UPDATE baselines SET retired_at = now(), retired_reason = :reason
            WHERE retired_at IS NULL AND set_id IN (
                SELECT same.id FROM held_out_sets same JOIN held_out_sets s ON s.name = same.name
                WHERE s.id = :set_id)
            """
        ),
        {"set_id": set_id, "reason": f"replaced: {reason}"},
    )
    baseline_id: int = connection.execute(
        text(
            "INSERT INTO baselines (set_id, run_id, accepted_by, reason) "
            "VALUES (:set_id, :run_id, :accepted_by, :reason) RETURNING id"
        ),
        {"set_id": set_id, "run_id": run_id, "accepted_by": accepted_by, "reason": reason},
    ).scalar_one()
    return baseline_id


def accept_by_name(
    connection: Connection, set_name: str, *, run_id: uuid.UUID | None, accepted_by: str, reason: str
) -> BaselineRow:
    """Accept a finished run of the set's present content as its baseline; without `run_id`, the newest nightly one.

    Raises:
        BaselineRefused: no such set, or the run is not finished, has no text for too much, or is of other content.
    """
    newest = connection.execute(
        text(
            """
            SELECT s.id FROM held_out_sets s
            LEFT JOIN LATERAL (SELECT max(created_at) AS at FROM evaluation_runs r WHERE r.set_id = s.id) runs ON true
            WHERE s.name = :name ORDER BY coalesce(runs.at, s.created_at) DESC, s.id DESC LIMIT 1
            """
        ),
        {"name": set_name},
    ).scalar_one_or_none()
    if newest is None:
        names = connection.scalars(text("SELECT DISTINCT name FROM held_out_sets ORDER BY name")).all()
        known = f"known are {', '.join(names)}" if names else "none was evaluated yet"
        raise BaselineRefused(f"there is no held-out set {set_name!r}: {known}")
    if run_id is None:
        run = connection.execute(
            text(
                "SELECT id, set_id, finished_at FROM evaluation_runs WHERE set_id = :set_id "
                "AND finished_at IS NOT NULL AND purpose = 'nightly' ORDER BY finished_at DESC LIMIT 1"
            ),
            {"set_id": newest},
        ).one_or_none()
        if run is None:
            raise BaselineRefused(f"the set {set_name} has no finished nightly run: name another with --run")
    else:
        run = connection.execute(
            text("SELECT id, set_id, finished_at FROM evaluation_runs WHERE id = :id"), {"id": run_id}
        ).one_or_none()
        if run is None or run.finished_at is None:
            raise BaselineRefused(f"there is no finished evaluation run {run_id}")
        if run.set_id != newest:
            raise BaselineRefused(
                f"the run {run_id} is not of the set {set_name} as it is now: its texts or audio are others"
            )
    n_texts, n_utterances = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM predictions WHERE run_id = :id AND text IS NOT NULL), n_utterances
            FROM held_out_sets WHERE id = :set_id
            """
        ),
        {"id": run.id, "set_id": newest},
    ).one()
    if n_texts < (1 - MAX_FAILED_SHARE) * n_utterances:
        raise BaselineRefused(
            f"the run {run.id} has a text for only {n_texts:,} of {n_utterances:,} utterances of {set_name}: "
            "nights would be paired with those alone"
        )
    accept_baseline(connection, set_id=newest, run_id=run.id, accepted_by=accepted_by, reason=reason)
    accepted = find_baseline(connection, newest)
    assert accepted is not None
    return accepted


def retire_baseline(connection: Connection, set_name: str, reason: str) -> int:
    """End the baselines of a set that is no longer measured; how many ended.

    Raises:
        BaselineRefused: none is in force.
    """
    ended = connection.execute(
        text(
            "UPDATE baselines SET retired_at = now(), retired_reason = :reason "
            "WHERE retired_at IS NULL AND set_id IN (SELECT id FROM held_out_sets WHERE name = :name)"
        ),
        {"name": set_name, "reason": reason},
    ).rowcount
    if not ended:
        raise BaselineRefused(
            f"no baseline of a set {set_name!r} is in force: `fonoteca baseline list` shows them"
        )
    return ended


def retire_drift_references(connection: Connection, reason: str) -> int:
    """End the reference windows of all models; how many ended."""
    return connection.execute(
        text(
            "UPDATE drift_references SET retired_at = now(), retired_reason = :reason WHERE retired_at IS NULL"
        ),
        {"reason": reason},
    ).rowcount


def had_drift_reference(connection: Connection) -> bool:
    """Whether drift was ever measured: from then on it is missed when it is not."""
    return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM drift_references)")))


def model_names(connection: Connection, model_ids: set[int]) -> dict[int, str]:
    """`name (first 12 of its weights' hash)` by id."""
    rows = connection.execute(
        text("SELECT id, name, weights_sha256 FROM models WHERE id = ANY(:ids)"), {"ids": list(model_ids)}
    )
    return {row.id: f"{row.name} ({row.weights_sha256[:12]})" for row in rows}
