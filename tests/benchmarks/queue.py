"""How fast is the queue when a million segments wait, and how soon does a broadcaster's first recording start?

    make bench-queue                                      # 1,000,000 segments that wait, 4 claimers, 20 s
    make bench-queue BENCH_ARGS="--segments 100000"

A PostgreSQL of its own, with the settings of the embedded stack and no special ones. Three broadcasters have a backlog
of recordings of 200 segments. Four processes claim 16 segments at a time (`--claim`) and store Galician texts of 40
words with their tokens, as GPU workers do; nobody indexes them for search meanwhile. Then a fourth broadcaster submits
one recording of 20 segments while the claimers go on. The table comes last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url, text

from compose.local.postgres import EmbeddedPostgres
from db import queue
from db.connect import make_engine, transaction
from db.liveness import WorkerSession
from db.states import Priority, WorkQueue
from db.turns import Flow, take_turns
from db.work import ModelBinding, SegmentClaim, SegmentResult
from migrations.run import migrate

SEGMENTS_OF_RECORDING = 200
SEGMENT_SAMPLES = 18 * 16_000
N_TEXTS = 2_000
"""Made ahead by each claimer."""
FIRST_RECORDING = 20
"""Segments of the recording that the newcomer submits."""


@dataclass(frozen=True)
class Rates:
    """Of one run."""

    n_waiting: int
    n_claimers: int
    stored_per_s: float
    claim_p50_ms: float
    claim_p95_ms: float
    store_p50_ms: float
    store_p95_ms: float
    first_after_claims: int
    """Claims, of all claimers together, between the newcomer's commit and the first one with a segment of its own."""
    first_after_s: float
    done_after_s: float
    """Until its whole recording was completed."""
    plan: str


def words(connection: Connection, seed: int) -> list[str]:
    """Galician forms to make texts of."""
    found = connection.scalars(text("SELECT form FROM search_lexicon ORDER BY md5(form || :seed) LIMIT 20000"),
                               {"seed": str(seed)}).all()  # fmt: skip
    return list(found)


def fill(connection: Connection, n_segments: int) -> ModelBinding:
    """A backlog of three broadcasters that waits, with turns as splits give them."""
    for name in ("um", "dous", "tres", "novo"):
        connection.execute(text("INSERT INTO broadcasters (name) VALUES (:name)"), {"name": name})
    model_id = connection.scalar(
        text(
            "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES ('m', repeat('a', 64), true, '{}') "
            "RETURNING id"
        )
    )
    ids = {row.name: row.id for row in connection.execute(text("SELECT name, id FROM broadcasters"))}
    n_recordings = max(3, n_segments // SEGMENTS_OF_RECORDING)
    for number, name in enumerate(("um", "dous", "tres")):
        submit(connection, ids[name], range(number, n_recordings, 3))
    assert model_id is not None
    return ModelBinding(model_id, "prompt", {"method": "greedy"})


def submit(
    connection: Connection, broadcaster_id: int, numbers: range, n_segments: int = SEGMENTS_OF_RECORDING
) -> None:
    """Recordings that are split, with their segments in the queue."""
    flow = Flow(WorkQueue.TRANSCRIBE, broadcaster_id, Priority.NORMAL.rank)
    turns = take_turns(connection, flow, [SEGMENT_SAMPLES] * (n_segments * len(numbers)))
    connection.execute(
        text(
            """
            WITH batch AS (
                INSERT INTO batches (broadcaster_id, name, request_sha256) VALUES (:owner, 'backlog', '\\x00')
                RETURNING id
            ), made AS (
                INSERT INTO recordings (broadcaster_id, batch_id, name, priority, state, size_bytes, duration_samples,
                                        working_copy_key, received_at)
                SELECT :owner, batch.id, n || '.wav', 1, 'transcribing', 1000, :duration, n || '.flac', now()
                FROM batch, unnest(CAST(:numbers AS int[])) n
                RETURNING id
            ), begun AS (
                INSERT INTO transcripts (broadcaster_id, recording_id, is_current, splitter_version, code_version,
                                         duration_samples, no_speech_gap_samples, failed_gap_samples)
                SELECT :owner, id, true, '1', '1', :duration, 0, 0 FROM made
                RETURNING id, recording_id
            )
            INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                                  priority, turn)
            SELECT :owner, b.recording_id, b.id, k, k * :length, (k + 1) * :length, 1,
                   (CAST(:turns AS bigint[]))[(b.number - 1) * :n + k + 1]
            FROM (SELECT begun.*, row_number() OVER () AS number FROM begun) b, generate_series(0, :n - 1) k
            """
        ),
        {
            "owner": broadcaster_id,
            "numbers": list(numbers),
            "duration": n_segments * SEGMENT_SAMPLES,
            "length": SEGMENT_SAMPLES,
            "n": n_segments,
            "turns": turns,
        },
    )


def claimer(
    url: str, binding: ModelBinding, number: int, per_claim: int, ready: Barrier, stop: Event, told: Any
) -> None:
    """Claims and stores until told to stop; sends when each claim began and ended, and whose it was."""
    engine = make_engine(url, application_name=f"claimer-{number}")
    rng = random.Random(number)
    with engine.connect() as connection:
        vocabulary = words(connection, number)
    # made ahead: texts come from a model, whose time is not the queue's
    texts = cycle([said(vocabulary, rng) for _ in range(N_TEXTS)])
    worker = WorkerSession(engine, role="gpu", code_version="bench", lease_s=60, claim_limit_s=60).start()
    made = []
    try:
        ready.wait()
        while not stop.is_set():
            began = time.perf_counter()
            with transaction(engine) as tx:
                claims = queue.claim_segments(tx.connection, worker.worker_id, binding, limit=per_claim)
            claimed = time.perf_counter()
            results = [result(claim, one) for claim, one in zip(claims, texts, strict=False)]
            made_up = time.perf_counter()
            with transaction(engine) as tx:
                stored = queue.store_results(
                    tx.connection, worker.worker_id, results, max_attempts=3, index_later=True
                )
            made.append((time.time(), claimed - began, time.perf_counter() - made_up, stored))
            if not claims:
                break
    finally:
        worker.stop()
        engine.dispose()
        told.send(made)


@dataclass(frozen=True)
class Said:
    """What a model could have heard: 40 words, 60 tokens."""

    text: str
    token_ids: list[int]
    logprobs: list[float]


def said(vocabulary: list[str], rng: random.Random) -> Said:
    return Said(
        " ".join(rng.choices(vocabulary, k=40)),
        [rng.randrange(200_000) for _ in range(60)],
        [round(-rng.random(), 4) for _ in range(60)],
    )


def result(claim: SegmentClaim, heard: Said) -> SegmentResult:
    return SegmentResult(
        claim.segment_id,
        claim.attempt,
        heard.text,
        heard.token_ids,
        heard.logprobs,
        statistics.fmean(heard.logprobs),
        [],
    )


@contextmanager
def database(folder: Path | None) -> Iterator[str]:
    """A PostgreSQL of the benchmark's own, migrated."""
    home = folder or Path(tempfile.mkdtemp(prefix="fonoteca-bench-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    postgres = EmbeddedPostgres(home / "data", home / "run", home / "postgres.log")
    postgres.start()
    try:
        url = make_url(postgres.url).set(drivername="postgresql+psycopg")
        address = url.render_as_string(hide_password=False)
        engine = make_engine(address, application_name="bench-queue")
        migrate(engine)
        engine.dispose()
        yield address
    finally:
        postgres.stop()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def run(url: str, arguments: argparse.Namespace) -> Rates:
    """Fill, claim, and let the newcomer come in."""
    engine = make_engine(url, application_name="bench-queue")
    with transaction(engine) as tx:
        binding = fill(tx.connection, arguments.segments)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) segments"))
        connection.execute(text("ANALYZE transcripts, recordings, batches"))
        plan = "\n".join(
            connection.scalars(
                text(
                    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "
                    + queue._PENDING_SQL.format(losses="< 2")
                ),
                {"model_id": binding.model_id, "limit": arguments.claim, "from_rank": 0},
            )
        )
        newcomer = connection.scalar(text("SELECT id FROM broadcasters WHERE name = 'novo'"))
    assert newcomer is not None
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Barrier(arguments.claimers + 1)
    pipes, processes = [], []
    for number in range(arguments.claimers):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=claimer, args=(url, binding, number, arguments.claim, ready, stop, theirs)
        )
        process.start()
        pipes.append(ours)
        processes.append(process)
    ready.wait()
    time.sleep(arguments.seconds)  # what is measured: how much is done in this time
    with transaction(engine) as tx:
        submit(tx.connection, newcomer, range(1_000_000, 1_000_001), FIRST_RECORDING)
    came_at = time.time()
    first, done = follow(engine, newcomer, came_at)
    stop.set()
    made = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    engine.dispose()
    claims = sorted(entry for entries in made for entry in entries)
    steady = [entry for entry in claims if came_at - 0.75 * arguments.seconds <= entry[0] <= came_at]
    return Rates(
        n_waiting=arguments.segments,
        n_claimers=arguments.claimers,
        stored_per_s=sum(entry[3] for entry in steady) / (0.75 * arguments.seconds),
        claim_p50_ms=percentile([entry[1] for entry in steady], 0.5),
        claim_p95_ms=percentile([entry[1] for entry in steady], 0.95),
        store_p50_ms=percentile([entry[2] for entry in steady], 0.5),
        store_p95_ms=percentile([entry[2] for entry in steady], 0.95),
        first_after_claims=sum(came_at < at <= came_at + first for at, *_ in claims),
        first_after_s=first,
        done_after_s=done,
        plan=plan,
    )


def follow(engine: Any, broadcaster_id: int, since: float) -> tuple[float, float]:
    """Seconds until the broadcaster's first segment was claimed, and until its recording was completed."""
    first_sql = text(
        "SELECT extract(epoch FROM min(started_at)) FROM attempts WHERE broadcaster_id = :id AND segment_id IS NOT NULL"
    )
    done_sql = text(
        "SELECT extract(epoch FROM finished_at) FROM recordings WHERE broadcaster_id = :id AND state = 'completed'"
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            done = connection.scalar(done_sql, {"id": broadcaster_id})
            if done is not None:
                first = connection.scalar(first_sql, {"id": broadcaster_id})
                return float(first) - since, float(done) - since
        time.sleep(0.02)
    raise SystemExit("the newcomer's recording was not completed within 120 s")


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--claimers", type=int, default=4)
    parser.add_argument("--claim", type=int, default=16, help="segments of one claim")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with database(arguments.folder) as url:
        found = run(url, arguments)
    print(found.plan)
    print(
        f"\n{found.n_waiting:,} segments wait, {found.n_claimers} claimers, {arguments.claim} segments a claim"
    )
    print(f"claimed and stored per second  {found.stored_per_s:>10,.0f}")
    print(f"a claim, p50 and p95           {found.claim_p50_ms:>10.1f} {found.claim_p95_ms:>8.1f} ms")
    print(f"a store, p50 and p95           {found.store_p50_ms:>10.1f} {found.store_p95_ms:>8.1f} ms")
    print(f"newcomer's first segment after {found.first_after_claims:>10} claims, {found.first_after_s:.3f} s; "
          f"its {FIRST_RECORDING} segments done after {found.done_after_s:.2f} s")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
