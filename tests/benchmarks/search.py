"""How fast is search at size?

    make bench-search                                    # 2,000,000 segments (10,000 hours)
    make bench-search BENCH_ARGS="--segments 10000000"   # 10,000,000 segments (50,000 hours)

Fills a database of its own (`search_corpus`, `search_load`), then asks queries of every kind, in random order, over SQL
(`archive.search`, 20 rows) and over HTTP (`GET /v1/search`, a real server process). Every query is new text to the
server: nothing is prepared, and no query is asked twice in a row. Prints a table and, with --json, everything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import make_url

from compose.local.postgres import EmbeddedPostgres
from db.broadcasters import create_api_key
from db.connect import make_engine
from migrations.run import migrate
from tests.benchmarks.search_corpus import SEGMENT_S, make_vocabulary
from tests.benchmarks.search_load import Load, check_documents, fill

SERVER_SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
OWNER = "um"
"""The broadcaster that asks over HTTP: six of ten recordings are its own."""
RARELY_TOGETHER = ("de que non", "o de a", "e en que", "non a que", "os a o")
"""Phrases of words that most segments hold."""
BEGINNINGS = "de des dese desor desenc trans contra con pre abell xa lob".split()  # noqa: SIM905 - read as text
"""From the beginning of a tenth of all words to that of a dozen."""


@dataclass(frozen=True)
class Query:
    """A query of one kind."""

    kind: str
    text: str
    programme: str | None = None
    broadcaster: str | None = None
    from_on: str | None = None
    to_on: str | None = None


@dataclass(frozen=True)
class Timing:
    """What one kind of query took, in milliseconds."""

    kind: str
    way: str
    n: int
    fewest_matches: int
    most_matches: int
    p50_ms: float
    p95_ms: float
    worst_ms: float
    first_p95_ms: float
    """Of the first time that each query was asked, when its rows may still lie on disk."""


@contextmanager
def server(folder: Path | None) -> Iterator[str]:
    """A PostgreSQL of the benchmark's own; its folder is removed at the end unless one was named."""
    home = folder or Path(tempfile.mkdtemp(prefix="fonoteca-bench-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    postgres = EmbeddedPostgres(home / "data", home / "run", home / "postgres.log", durable=False)
    postgres.start()
    try:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            for name, value in SERVER_SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        postgres.stop()
        postgres.start()
        yield postgres.url
    finally:
        postgres.stop()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def queries(connection: psycopg.Connection[Any], seed: int) -> list[Query]:
    """Queries of every kind, chosen by how often the archive says their words."""
    vocabulary = make_vocabulary(connection, seed)
    total = _one(connection, "SELECT count(*) FROM search_segments")
    words = vocabulary.words[: len(vocabulary.words) - len(vocabulary.old)]

    def share(word: str) -> float:
        plan = connection.execute(
            "EXPLAIN (FORMAT JSON) SELECT FROM search_segments WHERE doc @@ %s::tsquery",
            [_match(connection, word)],
        ).fetchone()
        assert plan is not None
        return float(plan[0][0]["Plan"]["Plan Rows"]) / total

    by_share = [(share(word), word) for word in [*words[:60], *words[60:3000:40]]]
    common = [word for found, word in by_share if 0.016 <= found <= 0.14][:14]
    commonest = [word for found, word in sorted(by_share, reverse=True)][:6]
    medium = [word for found, word in by_share if 0.001 <= found < 0.016][:14]
    rare = words[60_000:180_000:9_000]
    days = [
        ("1991-03-01", "1991-03-31"),
        ("1999-01-01", "2001-12-31"),
        ("2020-01-01", None),
        (None, "1990-12-31"),
    ]
    phrases = [
        " ".join(words[rank] for rank in vocabulary.phrases[n]) for n in (0, 1, 2, 5, 9, 40, 300, 3000, 20000)
    ]
    return [
        *(Query("rare", word) for word in rare),
        *(Query("medium", word) for word in medium),
        *(Query("common", word) for word in common),
        *(Query("commonest", word) for word in commonest),
        *(Query("old only, frequent", word) for word in vocabulary.old[:10]),
        *(Query("old only, rare", word) for word in vocabulary.old[20:30]),
        *(Query("phrase", f'"{phrase}"') for phrase in phrases),
        *(Query("phrase of common words", f'"{p}"') for p in RARELY_TOGETHER),
        *(
            Query("beginning", f"{word[:n]}*")
            for word, n in zip([*medium, *rare], [3, 4, 5, 6] * 8, strict=False)
        ),
        *(Query("beginning, chosen", f"{beginning}*") for beginning in BEGINNINGS),
        *(Query("beginning and word", f"{a} {b}*") for a, b in zip(common, BEGINNINGS, strict=False)),
        *(
            Query("word without beginning", f"{a} -{b}*")
            for a, b in zip(medium, [b for b in BEGINNINGS if len(b) > 3] * 3, strict=False)
        ),
        *(
            Query("beginning, programme", f"{b}*", programme=f"Programa {4 * n % 40 + 1}")
            for n, b in enumerate(BEGINNINGS)
        ),
        *(
            Query("beginning, days", f"{b}*", from_on=days[n % 4][0], to_on=days[n % 4][1])
            for n, b in enumerate(BEGINNINGS)
        ),
        *(Query("two words", f"{a} {b}") for a, b in zip(common, medium, strict=False)),
        *(Query("two common words", f"{a} {b}") for a, b in zip(common, common[3:], strict=False)),
        *(Query("without", f"{a} -{b}") for a, b in zip(medium, commonest * 3, strict=False)),
        *(Query("programme", word, programme=f"Programa {4 * n % 40 + 1}") for n, word in enumerate(common)),
        *(Query("days", word, from_on=days[n % 4][0], to_on=days[n % 4][1]) for n, word in enumerate(common)),
        *(Query("broadcaster", word, broadcaster="tres") for word in common),
        *(
            Query("programme, days, broadcaster", word, f"Programa {n % 40 + 1}", "tres", *days[n % 4])
            for n, word in enumerate([*common, *medium])
        ),
    ]


def _match(connection: psycopg.Connection[Any], query: str) -> str:
    return str(_one(connection, "SELECT rank_by FROM search_parse(%s)", [query]))


def _one(connection: psycopg.Connection[Any], sql: str, parameters: list[Any] | None = None) -> Any:
    row = connection.execute(sql, parameters).fetchone()
    assert row is not None
    return row[0]


def estimate(connection: psycopg.Connection[Any], query: Query) -> int:
    """How many matches the server's statistics expect, filters left out. Counting them would take longer than all
    searches together."""
    plan = _one(
        connection,
        "EXPLAIN (FORMAT JSON) SELECT FROM search_segments WHERE doc @@ %s::tsquery",
        [_match(connection, query.text)],
    )
    return int(plan[0]["Plan"]["Plan Rows"])


def ask_sql(connection: psycopg.Connection[Any]) -> Callable[[Query], None]:
    """Asks as an analyst in psql does."""

    def ask(query: Query) -> None:
        connection.execute(
            'SELECT * FROM archive.search(%s, %s, %s, "from" => %s::date, "to" => %s::date)',
            [query.text, query.broadcaster, query.programme, query.from_on, query.to_on],
        ).fetchall()

    return ask


@contextmanager
def api(database_url: str, key: str) -> Iterator[Callable[[Query], None]]:
    """Asks a real server process, as a program does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "FONOTECA_DATABASE_URL": database_url,
            "FONOTECA_REDIS_URL": "redis://127.0.0.1:1",
            "FONOTECA_STORAGE_URL": f"file://{folder}",
            "FONOTECA_UPLOAD_DIR": folder,
            "FONOTECA_API_PORT": str(port),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "api.serve"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60
            ) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        client.get("/healthz")
                        break
                    except httpx.ConnectError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.1)

                def ask(query: Query) -> None:
                    asked = {
                        "q": query.text, "programme": query.programme, "from": query.from_on, "to": query.to_on
                    }  # fmt: skip
                    client.get(
                        "/v1/search", params={name: value for name, value in asked.items() if value}
                    ).raise_for_status()

                yield ask
        finally:
            process.terminate()
            process.wait(30)


def measure(
    ask: Callable[[Query], None],
    asked: list[Query],
    matches: dict[Query, int],
    way: str,
    repeats: int,
    seed: int,
) -> list[Timing]:
    """Times of every kind of query: a first round, then `repeats` rounds in random order."""
    rng = random.Random(seed)
    first: dict[str, list[float]] = defaultdict(list)
    later: dict[str, list[float]] = defaultdict(list)
    for number in range(repeats + 1):
        shuffled = list(asked)
        rng.shuffle(shuffled)
        for query in shuffled:
            began = time.perf_counter()
            ask(query)
            (later if number else first)[query.kind].append((time.perf_counter() - began) * 1000)
    kinds = list(dict.fromkeys(query.kind for query in asked))
    found = []
    for kind in kinds:
        hits = [matches[query] for query in asked if query.kind == kind]
        times = later[kind]
        found.append(
            Timing(
                kind, way, len(times), min(hits), max(hits), statistics.median(times), _p95(times), max(times),
                _p95(first[kind]),
            )
        )  # fmt: skip
    everything = [value for kind in kinds for value in later[kind]]
    found.append(
        Timing(
            "all", way, len(everything), 0, 0, statistics.median(everything), _p95(everything), max(everything),
            _p95([value for kind in kinds for value in first[kind]]),
        )
    )  # fmt: skip
    return found


def _p95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def sizes(connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Megabytes on disk per 1,000 hours of audio."""
    hours = _one(connection, "SELECT count(*) FROM segments") * SEGMENT_S / 3600
    parts = {
        "segments": "pg_table_size('segments')",
        "indexes of segments": "pg_indexes_size('segments')",
        "search_segments": "pg_table_size('search_segments')",
        "indexes of search_segments": "pg_indexes_size('search_segments')",
    }
    return {name: _one(connection, f"SELECT {size}") / 1e6 / hours * 1000 for name, size in parts.items()}


def show(load: Load | None, timings: list[Timing], megabytes: dict[str, float], n_segments: int) -> None:
    print(f"\n{n_segments:,} segments, {n_segments * SEGMENT_S / 3600:,.0f} hours")
    if load:
        print(
            f"loaded {load.n_segments / load.rows_s:,.0f} segments/s, then indexed "
            f"{load.n_segments / load.index_s:,.0f} segments/s and analysed in {load.analyze_s:.0f} s"
        )
    print("MB per 1,000 hours: " + ", ".join(f"{name} {size:.0f}" for name, size in megabytes.items())
          + f"; together {sum(megabytes.values()):.0f}")  # fmt: skip
    print(
        f"\n{'kind':<30} {'way':<5} {'matches, about':>23} {'p50 ms':>8} {'p95 ms':>8} {'worst':>8} {'first p95':>10}"
    )
    for t in timings:
        matches = f"{t.fewest_matches:,} - {t.most_matches:,}" if t.kind != "all" else ""
        print(f"{t.kind:<30} {t.way:<5} {matches:>23} {t.p50_ms:>8.1f} {t.p95_ms:>8.1f} {t.worst_ms:>8.1f} "
              f"{t.first_p95_ms:>10.1f}")  # fmt: skip


def run(database_url: str, arguments: argparse.Namespace) -> None:
    """Fill where it is empty, measure, print."""
    load = None
    with psycopg.connect(database_url, autocommit=True) as connection:
        is_empty = _one(connection, "SELECT to_regclass('search_segments')") is None
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = make_engine(url.render_as_string(hide_password=False), application_name="bench-search")
    if is_empty:
        migrate(engine)
        load = fill(database_url, arguments.segments, arguments.seed)
        different = check_documents(database_url)
        if different:
            raise SystemExit(
                f"{different} of 500 rows are not what the database's own function makes of their text"
            )
    with engine.begin() as connection:
        key = create_api_key(connection, OWNER)
    engine.dispose()
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        n_segments = _one(connection, "SELECT count(*) FROM search_segments")
        asked = queries(connection, arguments.seed)
        matches = {query: estimate(connection, query) for query in asked}
        timings = measure(ask_sql(connection), asked, matches, "SQL", arguments.repeats, arguments.seed)
        # over HTTP everybody sees its own recordings
        own = [query for query in asked if query.broadcaster in (None, OWNER)]
        with api(url.render_as_string(hide_password=False), key) as ask:
            timings += measure(ask, own, matches, "HTTP", arguments.repeats, arguments.seed)
        megabytes = sizes(connection)
    show(load, timings, megabytes, n_segments)
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {
                    "n_segments": n_segments,
                    "load": asdict(load) if load else None,
                    "megabytes_per_1000_hours": megabytes,
                    "timings": [asdict(timing) for timing in timings],
                },
                indent=1,
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where the database is made, and stays (1.9 GB per million segments)"
    )
    parser.add_argument("--database-url", help="an empty database to fill, or one that this benchmark filled")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.database_url:
        run(arguments.database_url, arguments)
    else:
        with server(arguments.folder) as url:
            run(url, arguments)


if __name__ == "__main__":
    main()
