"""Which segments people are asked to correct: drawn at random, so that they stand for all that was transcribed.

A draw is stratified. Each next segment goes to the kind of programme (the programme, where its kind is not known) that
fewest were drawn for in the window, so that every stratum is seen before any is seen twice; what a stratum cannot give
goes to the others. Within a stratum recordings are drawn first, those that nothing was drawn from yet before the
others, then a segment within the recording: segments of one recording tell much the same. Only current transcripts of
the model in service that were finished within the window are drawn from; where they are used up, the newest of the
older ones.

Transcripts are put in random order, segments only within a chosen transcript: the cost goes with the recordings of the
window, never with all segments.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.corrections import SEGMENT_SQL, Segment, segment_of
from db.production import model_in_service

DRAW_LOCK_CLASS = 0x464F4452  # "FODR"
MAX_DRAWN = 500
"""Most segments of one draw."""
OLDER_TRANSCRIPTS = 5_000
"""So many of the newest transcripts from before the window are looked at, where the window is used up."""
UNKNOWN_STRATUM = "-"
"""Of recordings of which neither kind nor programme is known."""


@dataclass
class _Candidate:
    """A transcript to draw from."""

    transcript_id: uuid.UUID
    stratum: str
    n_drawn: int = 0
    """By this draw."""


def draw_segments(
    connection: Connection, broadcaster_id: int, n: int, *, window_days: int, now: dt.datetime | None = None
) -> list[int]:
    """Draw up to `n` segments that were neither drawn nor corrected; their ids, in the order of drawing.

    Fewer come where fewer are left; none before the model in service has finished anything.
    """
    now = now or connection.execute(text("SELECT now()")).scalar_one()
    model_id = model_in_service(connection, now)
    if model_id is None:
        return []
    # two draws at once take turns: each sees what the other drew
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:class, :id)"), {"class": DRAW_LOCK_CLASS, "id": broadcaster_id}
    )
    from_at = now - dt.timedelta(days=window_days)
    counts = _drawn_by_stratum(connection, broadcaster_id, from_at)
    scope = {"broadcaster_id": broadcaster_id, "model_id": model_id, "from_at": from_at, "n": max(n, 50)}
    drawn = _draw(connection, scope, counts, n, is_older=False)
    if len(drawn) < n:
        drawn += _draw(connection, scope, counts, n - len(drawn), is_older=True)
    return drawn


def _drawn_by_stratum(connection: Connection, broadcaster_id: int, from_at: dt.datetime) -> Counter[str]:
    rows = connection.execute(
        text(
            "SELECT stratum, count(*) AS n FROM correction_draws "
            "WHERE broadcaster_id = :broadcaster_id AND drawn_at >= :from_at GROUP BY stratum"
        ),
        {"broadcaster_id": broadcaster_id, "from_at": from_at},
    )
    return Counter({row.stratum: row.n for row in rows})


# What was drawn from or corrected in a transcript happened after it was finished, so it is found by time.
_CANDIDATES_SQL = """
    WITH eligible AS (
        SELECT t.id, coalesce(nullif(r.programme_kind, ''), nullif(r.programme, ''), :unknown) AS stratum
        FROM transcripts t JOIN recordings r ON r.id = t.recording_id
        WHERE t.broadcaster_id = :broadcaster_id AND t.is_current AND t.model_id = :model_id
          AND t.transcribed_samples > 0 AND r.working_copy_key IS NOT NULL AND {age}
    ), touched AS (
        SELECT s.transcript_id, count(*) AS n
        FROM (SELECT segment_id FROM correction_draws WHERE broadcaster_id = :broadcaster_id AND {drawn}
              UNION SELECT segment_id FROM corrections WHERE broadcaster_id = :broadcaster_id AND {corrected}) u
        JOIN segments s ON s.id = u.segment_id GROUP BY s.transcript_id
    )
    SELECT id, stratum
    FROM (SELECT e.id, e.stratum,
                 row_number() OVER (PARTITION BY e.stratum ORDER BY coalesce(u.n, 0), random()) AS place
          FROM eligible e LEFT JOIN touched u ON u.transcript_id = e.id
          WHERE u.n IS NULL OR EXISTS (SELECT FROM segments s WHERE s.transcript_id = e.id AND {free})) c
    WHERE place <= :n ORDER BY place
"""
_FREE = """s.state = 'done' AND NOT EXISTS (SELECT FROM correction_draws d WHERE d.segment_id = s.id)
           AND NOT EXISTS (SELECT FROM corrections c WHERE c.segment_id = s.id AND c.is_current)"""
_NEWER = {
    "age": "t.finished_at >= :from_at",
    "drawn": "drawn_at >= :from_at",
    "corrected": "created_at >= :from_at",
}
_OLDER = {
    "age": """t.id IN (SELECT id FROM transcripts WHERE finished_at < :from_at AND is_current
                         AND model_id = :model_id AND broadcaster_id = :broadcaster_id
                       ORDER BY finished_at DESC LIMIT :older)""",
    "drawn": "true",
    "corrected": "true",
}

_PICK_SQL = f"""
    INSERT INTO correction_draws (segment_id, broadcaster_id, stratum)
    SELECT p.id, :broadcaster_id, w.stratum
    FROM unnest(CAST(:transcripts AS uuid[]), CAST(:strata AS text[]), CAST(:wanted AS int[]))
         AS w(transcript_id, stratum, wanted)
    CROSS JOIN LATERAL (SELECT s.id FROM segments s WHERE s.transcript_id = w.transcript_id AND {_FREE}
                        ORDER BY random() LIMIT w.wanted) p
    RETURNING segment_id, (SELECT transcript_id FROM segments WHERE id = segment_id) AS transcript_id
"""


def _draw(
    connection: Connection, scope: dict[str, object], counts: Counter[str], n: int, *, is_older: bool
) -> list[int]:
    """Draw up to `n` from the transcripts of one age. `counts` is raised by what is drawn."""
    rows = connection.execute(
        text(_CANDIDATES_SQL.format(free=_FREE, **(_OLDER if is_older else _NEWER))),
        scope | {"unknown": UNKNOWN_STRATUM, "older": OLDER_TRANSCRIPTS},
    )
    queues: dict[str, deque[_Candidate]] = defaultdict(deque)
    for row in rows:
        queues[row.stratum].append(_Candidate(row.id, row.stratum))
    drawn: list[int] = []
    while len(drawn) < n and any(queues.values()):
        plan = _allocate(queues, counts, n - len(drawn))
        got = _pick(connection, scope, plan)
        drawn += [segment_id for found in got.values() for segment_id in found]
        for candidate, wanted in plan:
            found = len(got.get(candidate.transcript_id, []))
            counts[candidate.stratum] += found
            candidate.n_drawn += found
            if found == wanted:
                queues[candidate.stratum].append(candidate)  # there may be more in it
        for stratum, queue in queues.items():
            queues[stratum] = deque(sorted(queue, key=lambda candidate: candidate.n_drawn))
    return drawn


def _allocate(
    queues: dict[str, deque[_Candidate]], counts: Counter[str], n: int
) -> list[tuple[_Candidate, int]]:
    """Take candidates out of their queues, and say how many segments to draw from each."""
    planned = Counter({stratum: counts[stratum] for stratum, queue in queues.items() if queue})
    shares: Counter[str] = Counter()
    for _ in range(n):
        stratum = min(planned, key=planned.__getitem__)
        planned[stratum] += 1
        shares[stratum] += 1
    plan: list[tuple[_Candidate, int]] = []
    for stratum, share in shares.items():
        queue = queues[stratum]
        taken = [queue.popleft() for _ in range(min(share, len(queue)))]
        each, more = divmod(share, len(taken))
        plan += [(candidate, each + (place < more)) for place, candidate in enumerate(taken)]
    return plan


def _pick(
    connection: Connection, scope: dict[str, object], plan: list[tuple[_Candidate, int]]
) -> dict[uuid.UUID, list[int]]:
    rows = connection.execute(
        text(_PICK_SQL),
        {
            "broadcaster_id": scope["broadcaster_id"],
            "transcripts": [candidate.transcript_id for candidate, _ in plan],
            "strata": [candidate.stratum for candidate, _ in plan],
            "wanted": [wanted for _, wanted in plan],
        },
    )
    got: dict[uuid.UUID, list[int]] = defaultdict(list)
    for row in rows:
        got[row.transcript_id].append(row.segment_id)
    return got


def list_open_draws(
    connection: Connection, broadcaster_id: int, *, limit: int, after: int | None = None
) -> list[Segment]:
    """Drawn segments that nobody has corrected, in the order of drawing; those behind segment `after` where given.
    Without those that cannot be heard any more, since their working copy expired."""
    origin = """(SELECT * FROM correction_draws w
                 WHERE w.broadcaster_id = :broadcaster_id
                   AND (CAST(:after AS bigint) IS NULL OR (w.drawn_at, w.segment_id) > (
                        SELECT a.drawn_at, a.segment_id FROM correction_draws a
                        WHERE a.segment_id = :after AND a.broadcaster_id = :broadcaster_id))
                   AND NOT EXISTS (SELECT FROM corrections c WHERE c.segment_id = w.segment_id AND c.is_current)
                   AND EXISTS (SELECT FROM segments g JOIN transcripts h ON h.id = g.transcript_id
                               JOIN recordings r ON r.id = g.recording_id
                               WHERE g.id = w.segment_id AND h.is_current AND r.working_copy_key IS NOT NULL)
                 ORDER BY w.drawn_at, w.segment_id LIMIT :limit) d
                JOIN segments s ON s.id = d.segment_id"""
    rows = connection.execute(
        text(SEGMENT_SQL.format(origin=origin) + " ORDER BY d.drawn_at, d.segment_id"),
        {"broadcaster_id": broadcaster_id, "after": after, "limit": limit},
    )
    return [segment_of(row) for row in rows]


def find_segments(connection: Connection, broadcaster_id: int, segment_ids: list[int]) -> list[Segment]:
    """These segments, in the given order; without those of others."""
    origin = "segments s LEFT JOIN correction_draws d ON d.segment_id = s.id"
    rows = connection.execute(
        text(SEGMENT_SQL.format(origin=origin) + " AND s.id = ANY(:ids)"),
        {"broadcaster_id": broadcaster_id, "ids": segment_ids},
    )
    found = {row.id: segment_of(row) for row in rows}
    return [found[segment_id] for segment_id in segment_ids if segment_id in found]
