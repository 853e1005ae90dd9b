"""Search gives what a plain scan gives, whatever is asked and however the text is written."""

from __future__ import annotations

import datetime as dt
import random
import re
import unicodedata
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.connect import transaction
from db.search import BadQuery, Count, _bad_queries, search
from tests.conftest import Said
from tests.db import search_oracle as oracle
from tests.db.search_oracle import LEMMAS, NothingToFind, Passage

SEED = 20261122
SPAN_SAMPLES = 16_000
ODD_TEXTS = (
    "",
    "...",
    "Choveu <b>moito</b> & «a canción» dixo \"non\" 'sempre' \\ fin",
    "O barco 🚢 e as praias 🏖️ choveu",
    f"barco {'x' * 70} praia",
    f"{'ñ' * 64}{'á' * 6} xornal",
    "barco-praia/xornal_Ourense",
    "O'Grove, 25.1975 e 25,1975",
    "¿Choveu? ¡Choveu! (choveu) [choveu] {choveu}",
    "barco\tpraia\nxornal\r\nOurense",
    "drop table segments; -- select '%s' % :query $1 {0}",
    "Праздник барко ελληνικά 中文 barco",
    "BARCO Barcos bárco",
    "e " * 60 + "barco " + "non " * 60,
)
ATTACKS = (
    "'; DROP TABLE segments; --",
    "barco' | 'praia",
    "!(barco)",
    "barco & !praia",
    "barco:*",
    "barco:A <-> praia",
    "(((barco",
    "barco)))",
    "\\ barco \\",
    "%barco_ $1 %s {0} :query",
    "~barco",
    "/b1 barco",
    '"barco praia',
    '-"praia barco" xornal',
    '"" barco',
    "barco AND praia OR xornal",
    "--barco praia",
    "barco\u200bpraia",
    "🚢 barco",
    "''barco''",
    "x" * 70,
)


def make_passages(connection: Connection, rng: random.Random, n: int, *, gap: int = 0) -> list[Passage]:
    """Transcribed recordings of two broadcasters and two models, some of them superseded, some segments failed.

    Up to `gap` ids are left out before each recording's.
    """
    vocabulary = [form for forms in LEMMAS for form in forms]
    owners = {
        name: connection.scalar(
            text("INSERT INTO broadcasters (name) VALUES (:name) RETURNING id"), {"name": name}
        )
        for name in ("radio-mar", "radio-terra")
    }
    models = {
        name: connection.scalar(
            text(
                "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES (:name, 'x', false, '{}') "
                "RETURNING id"
            ),
            {"name": name},
        )
        for name in ("one", "two")
    }
    passages: list[Passage] = []
    odd = list(ODD_TEXTS)
    while len(passages) < n:
        owner = rng.choice(list(owners))
        programme = rng.choice([None, "Telexornal", "Día a día", "Música galega"])
        said_on = dt.date(1980, 1, 1) + dt.timedelta(days=rng.randrange(365 * 45))
        versions = rng.choice([1, 1, 1, 2])
        recording = add_recording(connection, owners[owner], programme, said_on)
        if gap:
            connection.execute(
                text(
                    "SELECT setval(s, nextval(s) + :more) "
                    "FROM CAST(pg_get_serial_sequence('segments', 'id') AS regclass) s"
                ),
                {"more": rng.randrange(gap)},
            )
        for version in range(versions):
            model = rng.choice(list(models))
            said: list[str | None] = []
            for _ in range(rng.randrange(1, 9)):
                if odd and rng.random() < 0.2:
                    said.append(odd.pop())
                elif rng.random() < 0.05:
                    said.append(None)
                else:
                    said.append(random_text(rng, vocabulary))
            is_current = version == versions - 1
            ids = add_transcript(connection, recording, models[model], said, is_current=is_current)
            passages += [
                Passage(id_, content, owner, programme, said_on, model, is_current)
                for id_, content in zip(ids, said, strict=True)
            ]
    assert not odd
    return passages


def random_text(rng: random.Random, vocabulary: list[str]) -> str:
    """A few words, written one way or another."""
    pieces = []
    for _ in range(rng.randrange(1, 12)):
        word = rng.choice(vocabulary)
        pieces.append(
            rng.choice([word, word, word.capitalize(), word.upper(), f"«{word}»", f"{word}-{word}"])
        )
        pieces.append(rng.choice([" ", " ", " ", ", ", ". ", " — ", "… "]))
    return "".join(pieces).strip()


def add_recording(
    connection: Connection, broadcaster_id: int | None, programme: str | None, said_on: dt.date
) -> Any:
    """A recording's row."""
    return connection.execute(
        text(
            """
            WITH batch AS (INSERT INTO batches (broadcaster_id, name, request_sha256) VALUES (:owner, 'b', 'x')
                           RETURNING id)
            INSERT INTO recordings (broadcaster_id, batch_id, name, size_bytes, priority, programme, broadcast_on)
            SELECT :owner, id, 'r.wav', 1, 1, :programme, :said_on FROM batch RETURNING id, broadcaster_id
            """
        ),
        {"owner": broadcaster_id, "programme": programme, "said_on": said_on},
    ).one()


def add_transcript(
    connection: Connection, recording: Any, model_id: int | None, said: list[str | None], *, is_current: bool
) -> list[int]:
    """A finished transcript that takes the place of the one before; ids of its segments. None is a failed one."""
    connection.execute(
        text("UPDATE transcripts SET is_current = false WHERE recording_id = :id AND is_current"),
        {"id": recording.id},
    )
    transcript_id = connection.scalar(
        text(
            "INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, splitter_version, "
            "code_version, duration_samples) VALUES (:owner, :recording, true, :model, 's', 'c', :n) RETURNING id"
        ),
        {
            "owner": recording.broadcaster_id,
            "recording": recording.id,
            "model": model_id,
            "n": len(said) * SPAN_SAMPLES,
        },
    )
    return list(
        connection.scalars(
            text(
                """
                INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                                      priority, state, text, failure_reason)
                SELECT :owner, :recording, :transcript, w.place - 1, (w.place - 1) * :span, w.place * :span, 1,
                       CASE WHEN w.said IS NULL THEN 'failed' ELSE 'done' END, w.said,
                       CASE WHEN w.said IS NULL THEN 'the model raised an error' END
                FROM unnest(CAST(:said AS text[])) WITH ORDINALITY AS w (said, place) ORDER BY w.place RETURNING id
                """
            ),
            {
                "owner": recording.broadcaster_id,
                "recording": recording.id,
                "transcript": transcript_id,
                "span": SPAN_SAMPLES,
                "said": said,
            },
        )
    )


def random_query(rng: random.Random) -> str:
    """Words, phrases, beginnings and what is to be left out, written one way or another."""
    vocabulary = [form for forms in LEMMAS for form in forms]
    parts = []
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        word = rng.choice(vocabulary)
        written = rng.choice([word, word.upper(), oracle.fold(word), unicodedata.normalize("NFD", word)])
        other = rng.choice(vocabulary)
        kind = rng.random()
        if kind < 0.15:
            written = rng.choice(['"{} {}"', "«{} {}»", '"{}, {}"', "“{}-{}”"]).format(written, other)
        elif kind < 0.3 and len(word) > 3:
            written = f"{written[: rng.randrange(3, len(written) + 1)]}*"
        elif kind < 0.35:
            written = f"{written}-{other}"
        parts.append(f"-{written}" if rng.random() < 0.15 else written)
    return rng.choice([" ", "  ", "\t"]).join(parts)


def random_filters(rng: random.Random) -> dict[str, Any]:
    """Keywords of a search, mostly none."""
    some_day = dt.date(1980, 1, 1) + dt.timedelta(days=rng.randrange(365 * 45))
    days = rng.choice([0, 20, 400, 5000])
    options: dict[str, Any] = {
        "programme": rng.choice(["Telexornal", "día A DIA", "Musica galega", "none such"]),
        "from_on": some_day,
        "to_on": some_day + dt.timedelta(days=days),
        "model": rng.choice(["one", "two", "none such"]),
    }
    return {name: value for name, value in options.items() if rng.random() < 0.25}


def mentions(connection: Connection, query: str, broadcaster: str | None, **filters: Any) -> list[int]:
    """Ids from `archive.mentions`, as they come."""
    parameters = {"programme": None, "from_on": None, "to_on": None, "model": None} | filters
    return list(
        connection.scalars(
            text(
                "SELECT segment_id FROM archive.mentions(:query, :broadcaster, :programme, :from_on, :to_on, :model)"
            ),
            parameters | {"query": query, "broadcaster": broadcaster},
        )
    )


def count_matches(
    connection: Connection, broadcaster: str | None, query: str, *, cap: int = 10_000, **filters: Any
) -> Count:
    """What `archive.search_count` says."""
    parameters = {"programme": None, "from_on": None, "to_on": None, "model": None} | filters
    row = connection.execute(
        text(
            "SELECT n, is_exact FROM archive.search_count(:query, :broadcaster, :programme, :from_on, :to_on, :model, "
            ":cap)"
        ),
        parameters | {"query": query, "broadcaster": broadcaster, "cap": cap},
    ).one()
    return Count(row.n, row.is_exact)


def pages(connection: Connection, query: str, broadcaster: str | None, **filters: Any) -> list[Any]:
    """All hits of a search, page by page."""
    hits: list[Any] = []
    after = None
    while True:
        page = search(connection, broadcaster, query, limit=100, after=after, **filters)
        hits += page.hits
        if page.next is None:
            return hits
        after = page.next


def check(connection: Connection, passages: list[Passage], query: str, **asked: Any) -> int:
    """All ways to ask give what the oracle gives; how many that is."""
    broadcaster = asked.pop("broadcaster", None)
    try:
        expected = oracle.search(passages, query, broadcaster=broadcaster, **asked)
    except NothingToFind:
        with pytest.raises(BadQuery, match="needs a word to look for"):
            search(connection, broadcaster, query, **asked)
        connection.rollback()
        return 0
    about = f"{query!r} {broadcaster} {asked}"
    found = mentions(connection, query, broadcaster, **asked)
    assert len(found) == len(set(found)), about
    texts = {passage.id: passage.text for passage in passages}
    assert set(found) == expected, (about, [texts[id_] for id_ in expected ^ set(found)][:5])
    hits = pages(connection, query, broadcaster, **asked)
    assert sorted(hit.segment_id for hit in hits) == sorted(expected), about
    assert count_matches(connection, broadcaster, query, **asked) == Count(len(expected), True), about
    assert search(connection, broadcaster, query, limit=1, **asked).count == (
        Count(min(len(expected), 250), len(expected) <= 250)
    ), about
    for hit in hits:
        check_snippet(hit.snippet, texts[hit.segment_id] or "", about)
    return len(expected)


def check_snippet(snippet: str, content: str, about: str) -> None:
    """A snippet is a piece of the text as it is, cut only at its ends, with marks around words."""
    plain = re.sub("</?mark>", "", snippet)
    if plain not in content:
        assert plain.strip("…") in content, (about, snippet, content)
    assert re.fullmatch(r"[^<]*(?:<mark>[^<>]+</mark>[^<]*)*", re.sub(r"</?b>", "", snippet)), snippet


def test_search_finds_what_a_scan_finds(engine: Engine) -> None:
    rng = random.Random(SEED)
    with transaction(engine) as tx:
        passages = make_passages(tx.connection, rng, 300)
    n_found = 0
    with engine.connect() as connection:
        connection.execute(text("ANALYZE search_segments"))
        for _ in range(100):
            asked = random_filters(rng)
            if rng.random() < 0.3:
                asked["broadcaster"] = rng.choice(["radio-mar", "radio-terra", "radio-none"])
            n_found += check(connection, passages, random_query(rng), **asked)
        for query in (*ATTACKS, *ODD_TEXTS[2:-1]):
            check(connection, passages, query)
        assert connection.scalar(text("SELECT count(*) FROM segments")) == len(passages)
    assert n_found > 1000, "the questions found too little to prove anything"


FEW = {
    "search_newest": [
        ("few CONSTANT integer := 2000", "few CONSTANT integer := 2"),
        ("fewest CONSTANT integer := 500", "fewest CONSTANT integer := 4"),
    ],
}
FEW_AND_WIDE = FEW | {
    "search_parse": [("most_words CONSTANT integer := 30", "most_words CONSTANT integer := 1")],
    "search_newest_wide": [
        ("few CONSTANT integer := 2000", "few CONSTANT integer := 2"),
        ("at_once integer := CASE WHEN reads_all THEN 8192 ELSE 2048 END", "at_once integer := 10"),
        ("greatest(1.2 * to_read, 2048), 32768)", "greatest(1.2 * to_read, 10), 20)"),
        ("row_us CONSTANT double precision := 2;", "row_us CONSTANT double precision := 1000;"),
    ],
}


@pytest.mark.parametrize("limits", [FEW, FEW_AND_WIDE])
def test_search_finds_what_a_scan_finds_where_matches_are_too_many_to_read_at_once(
    engine: Engine, limits: dict[str, list[tuple[str, str]]]
) -> None:
    """As in an archive of millions: windows of ids, and beginnings of more words than are looked up one by one."""
    rng = random.Random(SEED + len(limits))
    with engine.connect() as connection:
        passages = make_passages(connection, rng, 200, gap=60_000)
        for function, changes in limits.items():
            made_by = connection.scalar(
                text("SELECT pg_get_functiondef(CAST(:name AS regproc))"), {"name": f"public.{function}"}
            )
            for normal, small in changes:
                assert normal in str(made_by)
                made_by = str(made_by).replace(normal, small)
            connection.execute(text(str(made_by).replace(":", r"\:")))
        connection.execute(text("ANALYZE search_segments"))
        connection.commit()
        n_found = 0
        for _ in range(60):
            asked = random_filters(rng)
            beginning = rng.choice(["", "", "", "ca*", "ch*", "ma*", "-ga*", "xo* ou*"])
            query = rng.choice([random_query(rng), ""]) if beginning else random_query(rng)
            n_found += check(connection, passages, f"{query} {beginning}", **asked)
    assert n_found > 300, "the questions found too little to prove anything"


def test_pages_give_every_match_once(engine: Engine) -> None:
    """More matches than are ranked at a time; equal ranks; rows that come while somebody pages."""
    with transaction(engine) as tx:
        owner = tx.connection.scalar(text("INSERT INTO broadcasters (name) VALUES ('radio') RETURNING id"))
        recording = add_recording(tx.connection, owner, None, dt.date(2020, 1, 1))
        said: list[str | None] = [f"barco {'praia ' * (n % 7)}{n}" for n in range(1_250)]
        ids = add_transcript(tx.connection, recording, None, said, is_current=True)
        tx.connection.execute(text("ANALYZE search_segments"))
    with engine.connect() as connection:
        for query, broadcaster in (('"barco praia"', "radio"), ("barcos -10", None)):
            expected = [
                id_
                for id_, content in zip(ids, said, strict=True)
                if "praia" in str(content) or '"' not in query
            ]
            if "-10" in query:
                expected.remove(ids[10])
            hits = pages(connection, query, broadcaster)
            found = [hit.segment_id for hit in hits]
            assert len(found) == len(set(found))
            assert set(found) == set(expected), query
            assert count_matches(connection, broadcaster, query, cap=1000) == Count(1000, False)
            assert search(connection, broadcaster, query).count == Count(250, False)
        # the newest 250 come first, best before worse
        first = hits[:250]
        assert {hit.segment_id for hit in first} == set(ids[-250:])
        assert [(hit.rank, hit.segment_id) for hit in first] == sorted(
            ((hit.rank, hit.segment_id) for hit in first), reverse=True
        )
        # what is stored meanwhile changes nothing on the later pages
        page = search(connection, "radio", "barcos", limit=100)
        before = search(connection, "radio", "barcos", limit=100, after=page.next)
        other = add_recording(connection, owner, None, dt.date(2020, 1, 2))
        add_transcript(connection, other, None, ["barco"] * 50, is_current=True)
        assert search(connection, "radio", "barcos", limit=100, after=page.next) == before
        connection.rollback()


def test_search_follows_what_changes(engine: Engine) -> None:
    with transaction(engine) as tx:
        connection = tx.connection
        owner = connection.scalar(text("INSERT INTO broadcasters (name) VALUES ('radio') RETURNING id"))
        recording = add_recording(connection, owner, "Telexornal", dt.date(2020, 1, 1))
        [first] = add_transcript(connection, recording, None, ["choveu en Ourense"], is_current=True)
        assert mentions(connection, "chover", None) == [first]

        # a later transcript takes its place, whole
        [second] = add_transcript(connection, recording, None, ["o barco"], is_current=True)
        assert mentions(connection, "chover", None) == []
        assert mentions(connection, "barcos", None, programme="telexornal") == [second]
        connection.execute(text("UPDATE transcripts SET is_current = false"))
        connection.execute(
            text(
                "UPDATE transcripts SET is_current = true WHERE id = (SELECT transcript_id FROM segments WHERE id = :i)"
            ),
            {"i": first},
        )
        assert mentions(connection, "chover", None) == [first]
        assert mentions(connection, "barcos", None) == []

        connection.execute(text("UPDATE recordings SET programme = 'O tempo', broadcast_on = '1999-12-31'"))
        assert mentions(connection, "chover", None, programme="Telexornal") == []
        day = dt.date(1999, 12, 31)
        assert mentions(connection, "chover", None, programme="o tempo", from_on=day, to_on=day) == [first]
        assert mentions(connection, "chover", None, from_on=day + dt.timedelta(days=1)) == []
        assert mentions(connection, "chover", None, from_on=day, to_on=day - dt.timedelta(days=1)) == []

        connection.execute(text("UPDATE segments SET text = 'praia' WHERE id = :id"), {"id": first})
        assert mentions(connection, "chover", None) == []
        assert mentions(connection, "praias", None) == [first]
        connection.execute(text("DELETE FROM segments"))
        assert mentions(connection, "praias", None) == []
        assert connection.scalar(text("SELECT count(*) FROM search_segments")) == 0


def test_another_broadcasters_rows_are_never_given(engine: Engine) -> None:
    """Narrowed by the setting that the API makes, nothing that a caller passes widens it again."""
    with transaction(engine) as tx:
        passages = make_passages(tx.connection, random.Random(SEED), 120)
    own = {passage.id for passage in passages if passage.broadcaster == "radio-mar"}
    with engine.connect() as connection:
        connection.execute(text("SELECT set_config('fonoteca.broadcaster', 'radio-mar', true)"))
        for broadcaster in (None, "radio-mar", "radio-terra", "radio-terra' OR true --"):
            for query in ("e", "barco", "non", "cho*", "/b1 e", "galego -barco"):
                found = set(mentions(connection, query, broadcaster))
                expected = oracle.search(passages, query, broadcaster=broadcaster) & own
                assert found == expected
                assert {hit.segment_id for hit in pages(connection, query, broadcaster)} == expected
                assert count_matches(connection, broadcaster, query).n == len(expected)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "needs a word"),
        ("   ", "needs a word"),
        ("-barco", "without - before it"),
        ('-"o barco" -praia', "without - before it"),
        ("?!", "needs a word"),
        ("b*", "two letters or more"),
        ("x" * 1001, "1,000"),
        ("barco " * 120, "100 words"),
        ("bar\0co", "NUL"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_to_do(engine: Engine, query: str, says: str) -> None:
    with engine.connect() as connection, pytest.raises(BadQuery, match=re.escape(says)):
        search(connection, None, query)


def test_what_is_more_than_the_database_can_hold_is_refused(engine: Engine) -> None:
    told = r"word is too long.*fewer or shorter"
    with engine.connect() as connection, pytest.raises(BadQuery, match=told), _bad_queries():
        connection.execute(text("SELECT repeat('x', 3000)::tsvector"))


def test_limits_and_cursors_that_are_none_are_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        for limit in (0, 101, -1):
            with pytest.raises(BadQuery, match="1 to 100 rows"):
                search(connection, None, "barco", limit=limit)
            connection.rollback()
        for cursor in (
            "",
            "x",
            "1~2",
            "1~nan~3",
            "1~2~3; DROP TABLE segments",
            "~~",
            "9" * 30 + "~1~1",
            "1~\0",
        ):
            with pytest.raises(BadQuery, match="cursor"):
                search(connection, None, "barco", after=cursor)
            connection.rollback()


def test_a_text_is_stored_and_found_whatever_words_it_holds(engine: Engine, make_transcript: Any) -> None:
    said = {
        "a word without end": "boas " + "ha" * 1500,
        "a mark that joins no letter": "o pinq\u0303uin falou",
    }
    make_transcript([Said(n, n + 1, each) for n, each in enumerate(said.values())])
    with transaction(engine) as tx:
        assert [hit.snippet[:20] for hit in search(tx.connection, None, "boas").hits] == [
            "<mark>boas</mark> ha"
        ]
        assert len(search(tx.connection, None, "ha" * 400).hits) == 1
        assert len(search(tx.connection, None, "pinq\u0303uin").hits) == 1
        assert len(search(tx.connection, None, '"o pinq\u0303uin"').hits) == 1


def test_only_what_was_asked_for_is_marked(engine: Engine, make_transcript: Any) -> None:
    make_transcript([Said(0, 1, "Contaron os lobos onte que falaba dixéronnos hoxe")])
    with transaction(engine) as tx:
        for query, marked in {
            "hoxe": ["hoxe"],
            "lobo contar": ["Contaron", "lobos"],
            "dicir": ["dixéronnos"],
        }.items():
            (hit,) = search(tx.connection, None, query).hits
            assert re.findall("<mark>(.*?)</mark>", hit.snippet) == marked
