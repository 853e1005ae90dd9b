"""Search finds inflected forms: measured on pairs drawn from a dictionary that search does not use."""

from __future__ import annotations

from sqlalchemy import Engine, text

from db.connect import transaction
from tests.search_recall import find, measure, read


def test_inflected_forms_are_found(engine: Engine) -> None:
    # `python -m tests.search_recall` measures all pairs
    with transaction(engine) as tx:
        recalls, conflations = measure(tx.connection, every=4)
        queries = sorted({row["query"] for row in read("pairs.tsv")[::20]})
        pages = tx.connection.execute(
            text(
                "SELECT q.query, s.segment_id FROM unnest(CAST(:queries AS text[])) AS q (query), "
                'LATERAL archive.search(q.query, "limit" => 100) s'
            ),
            {"queries": queries},
        )
        searched = {(row.query, row.segment_id) for row in pages}
        mentioned = find(tx.connection, queries)
    # measured on `archive.mentions`, and true of `archive.search`: both find the same, within one page here
    assert searched == {(query, found) for query, ids in mentioned.items() for found in ids}
    assert len(mentioned) > 0.9 * len(queries)
    assert max(map(len, mentioned.values())) < 100
    assert [(kind, recall.n) for kind, recall in recalls.items()] == [
        ("noun", 250),
        ("verb", 250),
        ("clitic", 125),
    ]
    assert recalls["noun"].rate >= 0.97, recalls["noun"].missed
    assert recalls["verb"].rate >= 0.95, recalls["verb"].missed
    assert recalls["clitic"].rate >= 0.9, recalls["clitic"].missed
    # a search that finds everything has perfect recall: no more is taken together than was when this was measured
    assert len(conflations["noun"].found) / conflations["noun"].n_lemmas < 0.6
    assert len(conflations["verb"].found) / conflations["verb"].n_lemmas < 0.4
