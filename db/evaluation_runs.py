"""Held-out sets, evaluation runs and their predictions.

A run is resumable work: what has a prediction is done, whoever made it; the rest is missing. Three things keep two
workers from disturbing each other: a run is held by a session advisory lock while somebody generates for it, it is
bound to what makes the text (model, prompt, settings, device, code), and a prediction that is there is never replaced.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, text

RUN_LOCK_CLASS = 0x464F4556  # "FOEV"
"""First key of the advisory locks on runs; the second is a hash of the run's id."""

TAKEOVER_AFTER_MIN = 8 * 60
"""A bound run without progress for so long may be begun anew by a worker that is not what it is bound to: the one that
is may have been replaced. It must be longer than FONOTECA_NIGHT_PATIENCE_H (6 h), for which normal work may rightly
hold a run up: else two unlike workers would delete each other's predictions in turn. It leaves time before the night's
deadline (18 h)."""


@dataclass(frozen=True)
class NewUtterance:
    """One clip of a held-out set, as it is registered. See `db.quality_schema.HeldOutUtterance`."""

    key: str
    audio: str
    audio_sha256: str
    duration_samples: int
    reference: str
    speaker: str | None = None
    programme: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class NewHeldOutSet:
    """A held-out set, as it is registered."""

    name: str
    content_sha256: str
    utterances: tuple[NewUtterance, ...]


@dataclass(frozen=True)
class Provenance:
    """What makes the text of a run."""

    model_id: int
    prompt: str
    decode_settings: dict[str, Any]
    device: str
    """Kind of device and type of the weights, e.g. `cuda bfloat16`."""
    code_version: str
    without_effect: tuple[str, ...] = ()
    """Decode settings that the text does not depend on: runs that differ in them alone are the same."""


@dataclass(frozen=True)
class Run:
    """One evaluation run, as it stands."""

    run_id: uuid.UUID
    set_id: int
    set_name: str
    content_sha256: str
    purpose: str
    night: dt.date | None
    model_id: int | None
    prompt: str | None
    decode_settings: dict[str, Any] | None
    device: str | None
    code_version: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    abandoned_reason: str | None
    n_utterances: int
    n_predicted: int
    n_failed: int
    """Of those predicted: without a text."""

    @property
    def is_open(self) -> bool:
        return self.finished_at is None and self.abandoned_reason is None


@dataclass(frozen=True)
class MissingUtterance:
    """An utterance that a run has no prediction for."""

    utterance_id: int
    key: str
    audio: str
    audio_sha256: str
    duration_samples: int


@dataclass(frozen=True)
class NewPrediction:
    """What became of one utterance: a text, or the reason why there is none."""

    utterance_id: int
    text: str | None
    token_ids: Sequence[int] = ()
    token_logprobs: Sequence[float] = ()
    mean_logprob: float | None = None
    flags: Sequence[str] = ()
    failure_reason: str | None = None


@dataclass(frozen=True)
class PredictionRow:
    """One prediction beside its reference."""

    utterance_id: int
    key: str
    audio: str
    reference: str
    text: str | None
    speaker: str | None
    programme: str | None
    kind: str | None
    duration_samples: int
    mean_logprob: float | None
    flags: list[str]
    failure_reason: str | None


class Binding(StrEnum):
    """Whether a run is ours to generate."""

    OURS = "ours"
    OTHERS = "others"
    """Bound to something else that made progress lately."""
    CLOSED = "closed"
    """Finished or abandoned."""


# --- sets ------------------------------------------------------------------------------------------------


def register_set(connection: Connection, held_out: NewHeldOutSet) -> int:
    """The id of this set's row, made on first sight. Where its files moved, their new places are noted."""
    row = connection.execute(
        text(
            """
            INSERT INTO held_out_sets (name, content_sha256, n_utterances, duration_samples)
            VALUES (:name, :content, :n, :duration)
            ON CONFLICT (name, content_sha256) DO UPDATE SET name = excluded.name
            RETURNING id, xmax = 0 AS is_new
            """
        ),
        {
            "name": held_out.name,
            "content": held_out.content_sha256,
            "n": len(held_out.utterances),
            "duration": sum(utterance.duration_samples for utterance in held_out.utterances),
        },
    ).one()
    utterances = held_out.utterances
    if row.is_new:
        connection.execute(
            text(
                """
                INSERT INTO held_out_utterances (set_id, index, key, audio, audio_sha256, duration_samples,
                                                 reference, speaker, programme, kind)
                SELECT :set_id, u.ordinal - 1, u.key, u.audio, u.sha256, u.duration, u.reference, u.speaker,
                       u.programme, u.kind
                FROM unnest(CAST(:keys AS text[]), CAST(:audios AS text[]), CAST(:hashes AS text[]),
                            CAST(:durations AS bigint[]), CAST(:refs AS text[]), CAST(:speakers AS text[]),
                            CAST(:programmes AS text[]), CAST(:kinds AS text[]))
                     WITH ORDINALITY AS u(key, audio, sha256, duration, reference, speaker, programme, kind, ordinal)
                """
            ),
            {
                "set_id": row.id,
                "keys": [u.key for u in utterances],
                "audios": [u.audio for u in utterances],
                "hashes": [u.audio_sha256 for u in utterances],
                "durations": [u.duration_samples for u in utterances],
                "refs": [u.reference for u in utterances],
                "speakers": [u.speaker for u in utterances],
                "programmes": [u.programme for u in utterances],
                "kinds": [u.kind for u in utterances],
            },
        )
    else:
        connection.execute(
            text(
                """
                UPDATE held_out_utterances h SET audio = u.audio
                FROM unnest(CAST(:keys AS text[]), CAST(:audios AS text[])) AS u(key, audio)
                WHERE h.set_id = :set_id AND h.key = u.key AND h.audio <> u.audio
                """
            ),
            {
                "set_id": row.id,
                "keys": [u.key for u in utterances],
                "audios": [u.audio for u in utterances],
            },
        )
    set_id: int = row.id
    return set_id


# --- runs ------------------------------------------------------------------------------------------------


def create_nightly_run(connection: Connection, night: dt.date, set_id: int) -> uuid.UUID:
    """The run of one set in one night, made on first call. Its row in `quality_nights` must exist."""
    connection.execute(
        text(
            "INSERT INTO evaluation_runs (set_id, purpose, night) VALUES (:set_id, 'nightly', :night) "
            "ON CONFLICT (night, set_id) DO NOTHING"
        ),
        {"set_id": set_id, "night": night},
    )
    run_id: uuid.UUID = connection.execute(
        text("SELECT id FROM evaluation_runs WHERE night = :night AND set_id = :set_id"),
        {"set_id": set_id, "night": night},
    ).scalar_one()
    return run_id


_SAME_PROVENANCE_SQL = """
    model_id = :model_id AND prompt = :prompt AND device = :device AND code_version = :code_version
    AND decode_settings - CAST(:without_effect AS text[])
        = CAST(:decode_settings AS jsonb) - CAST(:without_effect AS text[])
"""


def _values(provenance: Provenance) -> dict[str, Any]:
    return {
        "model_id": provenance.model_id,
        "prompt": provenance.prompt,
        "decode_settings": json.dumps(provenance.decode_settings),
        "device": provenance.device,
        "code_version": provenance.code_version,
        "without_effect": list(provenance.without_effect),
    }


def open_manual_run(
    connection: Connection, set_id: int, provenance: Provenance, *, again: bool = False
) -> uuid.UUID:
    """The run to make, to go on with, or that is there already: the newest by hand of the same set and provenance.

    Args:
        again: make a new one where the newest is finished. One that is not is resumed all the same.
    """
    values = _values(provenance) | {"set_id": set_id, "again": again}
    # one opener at a time for a set: two at once would make two runs
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:class, :set_id)"), {"class": RUN_LOCK_CLASS, "set_id": set_id}
    )
    found: uuid.UUID | None = connection.scalar(
        text(
            f"""
            SELECT id FROM (
                SELECT id, finished_at FROM evaluation_runs
                WHERE set_id = :set_id AND purpose = 'manual' AND abandoned_reason IS NULL
                  AND {_SAME_PROVENANCE_SQL}
                ORDER BY id DESC LIMIT 1) newest
            WHERE finished_at IS NULL OR NOT :again
            """
        ),
        values,
    )
    if found is not None:
        return found
    made: uuid.UUID = connection.execute(
        text(
            """
            INSERT INTO evaluation_runs (set_id, purpose, model_id, prompt, decode_settings, device, code_version,
                                         started_at)
            VALUES (:set_id, 'manual', :model_id, :prompt, CAST(:decode_settings AS jsonb), :device, :code_version,
                    now())
            RETURNING id
            """
        ),
        values,
    ).scalar_one()
    return made


def bind_run(connection: Connection, run_id: uuid.UUID, provenance: Provenance) -> Binding:
    """Bind a run to what is about to make its text, unless it is bound already. Call while it is held.

    A run that something else began is left to it; without progress for TAKEOVER_AFTER_MIN it is begun anew.
    """
    values = _values(provenance) | {"run_id": run_id, "takeover": TAKEOVER_AFTER_MIN}
    row = connection.execute(
        text(
            f"""
            SELECT model_id, coalesce({_SAME_PROVENANCE_SQL}, false) AS is_same,
                   finished_at IS NULL AND abandoned_reason IS NULL AS is_open,
                   greatest(started_at, (SELECT max(p.created_at) FROM predictions p WHERE p.run_id = r.id))
                       < now() - make_interval(mins => :takeover) AS is_stuck
            FROM evaluation_runs r WHERE id = :run_id FOR NO KEY UPDATE OF r
            """
        ),
        values,
    ).one_or_none()
    if row is None or not row.is_open:
        return Binding.CLOSED
    if row.is_same:
        return Binding.OURS
    if row.model_id is not None:
        if not row.is_stuck:
            return Binding.OTHERS
        connection.execute(text("DELETE FROM predictions WHERE run_id = :run_id"), values)
    connection.execute(
        text(
            """
            UPDATE evaluation_runs
            SET model_id = :model_id, prompt = :prompt, decode_settings = CAST(:decode_settings AS jsonb),
                device = :device, code_version = :code_version, started_at = now()
            WHERE id = :run_id
            """
        ),
        values,
    )
    return Binding.OURS


@contextmanager
def hold_run(engine: Engine, run_id: uuid.UUID) -> Iterator[bool]:
    """Hold a run while generating for it; False where somebody else does. Freed with the process, however it ends."""
    connection = engine.connect()
    try:
        held = connection.execute(
            text("SELECT pg_try_advisory_lock(:class, hashtext(CAST(:run_id AS text)))"),
            {"class": RUN_LOCK_CLASS, "run_id": str(run_id)},
        ).scalar_one()
        connection.commit()
        yield bool(held)
    finally:
        # invalidate, not close: returned to the pool it would keep the lock
        connection.invalidate()
        connection.close()


def abandon_run(connection: Connection, run_id: uuid.UUID, reason: str) -> bool:
    """Give up a run that will not be finished; what was predicted stays. False where it is finished or given up."""
    changed = connection.execute(
        text(
            "UPDATE evaluation_runs SET abandoned_reason = :reason "
            "WHERE id = :run_id AND finished_at IS NULL AND abandoned_reason IS NULL"
        ),
        {"run_id": run_id, "reason": reason},
    )
    return changed.rowcount == 1


def finish_run(connection: Connection, run_id: uuid.UUID) -> bool:
    """Note that a run is complete. False while an utterance has no prediction, or where it is closed already."""
    changed = connection.execute(
        text(
            """
            UPDATE evaluation_runs r SET finished_at = now()
            WHERE id = :run_id AND finished_at IS NULL AND abandoned_reason IS NULL AND model_id IS NOT NULL
              AND NOT EXISTS (
                SELECT FROM held_out_utterances u WHERE u.set_id = r.set_id
                  AND NOT EXISTS (SELECT FROM predictions p WHERE p.run_id = r.id AND p.utterance_id = u.id))
            """
        ),
        {"run_id": run_id},
    )
    return changed.rowcount == 1


_RUN_SQL = """
    SELECT r.id AS run_id, r.set_id, s.name AS set_name, s.content_sha256, r.purpose, r.night, r.model_id, r.prompt,
           r.decode_settings, r.device, r.code_version, r.created_at, r.started_at, r.finished_at,
           r.abandoned_reason, s.n_utterances, p.n_predicted, p.n_failed
    FROM evaluation_runs r JOIN held_out_sets s ON s.id = r.set_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS n_predicted, count(*) FILTER (WHERE text IS NULL) AS n_failed
        FROM predictions WHERE run_id = r.id) p
"""


def read_run(connection: Connection, run_id: uuid.UUID) -> Run:
    """One run as it stands."""
    rows = connection.execute(text(f"{_RUN_SQL} WHERE r.id = :run_id"), {"run_id": run_id})
    return Run(**rows.mappings().one())


def find_runs(connection: Connection, night: dt.date) -> list[Run]:
    """The runs of one night, in order of their sets' names."""
    rows = connection.execute(
        text(f"{_RUN_SQL} WHERE r.night = :night ORDER BY s.name, r.id"), {"night": night}
    )
    return [Run(**row) for row in rows.mappings()]


@dataclass(frozen=True)
class OpenRun:
    """A nightly run that waits for predictions, and that nobody holds."""

    run_id: uuid.UUID
    set_name: str
    waited_s: float
    """Seconds since it was created."""


def find_open_runs(connection: Connection, model_id: int | None = None) -> list[OpenRun]:
    """The nightly runs that somebody should take: the newest night first, and in it the shortest set.

    Args:
        model_id: only those that this model may take: its own, those that nothing is bound to, and those that
            are stuck.
    """
    rows = connection.execute(
        text(
            """
            SELECT r.id, s.name, extract(epoch FROM now() - r.created_at)
            FROM evaluation_runs r JOIN held_out_sets s ON s.id = r.set_id
            WHERE r.finished_at IS NULL AND r.abandoned_reason IS NULL AND r.purpose = 'nightly'
              AND (CAST(:model_id AS integer) IS NULL OR r.model_id IS NULL OR r.model_id = :model_id
                   OR greatest(r.started_at, (SELECT max(p.created_at) FROM predictions p WHERE p.run_id = r.id))
                      < now() - make_interval(mins => :takeover))
              AND NOT EXISTS (
                SELECT FROM pg_locks l
                WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND l.classid = :lock_class
                  AND l.objid = CAST(hashtext(CAST(r.id AS text)) & 4294967295 AS oid))
            ORDER BY r.night DESC, s.duration_samples, r.id
            """
        ),
        {"model_id": model_id, "takeover": TAKEOVER_AFTER_MIN, "lock_class": RUN_LOCK_CLASS},
    )
    return [OpenRun(run_id, name, float(waited_s)) for run_id, name, waited_s in rows]


# --- predictions -----------------------------------------------------------------------------------------


def find_missing(
    connection: Connection, run_id: uuid.UUID, *, limit: int | None = None, first: int | None = None
) -> list[MissingUtterance]:
    """Utterances without a prediction, in the set's order.

    Args:
        limit: no more than so many.
        first: only among the set's first so many.
    """
    rows = connection.execute(
        text(
            """
            SELECT u.id, u.key, u.audio, u.audio_sha256, u.duration_samples
            FROM evaluation_runs r JOIN held_out_utterances u ON u.set_id = r.set_id
            WHERE r.id = :run_id AND u.index < coalesce(CAST(:first AS integer), u.index + 1)
              AND NOT EXISTS (SELECT FROM predictions p WHERE p.run_id = r.id AND p.utterance_id = u.id)
            ORDER BY u.index LIMIT :limit
            """
        ),
        {"run_id": run_id, "limit": limit, "first": first},
    )
    return [MissingUtterance(*row) for row in rows]


def store_predictions(
    connection: Connection, run_id: uuid.UUID, provenance: Provenance, predictions: Sequence[NewPrediction]
) -> int:
    """Store what was generated, once each: one that is there stays. Returns how many were new.

    Nothing is stored for a run that is closed, or bound to something else meanwhile.
    """
    is_ours = connection.scalar(
        text(
            f"SELECT 1 FROM evaluation_runs WHERE id = :run_id AND finished_at IS NULL "
            f"AND abandoned_reason IS NULL AND {_SAME_PROVENANCE_SQL} FOR SHARE"
        ),
        _values(provenance) | {"run_id": run_id},
    )
    if not is_ours:
        return 0
    payload = [
        {
            "utterance_id": found.utterance_id,
            "text": found.text,
            "token_ids": None if found.text is None else list(found.token_ids),
            "token_logprobs": None if found.text is None else list(found.token_logprobs),
            "mean_logprob": found.mean_logprob,
            "flags": list(found.flags),
            "failure_reason": found.failure_reason,
        }
        for found in predictions
    ]
    stored = connection.execute(
        text(
            """
            INSERT INTO predictions (run_id, utterance_id, text, token_ids, token_logprobs, mean_logprob, flags,
                                     failure_reason)
            SELECT :run_id, g.utterance_id, g.text, g.token_ids, g.token_logprobs, g.mean_logprob, g.flags,
                   g.failure_reason
            FROM jsonb_to_recordset(CAST(:payload AS jsonb)) AS g(
                utterance_id bigint, text text, token_ids int[], token_logprobs real[], mean_logprob real,
                flags text[], failure_reason text)
            ON CONFLICT (run_id, utterance_id) DO NOTHING
            """
        ),
        {"run_id": run_id, "payload": json.dumps(payload, allow_nan=False)},
    )
    return stored.rowcount


def read_predictions(
    connection: Connection, run_id: uuid.UUID, *, first: int | None = None
) -> list[PredictionRow]:
    """Everything predicted in a run beside its references, in the set's order; `first`: of the first so many."""
    rows = connection.execute(
        text(
            """
            SELECT u.id, u.key, u.audio, u.reference, p.text, u.speaker, u.programme, u.kind, u.duration_samples,
                   p.mean_logprob, p.flags, p.failure_reason
            FROM predictions p JOIN held_out_utterances u ON u.id = p.utterance_id
            WHERE p.run_id = :run_id AND u.index < coalesce(CAST(:first AS integer), u.index + 1)
            ORDER BY u.index
            """
        ),
        {"run_id": run_id, "first": first},
    )
    return [PredictionRow(*row) for row in rows]


def find_newest_run(connection: Connection, set_id: int, weights_sha256: str) -> Run | None:
    """The newest finished run of these weights on a set, whatever the model was called."""
    row = (
        connection.execute(
            text(
                # the run first: counting is done for that one alone
                f"{_RUN_SQL} WHERE r.id = (SELECT n.id FROM evaluation_runs n JOIN models m ON m.id = n.model_id "
                "WHERE n.set_id = :set_id AND m.weights_sha256 = :sha256 AND n.finished_at IS NOT NULL "
                "ORDER BY n.finished_at DESC, n.id DESC LIMIT 1)"
            ),
            {"set_id": set_id, "sha256": weights_sha256},
        )
        .mappings()
        .one_or_none()
    )
    return Run(**row) if row is not None else None
