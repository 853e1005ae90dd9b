"""Measures how well search finds inflected forms of Galician, through `archive.mentions` itself.

    python -m tests.search_recall [--misses FILE]

Each pair of tests/data/hunspell-gl is a segment that holds one form and a search for the other. Over-conflation: how
many *other* lemmas of the dictionary a search for a lemma also finds, out of those that look most like it.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, text

from compose.local.postgres import EmbeddedPostgres
from db.connect import make_engine, transaction
from migrations.run import migrate
from tests.db import released_worker

FOLDER = Path(__file__).parent / "data" / "hunspell-gl"
N_LOOKALIKE_LEMMAS = {"noun": 500, "verb": 500}
"""Lemmas drawn of each class; those that nothing in the dictionary looks like have no row."""


@dataclass
class Recall:
    """Of one class of pairs: how many were found, and (query, text) of those that were not."""

    n: int = 0
    n_found: int = 0
    missed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Found, as a fraction of all."""
        return self.n_found / self.n


@dataclass
class Conflation:
    """Of one class of lemmas: other lemmas that a search for them finds too."""

    n_lemmas: int
    found: list[tuple[str, str]] = field(default_factory=list)
    """(lemma, other) without a form in common."""
    sharing: list[tuple[str, str]] = field(default_factory=list)
    """(lemma, other) with one: no search by words can tell them apart."""


def read(name: str) -> list[dict[str, str]]:
    """The rows of a file of the sample."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def store_words(connection: Connection, words: Iterable[str]) -> dict[str, int]:
    """A transcribed segment for each word, indexed as workers' texts are; word -> segment id."""
    broadcaster_id = connection.scalar(text("INSERT INTO broadcasters (name) VALUES ('recall') RETURNING id"))
    released_worker.submit(connection, broadcaster_id, "recall.wav")
    worker_id = released_worker.register(connection)
    claim = released_worker.claim_recording(connection, worker_id)
    released_worker.store_split(connection, claim, worker_id)
    rows = connection.execute(
        text(
            """
            INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                                  priority, state, text)
            SELECT t.broadcaster_id, t.recording_id, t.id, 10 + w.place, 0, 1, 1, 'done', w.word
            FROM transcripts t, unnest(CAST(:words AS text[])) WITH ORDINALITY AS w (word, place)
            ORDER BY w.place RETURNING text, id
            """
        ),
        {"words": sorted(set(words))},
    )
    return {row.text: row.id for row in rows}


def find(connection: Connection, queries: Iterable[str]) -> dict[str, set[int]]:
    """What `archive.mentions` finds: query -> segment ids."""
    rows = connection.execute(
        text(
            "SELECT q.query, m.segment_id FROM unnest(CAST(:queries AS text[])) AS q (query), "
            "LATERAL archive.mentions(q.query) m"
        ),
        {"queries": sorted(set(queries))},
    )
    found: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        found[row.query].add(row.segment_id)
    return found


def measure(connection: Connection, *, every: int = 1) -> tuple[dict[str, Recall], dict[str, Conflation]]:
    """Recall by class of pairs and over-conflation by class of lemmas, in a migrated database without rows.

    Of `every` so many-th pair and lemma only, which takes less time.
    """
    pairs, lookalikes = read("pairs.tsv")[::every], read("lookalikes.tsv")
    chosen = set(sorted({row["lemma"] for row in lookalikes})[::every])
    lookalikes = [row for row in lookalikes if row["lemma"] in chosen]
    ids = store_words(connection, [row["text"] for row in pairs] + [row["other"] for row in lookalikes])
    connection.execute(text("ANALYZE search_segments"))
    found = find(connection, [row["query"] for row in pairs] + [row["lemma"] for row in lookalikes])
    recalls: dict[str, Recall] = defaultdict(Recall)
    for row in pairs:
        recall = recalls[row["class"]]
        recall.n += 1
        if ids[row["text"]] in found[row["query"]]:
            recall.n_found += 1
        else:
            recall.missed.append((row["query"], row["text"]))
    conflations = {name: Conflation(n // every) for name, n in N_LOOKALIKE_LEMMAS.items()}
    for row in lookalikes:
        if ids[row["other"]] in found[row["lemma"]]:
            conflation = conflations[row["class"]]
            kind = conflation.sharing if row["shares_a_form"] == "yes" else conflation.found
            kind.append((row["lemma"], row["other"]))
    return dict(recalls), conflations


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--misses", type=Path, metavar="FILE", help="write the missed pairs and conflations here"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fonoteca-recall-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "data", folder / "run", folder / "log", durable=False)
        server.start()
        try:
            engine = make_engine(
                server.url.replace("postgresql:", "postgresql+psycopg:", 1), application_name="search-recall"
            )
            migrate(engine)
            with transaction(engine) as tx:
                recalls, conflations = measure(tx.connection)
            engine.dispose()
        finally:
            server.stop()
    for kind, recall in recalls.items():
        print(f"{kind:8} {recall.n_found:5} of {recall.n} found: {recall.rate:.1%}")
    for kind, conflation in conflations.items():
        per_100 = 100 / conflation.n_lemmas
        print(
            f"{kind:8} {len(conflation.found) * per_100:5.1f} other lemmas found per 100 lemmas, and "
            f"{len(conflation.sharing) * per_100:.1f} that share a form with them"
        )
    if arguments.misses:
        rows = [("missed", kind, *pair) for kind, recall in recalls.items() for pair in recall.missed]
        rows += [("conflated", kind, *pair) for kind, one in conflations.items() for pair in one.found]
        rows += [("sharing", kind, *pair) for kind, one in conflations.items() for pair in one.sharing]
        arguments.misses.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
