"""Whether the database and the object store hold together: for after a restore, and for whenever one asks.

Reads only. Nothing here mends anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.media_store import MediaMissing, MediaStore
from db.revision import SCHEMA_REVISION, database_revision

OBJECTS_AT_ONCE = 16
"""Objects that the store is asked for at the same time."""
PAGE = 1_000
"""Recordings read from the database at a time."""


@dataclass(frozen=True)
class Counts:
    """What there is, to be compared with what there was."""

    broadcasters: int
    batches: int
    recordings: int
    transcripts: int
    segments: int
    corrections: int
    transcribed_samples: int
    no_speech_samples: int
    failed_samples: int


def count_rows(connection: Connection) -> Counts:
    """Exact counts: reads each table once. Samples are those of current, finished transcripts."""
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM broadcasters) AS broadcasters, (SELECT count(*) FROM batches) AS batches,
                   (SELECT count(*) FROM recordings) AS recordings, (SELECT count(*) FROM transcripts) AS transcripts,
                   (SELECT count(*) FROM segments) AS segments, (SELECT count(*) FROM corrections) AS corrections,
                   coalesce(sum(transcribed_samples), 0)::bigint AS transcribed_samples,
                   coalesce(sum(no_speech_samples), 0)::bigint AS no_speech_samples,
                   coalesce(sum(failed_samples), 0)::bigint AS failed_samples
            FROM transcripts WHERE is_current AND finished_at IS NOT NULL
            """
        )
    ).one()
    return Counts(*row)


def check_rows(connection: Connection) -> list[str]:
    """What is wrong with the rows, a sentence each; nothing where they hold together."""
    found = []
    revision = database_revision(connection)
    if revision != SCHEMA_REVISION:
        found.append(f"the schema is at revision {revision}, and this code works with {SCHEMA_REVISION}")
    uncovered = connection.execute(
        text(
            """
            SELECT r.name, t.id, t.duration_samples, c.covered
            FROM transcripts t JOIN recordings r ON r.id = t.recording_id
            CROSS JOIN LATERAL (
                SELECT coalesce((SELECT sum(end_sample - start_sample) FROM segments WHERE transcript_id = t.id), 0)
                     + coalesce((SELECT sum(end_sample - start_sample) FROM gaps WHERE transcript_id = t.id), 0)
                       AS covered) c
            WHERE c.covered <> t.duration_samples ORDER BY t.id
            """
        )
    )
    found += [
        f"transcript {row.id} of {row.name} covers {row.covered} of {row.duration_samples} samples"
        for row in uncovered
    ]
    unfinished = connection.execute(
        text(
            """
            SELECT r.name, r.id, r.state FROM recordings r
            WHERE r.state IN ('completed', 'partial') AND NOT EXISTS (
                SELECT FROM transcripts t WHERE t.recording_id = r.id AND t.is_current AND t.finished_at IS NOT NULL)
            ORDER BY r.id
            """
        )
    )
    found += [
        f"recording {row.id} ({row.name}) is {row.state} without a finished transcript" for row in unfinished
    ]
    unsearchable = connection.scalar(
        text(
            """
            SELECT count(*) FROM segments s JOIN transcripts t ON t.id = s.transcript_id AND t.is_current
            WHERE s.state = 'done' AND s.text <> ''
              AND s.id >= coalesce((SELECT max(below_segment_id) FROM search_backfill), 0)
              AND NOT EXISTS (SELECT FROM search_segments i WHERE i.segment_id = s.id)
              AND NOT EXISTS (SELECT FROM search_pending p WHERE p.segment_id = s.id)
            """
        )
    )
    if unsearchable:
        found.append(f"{unsearchable} transcribed segments are not in the search index")
    stray = connection.execute(
        text(
            """
            SELECT count(*) FILTER (WHERE t.is_current IS NOT TRUE) AS n_not_current,
                   count(*) FILTER (WHERE t.is_current AND i.said_on IS DISTINCT FROM coalesce(
                       r.broadcast_on, (coalesce(r.received_at, r.created_at) AT TIME ZONE 'UTC')::date)) AS n_other_day
            FROM search_segments i
            LEFT JOIN segments s ON s.id = i.segment_id AND s.state = 'done' AND s.text <> ''
            LEFT JOIN transcripts t ON t.id = s.transcript_id
            LEFT JOIN recordings r ON r.id = s.recording_id
            """
        )
    ).one()
    if stray.n_not_current:
        found.append(
            f"{stray.n_not_current} rows of the search index are of no text in a current transcript: "
            "counts of matches may hold them"
        )
    if stray.n_other_day:
        found.append(
            f"{stray.n_other_day} rows of the search index have another day than their recording: "
            "filters by day miss them"
        )
    invalid = connection.scalars(
        text("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")
    )
    found += [
        f"index {name} is invalid: its build was interrupted; drop it and migrate again" for name in invalid
    ]
    return found


def check_media(
    connection: Connection, store: MediaStore, *, copies_expire_after_days: float | None = None
) -> Iterator[str]:
    """What the object store lacks or holds in another size, a sentence each, as it is found.

    A working copy that expired is not looked for, nor is one that is due to: a dump may be older than its removal, and
    the first sweep after a restore lets it expire again.
    """
    expire_after_s = None if copies_expire_after_days is None else copies_expire_after_days * 86_400
    with ThreadPoolExecutor(OBJECTS_AT_ONCE, thread_name_prefix="check") as threads:
        after = "00000000-0000-0000-0000-000000000000"
        while True:
            page = connection.execute(
                text(
                    "SELECT id, name, size_bytes, media_key, CASE WHEN finished_at < now() - "
                    "make_interval(secs => CAST(:expire_after_s AS double precision)) "
                    "THEN NULL ELSE working_copy_key END AS working_copy_key "
                    "FROM recordings WHERE id > :after ORDER BY id LIMIT :page"
                ),
                {"after": after, "page": PAGE, "expire_after_s": expire_after_s},
            ).all()
            if not page:
                return
            after = page[-1].id
            asked = [
                (row.name, key, size)
                for row in page
                for key, size in ((row.media_key, row.size_bytes), (row.working_copy_key, None))
                if key is not None
            ]
            for wrong in threads.map(lambda one: _check_object(store, *one), asked):
                if wrong is not None:
                    yield wrong


def _check_object(store: MediaStore, name: str, key: str, size_bytes: int | None) -> str | None:
    try:
        found = store.size_bytes(key)
    except MediaMissing:
        return f"{name}: {key} is not in the object store"
    if size_bytes is not None and found != size_bytes:
        return f"{name}: {key} has {found} bytes, and {size_bytes} were submitted"
    return None
