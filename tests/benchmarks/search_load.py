"""Loads the archive of `search_corpus` into a database, in bulk, with two processes."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.benchmarks.search_corpus import (
    Archive,
    Vocabulary,
    groups,
    lay_out,
    make_vocabulary,
    model_of,
    old_chunks,
    rows,
    say,
)

SEGMENT_COLUMNS = (
    "id, broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample, state, priority, attempt, text, "
    "token_ids, token_logprobs, mean_logprob, finished_at"
)
SEARCH_COLUMNS = "segment_id, broadcaster_id, recording_id, said_on, doc, pairs"
INDEX = "CREATE INDEX ix_search_segments_doc_pairs ON search_segments USING gin (doc, pairs) WITH (fastupdate = off)"


@dataclass(frozen=True)
class Load:
    """What loading took."""

    n_segments: int
    rows_s: float
    index_s: float
    analyze_s: float


def fill(database_url: str, n_segments: int, seed: int, *, processes: int = 2) -> Load:
    """Fill a migrated, empty database; the index is built when all rows are there."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        vocabulary = make_vocabulary(connection, seed)
        archive = lay_out(n_segments, seed)
        programme_facets = _frame(connection, archive)
        connection.execute("DROP INDEX ix_search_segments_doc_pairs")
        began = time.monotonic()
        numbers = sorted(groups(archive))
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(
                target=_load,
                args=(database_url, archive, vocabulary, programme_facets, numbers[k::processes]),
            )
            for k in range(processes)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            if worker.exitcode != 0:
                raise RuntimeError("a loading process failed: its error is printed above")
        connection.execute(
            "INSERT INTO search_words (word) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING",
            [vocabulary.folded],
        )
        loaded = time.monotonic()
        connection.execute("SET maintenance_work_mem = '4GB'")
        connection.execute(INDEX)
        indexed = time.monotonic()
        connection.execute("VACUUM (ANALYZE) search_segments")
        connection.execute("VACUUM (ANALYZE) segments")
        connection.execute("ANALYZE recordings, transcripts, search_words, batches")
        return Load(n_segments, loaded - began, indexed - loaded, time.monotonic() - indexed)


def _frame(connection: psycopg.Connection[Any], archive: Archive) -> list[str]:
    """Broadcasters, models, batches, recordings and transcripts; the facet of each programme."""
    connection.execute("INSERT INTO broadcasters (name) VALUES ('um'), ('dous'), ('tres')")
    connection.execute(
        "INSERT INTO models (name, weights_sha256, is_demo, config) "
        "VALUES ('model-a', repeat('a', 64), false, '{}'), ('model-b', repeat('b', 64), false, '{}')"
    )
    connection.execute(
        "INSERT INTO batches (broadcaster_id, name, request_sha256) SELECT id, 'archive', '\\x00' FROM broadcasters"
    )
    batches = dict(connection.execute("SELECT broadcaster_id, id FROM batches").fetchall())
    programmes = [f"Programa {number}" for number in range(1, 1 + max(archive.programmes) + 1)]
    facets = [
        str(row[0])
        for row in connection.execute(
            "SELECT search_programme_facet(p) FROM unnest(%s::text[]) WITH ORDINALITY AS t (p, n) ORDER BY n",
            [programmes],
        )
    ]
    cursor = connection.cursor()
    with cursor.copy(
        "COPY recordings (id, broadcaster_id, batch_id, name, programme, broadcast_on, priority, state, size_bytes, "
        "duration_samples, received_at, finished_at) FROM STDIN"
    ) as copy:
        for n, recording_id in enumerate(archive.recording_ids):
            broadcaster = int(archive.broadcasters[n])
            copy.write_row(
                (recording_id, broadcaster, batches[broadcaster], f"{n}.wav", programmes[archive.programmes[n]],
                 archive.days[n], 1, "completed", 1_000_000, 57_600_000, archive.days[n], archive.days[n])
            )  # fmt: skip
    with cursor.copy(
        "COPY transcripts (id, broadcaster_id, recording_id, is_current, model_id, splitter_version, code_version, "
        "duration_samples, transcribed_samples, no_speech_samples, failed_samples, done_segments, failed_segments, "
        "finished_at) FROM STDIN"
    ) as copy:
        for n, transcript_id in enumerate(archive.transcript_ids):
            copy.write_row(
                (transcript_id, int(archive.broadcasters[n]), archive.recording_ids[n], True,
                 model_of(archive.days[n]), "1", "1", 57_600_000, 56_000_000, 1_600_000, 0, 200, 0,
                 archive.days[n])
            )  # fmt: skip
    return facets


def _load(
    database_url: str,
    archive: Archive,
    vocabulary: Vocabulary,
    programme_facets: list[str],
    numbers: list[int],
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        # rows are whole by construction: no trigger, no check of foreign keys
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
        cursor = connection.cursor()
        chunks = groups(archive)
        for number in numbers:
            said = say(archive, vocabulary, number, is_old=number < old_chunks(archive))
            for chunk in chunks[number]:
                made = list(rows(archive, said, programme_facets, chunk))
                with connection.transaction():
                    with cursor.copy(f"COPY segments ({SEGMENT_COLUMNS}) FROM STDIN") as copy:
                        copy.write("".join(segment for segment, _ in made))
                    with cursor.copy(f"COPY search_segments ({SEARCH_COLUMNS}) FROM STDIN") as copy:
                        copy.write("".join(search for _, search in made))


def check_documents(database_url: str, n: int = 500) -> int:
    """How many of `n` rows, spread over the archive, differ from what the database's own function makes."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            """
            WITH sample AS MATERIALIZED (
                SELECT i.* FROM search_segments i
                WHERE i.segment_id IN (SELECT (k * (SELECT max(segment_id) FROM search_segments) / %(n)s)::bigint + 1
                                       FROM generate_series(0, %(n)s - 1) k))
            SELECT count(*) FILTER (WHERE x.doc <> i.doc
                                       OR (SELECT array_agg(p ORDER BY p) FROM unnest(x.pairs) p)
                                          <> (SELECT array_agg(p ORDER BY p) FROM unnest(i.pairs) p))
            FROM sample i
            JOIN segments s ON s.id = i.segment_id
            CROSS JOIN LATERAL search_document(s.text, ARRAY(
                SELECT l FROM unnest(tsvector_to_array(i.doc)) l WHERE l LIKE '/%%')) x
            """,
            {"n": n},
        ).fetchone()
        assert row is not None
        return int(row[0])
