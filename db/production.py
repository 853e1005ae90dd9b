"""What production did: corrected segments, sums for measures without references, hours, waiting and speed.

For the nightly quality, so across broadcasters; what one broadcaster may see is in `db.corrections`. Windows hold
their beginning and not their end. A night's segments are found through the transcripts finished in it: segments have
no index on time, and need none.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.schema import SAMPLE_RATE_HZ
from db.states import RecordingState

DAY = dt.timedelta(days=1)


# --- the model -------------------------------------------------------------------------------------------


def model_in_service(
    connection: Connection, until_at: dt.datetime, *, from_at: dt.datetime | None = None
) -> int | None:
    """The model that transcripts come from now; None before there was any.

    The deployed one once it has finished a recording since; where it has not (workers are pinned to another by
    FONOTECA_MODEL, or nothing was ever deployed), the one that transcribed most audio of the window. Without
    `from_at` the window is the day before `until_at`. A window without production has the model of the last one that
    was finished before.
    """
    times = {"from_at": from_at or until_at - DAY, "until_at": until_at}
    model_id: int | None = connection.scalar(
        text(
            """
            SELECT d.model_id FROM (
                SELECT model_id, deployed_at FROM deployments WHERE deployed_at < :until_at ORDER BY id DESC LIMIT 1
            ) d
            WHERE EXISTS (
                SELECT FROM transcripts t WHERE t.model_id = d.model_id
                AND t.finished_at >= greatest(d.deployed_at, :from_at) AND t.finished_at < :until_at
            )
            """
        ),
        times,
    )
    if model_id is not None:
        return model_id
    model_id = connection.scalar(
        text(
            """
            SELECT model_id FROM transcripts
            WHERE finished_at >= :from_at AND finished_at < :until_at AND model_id IS NOT NULL
            GROUP BY model_id ORDER BY sum(transcribed_samples) DESC, model_id DESC LIMIT 1
            """
        ),
        times,
    )
    if model_id is None:
        model_id = connection.scalar(
            text(
                "SELECT model_id FROM transcripts WHERE finished_at < :until_at AND model_id IS NOT NULL "
                "ORDER BY finished_at DESC LIMIT 1"
            ),
            times,
        )
    return model_id


# --- corrected segments ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CorrectedSegment:
    """A transcribed segment beside what a person says is said in it."""

    segment_id: int
    recording_id: uuid.UUID
    recording: str
    broadcaster: str
    programme: str | None
    programme_kind: str | None
    is_drawn: bool
    transcribed: str
    corrected: str
    """The newest correction."""
    corrected_at: dt.datetime
    """When it was corrected first: what night it belongs to."""

    @property
    def group(self) -> str:
        """Kind of programme, or the programme itself where its kind is not known; empty without either."""
        return self.programme_kind or self.programme or ""


# A segment belongs to the time of its first correction, so that correcting it again does not count it twice; what it
# is compared with is the newest one. Earlier ones are looked for within the recording: there is an index on it.
_FIRST_CORRECTIONS = """
    FROM corrections c
    JOIN segments s ON s.id = c.segment_id
    JOIN transcripts t ON t.id = s.transcript_id
    WHERE c.created_at >= :from_at AND c.created_at < :until_at AND t.model_id = :model_id
      AND NOT EXISTS (SELECT FROM corrections e
                      WHERE e.recording_id = c.recording_id AND e.segment_id = c.segment_id AND e.id < c.id)
"""


def corrected_segments(
    connection: Connection, model_id: int, from_at: dt.datetime, until_at: dt.datetime
) -> list[CorrectedSegment]:
    """Segments of one model whose first correction was made in the window, in the order of correction."""
    rows = connection.execute(
        text(
            f"""
            SELECT f.segment_id, f.recording_id, r.name AS recording, b.name AS broadcaster, r.programme,
                   r.programme_kind, f.is_drawn, f.transcribed, n.text AS corrected, f.created_at
            FROM (SELECT c.id, c.segment_id, c.recording_id, c.broadcaster_id, c.is_drawn, c.created_at,
                         s.text AS transcribed {_FIRST_CORRECTIONS}) f
            JOIN corrections n ON n.segment_id = f.segment_id AND n.is_current
            JOIN recordings r ON r.id = f.recording_id
            JOIN broadcasters b ON b.id = f.broadcaster_id
            WHERE f.transcribed IS NOT NULL
            ORDER BY f.id
            """
        ),
        {"model_id": model_id, "from_at": from_at, "until_at": until_at},
    )
    return [CorrectedSegment(*row) for row in rows]


@dataclass(frozen=True)
class Corrected:
    """How many segments of a model were corrected before a time."""

    n_segments: int
    first_at: dt.datetime | None


BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def count_corrected(connection: Connection, model_id: int, until_at: dt.datetime) -> Corrected:
    """Corrected segments of one model before `until_at`, and after its last reference window was retired."""
    retired_at = connection.scalar(
        text("SELECT max(retired_at) FROM drift_references WHERE model_id = :model_id"),
        {"model_id": model_id},
    )
    row = connection.execute(
        text(f"SELECT count(*) AS n, min(c.created_at) AS first_at {_FIRST_CORRECTIONS}"),
        {"model_id": model_id, "from_at": retired_at or BEGINNING, "until_at": until_at},
    ).one()
    return Corrected(row.n, row.first_at)


# --- the reference window --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """The window of corrected segments that newer ones of the model are compared with."""

    id: int
    model_id: int
    from_at: dt.datetime
    until_at: dt.datetime
    accepted_at: dt.datetime
    accepted_by: str
    reason: str


def find_reference(connection: Connection, model_id: int) -> Reference | None:
    """The reference window in force for a model."""
    row = connection.execute(
        text(
            "SELECT id, model_id, from_at, until_at, accepted_at, accepted_by, reason FROM drift_references "
            "WHERE model_id = :model_id AND retired_at IS NULL"
        ),
        {"model_id": model_id},
    ).one_or_none()
    return Reference(*row) if row else None


def accept_reference(
    connection: Connection,
    *,
    model_id: int,
    from_at: dt.datetime,
    until_at: dt.datetime,
    accepted_by: str,
    reason: str,
) -> int:
    """Put a model's reference window in force, retiring the one before it for the same reason; the new one's id."""
    connection.execute(
        text(
            "UPDATE drift_references SET retired_at = now(), retired_reason = :reason "
            "WHERE model_id = :model_id AND retired_at IS NULL"
        ),
        {"model_id": model_id, "reason": f"replaced by {accepted_by}: {reason}"},
    )
    reference_id: int = connection.execute(
        text(
            "INSERT INTO drift_references (model_id, from_at, until_at, accepted_by, reason) "
            "VALUES (:model_id, :from_at, :until_at, :accepted_by, :reason) RETURNING id"
        ),
        {
            "model_id": model_id,
            "from_at": from_at,
            "until_at": until_at,
            "accepted_by": accepted_by,
            "reason": reason,
        },
    ).scalar_one()
    return reference_id


# --- measures without references -------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordingSums:
    """What one model's transcript of one recording adds up to; measures are ratios of these."""

    broadcaster_id: int
    broadcaster: str
    programme: str | None
    broadcast_on: dt.date | None
    duration_samples: int
    transcribed_samples: int
    n_segments: int
    """Transcribed ones."""
    segment_samples: int
    n_words: int
    """Spaces between words, and one: counted alike every night, which is all that a history needs."""
    n_tokens: int
    sum_logprob: float
    """Over all tokens."""
    n_loops: int
    n_empty: int
    """Segments in which speech was found and nothing was written."""


def finished_recordings(
    connection: Connection, model_id: int, from_at: dt.datetime, until_at: dt.datetime
) -> list[RecordingSums]:
    """Sums of each transcript that the model finished in the window, summed where the rows are."""
    rows = connection.execute(
        text(
            """
            SELECT t.broadcaster_id, b.name AS broadcaster, r.programme, r.broadcast_on, t.duration_samples,
                   t.transcribed_samples, s.n_segments, s.segment_samples, s.n_words, s.n_tokens, s.sum_logprob,
                   s.n_loops, s.n_empty
            FROM transcripts t
            JOIN recordings r ON r.id = t.recording_id
            JOIN broadcasters b ON b.id = t.broadcaster_id
            CROSS JOIN LATERAL (
                SELECT count(*)::int AS n_segments,
                       coalesce(sum(end_sample - start_sample), 0)::bigint AS segment_samples,
                       coalesce(sum(length(w.said) - length(replace(w.said, ' ', '')) + 1)
                                FILTER (WHERE w.said <> ''), 0)::bigint AS n_words,
                       coalesce(sum(cardinality(g.token_ids)) FILTER (WHERE g.mean_logprob IS NOT NULL), 0)::bigint
                           AS n_tokens,
                       coalesce(sum(g.mean_logprob::double precision * cardinality(g.token_ids)), 0) AS sum_logprob,
                       count(*) FILTER (WHERE 'loop' = ANY(g.flags))::int AS n_loops,
                       count(*) FILTER (WHERE w.said = '')::int AS n_empty
                FROM segments g CROSS JOIN LATERAL (SELECT btrim(g.text) AS said) w
                WHERE g.transcript_id = t.id AND g.state = 'done') s
            WHERE t.finished_at >= :from_at AND t.finished_at < :until_at AND t.model_id = :model_id
            ORDER BY t.id
            """
        ),
        {"model_id": model_id, "from_at": from_at, "until_at": until_at},
    )
    return [RecordingSums(*row) for row in rows]


@dataclass(frozen=True)
class StoredMeasure:
    """One measure of one unit in one night; its columns are those of `quality_measures`."""

    unit_kind: str
    broadcaster_id: int | None
    broadcaster: str | None
    unit: str
    measure: str
    value: float
    standard_error: float | None
    n_segments: int
    n_recordings: int
    centre: float | None = None
    p_value: float | None = None
    adjusted_p: float | None = None
    n_nights: int = 0

    @property
    def key(self) -> tuple[str, int | None, str, str]:
        return self.unit_kind, self.broadcaster_id, self.unit, self.measure


def measure_history(
    connection: Connection, *, model_id: int, before: dt.date, nights: int
) -> list[tuple[tuple[str, int | None, str, str], float, float | None]]:
    """(key, value, standard error) of each unit's newest `nights` measured nights before `before`."""
    rows = connection.execute(
        text(
            """
            SELECT unit_kind, broadcaster_id, unit, measure, value, standard_error
            FROM (SELECT *, row_number() OVER (PARTITION BY unit_kind, broadcaster_id, unit, measure
                                               ORDER BY night DESC) AS nights_ago
                  FROM quality_measures WHERE model_id = :model_id AND night < :before) q
            WHERE nights_ago <= :nights ORDER BY night
            """
        ),
        {"model_id": model_id, "before": before, "nights": nights},
    )
    return [((row[0], row[1], row[2], row[3]), row[4], row[5]) for row in rows]


def store_measures(
    connection: Connection, *, night: dt.date, model_id: int, measures: Sequence[StoredMeasure]
) -> None:
    """Store a night's measures in place of those that an interrupted attempt left."""
    connection.execute(
        text("DELETE FROM quality_measures WHERE night = :night AND model_id = :model_id"),
        {"night": night, "model_id": model_id},
    )
    if not measures:
        return
    connection.execute(
        text(
            """
            INSERT INTO quality_measures (night, model_id, unit_kind, broadcaster_id, unit, measure, value,
                standard_error, n_segments, n_recordings, centre, p_value, adjusted_p, n_nights)
            VALUES (:night, :model_id, :unit_kind, :broadcaster_id, :unit, :measure, :value, :standard_error,
                    :n_segments, :n_recordings, :centre, :p_value, :adjusted_p, :n_nights)
            """
        ),
        [
            {
                "night": night,
                "model_id": model_id,
                "unit_kind": each.unit_kind,
                "broadcaster_id": each.broadcaster_id,
                "unit": each.unit,
                "measure": each.measure,
                "value": each.value,
                "standard_error": each.standard_error,
                "n_segments": each.n_segments,
                "n_recordings": each.n_recordings,
                "centre": each.centre,
                "p_value": each.p_value,
                "adjusted_p": each.adjusted_p,
                "n_nights": each.n_nights,
            }
            for each in measures
        ],
    )


# --- hours, waiting, speed -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Production:
    """What was done in a window, and what waited at the time of asking. Hours of audio."""

    n_recordings: int
    """Finished in the window, by whatever model."""
    audio_h: float
    """Their duration: what coverage shares are of."""
    transcribed_h: float
    no_speech_h: float
    failed_h: float
    """Seconds of finished recordings that could not be decoded or transcribed."""
    n_failed_recordings: int
    """Failed in the window; those that could not be decoded have no known duration."""
    n_waiting: int
    """Recordings received that are not finished."""
    waiting_h: float
    """Of those the ones being transcribed; the others' duration is not known before they are split."""

    def share(self, hours: float) -> float | None:
        """`hours` as a share of the audio; None without any."""
        return hours / self.audio_h if self.audio_h else None


@dataclass(frozen=True)
class ProductionFigures:
    """The report's figures of production."""

    total: Production
    by_broadcaster: dict[str, Production]
    transcribed_audio_s: float
    """Audio of the segments transcribed in the window."""
    busy_s: float
    """Wall seconds in which GPU workers held segments, summed over workers and clipped to the window."""

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio transcribed per second of one worker's wall time; None where nothing was."""
        return self.transcribed_audio_s / self.busy_s if self.busy_s else None


LONGEST_ATTEMPT = dt.timedelta(hours=2)
"""No attempt that ended in a window began earlier than this before it (FONOTECA_CLAIM_LIMIT_S is an hour)."""

_PRODUCTION_SQL = """
    SELECT b.name, d.n, d.audio, d.transcribed, d.no_speech, d.failed, f.n_failed, w.n_waiting, w.waiting
    FROM broadcasters b
    LEFT JOIN (SELECT broadcaster_id, count(*) AS n, sum(duration_samples) AS audio,
                      sum(transcribed_samples) AS transcribed, sum(no_speech_samples) AS no_speech,
                      sum(failed_samples) AS failed
               FROM transcripts WHERE finished_at >= :from_at AND finished_at < :until_at
               GROUP BY broadcaster_id) d ON d.broadcaster_id = b.id
    CROSS JOIN LATERAL (SELECT count(*) AS n_failed FROM recordings r
                        WHERE r.broadcaster_id = b.id AND r.state = 'failed'
                          AND r.finished_at >= :from_at AND r.finished_at < :until_at) f
    CROSS JOIN LATERAL (SELECT count(*) AS n_waiting, sum(r.duration_samples) AS waiting FROM recordings r
                        WHERE r.broadcaster_id = b.id AND r.state = ANY(:waiting_states)) w
    ORDER BY b.name
"""

# Claims of one worker overlap: it reads the next ones while it decodes. So its busy time is the union of their spans.
_SPEED_SQL = """
    SELECT coalesce((SELECT sum(extract(epoch FROM upper(span) - lower(span)))
                     FROM unnest(h.held) AS span), 0)::double precision AS busy_s, h.audio_samples
    FROM (SELECT a.worker_id,
                 range_agg(tstzrange(greatest(a.started_at, :from_at), a.finished_at)) AS held,
                 coalesce(sum(s.end_sample - s.start_sample) FILTER (WHERE a.outcome = 'done'), 0) AS audio_samples
          FROM attempts a JOIN segments s ON s.id = a.segment_id
          WHERE a.started_at >= :earliest AND a.started_at < :until_at
            AND a.finished_at >= :from_at AND a.finished_at < :until_at
            AND a.outcome <> 'lost'
          GROUP BY a.worker_id) h
"""


def production_figures(
    connection: Connection, from_at: dt.datetime, until_at: dt.datetime
) -> ProductionFigures:
    """Hours done, waiting and failed, by broadcaster, and the speed of the GPU workers."""
    waiting = [RecordingState.RECEIVED, RecordingState.SPLITTING, RecordingState.TRANSCRIBING]
    rows = connection.execute(
        text(_PRODUCTION_SQL),
        {"from_at": from_at, "until_at": until_at, "waiting_states": [state.value for state in waiting]},
    ).all()
    speed = connection.execute(
        text(_SPEED_SQL),
        {"from_at": from_at, "until_at": until_at, "earliest": from_at - LONGEST_ATTEMPT},
    ).all()
    by_broadcaster = {row.name: _production([row]) for row in rows}
    return ProductionFigures(
        total=_production(rows),
        by_broadcaster={name: found for name, found in by_broadcaster.items() if _is_active(found)},
        transcribed_audio_s=sum(int(row.audio_samples) for row in speed) / SAMPLE_RATE_HZ,
        busy_s=sum(row.busy_s for row in speed),
    )


def _production(rows: Sequence[Any]) -> Production:
    def hours(name: str) -> float:
        return sum(int(getattr(row, name) or 0) for row in rows) / SAMPLE_RATE_HZ / 3600

    return Production(
        n_recordings=sum(row.n or 0 for row in rows),
        audio_h=hours("audio"),
        transcribed_h=hours("transcribed"),
        no_speech_h=hours("no_speech"),
        failed_h=hours("failed"),
        n_failed_recordings=sum(row.n_failed for row in rows),
        n_waiting=sum(row.n_waiting for row in rows),
        waiting_h=hours("waiting"),
    )


def _is_active(found: Production) -> bool:
    return bool(found.n_recordings or found.n_failed_recordings or found.n_waiting)
