"""Draws: every kind of programme is seen, recordings are spread, nothing comes twice."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.connect import transaction
from db.correction_draws import draw_segments, list_open_draws
from db.corrections import NewCorrection, store_correction
from tests.made_archive import Spoken, add_model, add_recording

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
TEN = [Spoken(f"palabra {number}") for number in range(10)]


def strata(connection: Connection, segment_ids: Sequence[int]) -> dict[str, int]:
    rows = connection.execute(
        text("SELECT stratum, count(*) FROM correction_draws WHERE segment_id = ANY(:ids) GROUP BY stratum"),
        {"ids": list(segment_ids)},
    )
    return {row[0]: row[1] for row in rows}


def recordings(connection: Connection, segment_ids: Sequence[int]) -> Counter[Any]:
    return Counter(
        connection.scalars(
            text("SELECT recording_id FROM segments WHERE id = ANY(:ids)"), {"ids": list(segment_ids)}
        )
    )


@pytest.fixture
def archive(engine: Engine, owner: Any) -> int:
    """Twenty recordings of radio, three of television, one interview of one segment; the model's id."""
    with transaction(engine) as tx:
        model_id = add_model(tx.connection)
        for _ in range(20):
            add_recording(tx.connection, owner.id, model_id, TEN, at=NOW - DAY, programme="P", kind="radio")
        for _ in range(3):
            add_recording(tx.connection, owner.id, model_id, TEN, at=NOW - DAY, programme="Telexornal")
        add_recording(tx.connection, owner.id, model_id, TEN[:1], at=NOW - DAY, kind="interview")
    return model_id


def test_strata_share_alike_and_others_take_what_one_cannot_give(
    engine: Engine, owner: Any, archive: int
) -> None:
    with transaction(engine) as tx:
        drawn = draw_segments(tx.connection, owner.id, 13, window_days=28)
        assert len(set(drawn)) == 13
        assert strata(tx.connection, drawn) == {"radio": 6, "Telexornal": 6, "interview": 1}
        spread = recordings(tx.connection, drawn)
        assert sorted(spread.values()) == [1] * 7 + [2] * 3
        # the next draw goes on where this one ended
        more = draw_segments(tx.connection, owner.id, 8, window_days=28)
        assert not set(more) & set(drawn)
        assert strata(tx.connection, more) == {"radio": 4, "Telexornal": 4}
        rest = draw_segments(tx.connection, owner.id, 500, window_days=28)
        assert len(drawn + more + rest) == 231
        assert draw_segments(tx.connection, owner.id, 5, window_days=28) == []


def test_small_draws_see_every_stratum_before_any_twice(engine: Engine, owner: Any, archive: int) -> None:
    with transaction(engine) as tx:
        drawn = [
            segment for _ in range(3) for segment in draw_segments(tx.connection, owner.id, 1, window_days=28)
        ]
        assert strata(tx.connection, drawn) == {"radio": 1, "Telexornal": 1, "interview": 1}
        drawn = [
            segment for _ in range(4) for segment in draw_segments(tx.connection, owner.id, 1, window_days=28)
        ]
        assert strata(tx.connection, drawn) == {"radio": 2, "Telexornal": 2}
        assert len(recordings(tx.connection, drawn)) == 4


def test_only_what_the_model_in_service_made_lately(
    engine: Engine, owner: Any, archive: int, make_broadcaster: Callable[..., Any]
) -> None:
    other = make_broadcaster()
    with transaction(engine) as tx:
        connection = tx.connection
        add_recording(connection, other.id, archive, TEN, at=NOW - DAY, kind="radio")
        _, old = add_recording(connection, owner.id, archive, TEN[:3], at=NOW - 60 * DAY, kind="radio")
        add_recording(connection, owner.id, add_model(connection, "before"), TEN[:5], at=NOW - 2 * DAY)
        _, chosen = add_recording(connection, owner.id, archive, TEN[:2], at=NOW - DAY, kind="radio")
        store_correction(connection, owner.id, NewCorrection(chosen[0], "a", "ana"))
        drawn = draw_segments(connection, owner.id, 232, window_days=28)
        assert len(drawn) == 232
        assert not set(drawn) & {*old, chosen[0]}
        assert chosen[1] in drawn
        # the window is used up: now older ones
        assert set(draw_segments(connection, owner.id, 10, window_days=28)) == set(old)
        owned = connection.scalars(
            text(
                "SELECT DISTINCT s.broadcaster_id FROM correction_draws d JOIN segments s ON s.id = d.segment_id"
            )
        )
        assert set(owned) == {owner.id}


def test_what_was_corrected_is_open_no_more(engine: Engine, owner: Any, archive: int) -> None:
    with transaction(engine) as tx:
        drawn = draw_segments(tx.connection, owner.id, 3, window_days=28)
        stored, _ = store_correction(tx.connection, owner.id, NewCorrection(drawn[0], "", "ana"))
        assert stored.is_drawn
        open_draws = list_open_draws(tx.connection, owner.id, limit=10)
        assert {each.segment_id for each in open_draws} == set(drawn[1:])
        # a newer transcript of the recording replaces this one: nobody needs to correct the old one
        tx.connection.execute(
            text("UPDATE transcripts SET is_current = false WHERE recording_id = :id"),
            {"id": open_draws[0].recording_id},
        )
        assert len(list_open_draws(tx.connection, owner.id, limit=10)) < 2


def test_two_draws_at_once_never_share_a_segment(engine: Engine, owner: Any, archive: int) -> None:
    def draw(_: int) -> list[int]:
        with transaction(engine) as tx:
            return draw_segments(tx.connection, owner.id, 40, window_days=28)

    with ThreadPoolExecutor(4) as pool:
        drawn = [segment for found in pool.map(draw, range(4)) for segment in found]
    assert len(drawn) == len(set(drawn)) == 160


def test_nothing_is_drawn_before_anything_was_transcribed(engine: Engine, owner: Any) -> None:
    with transaction(engine) as tx:
        assert draw_segments(tx.connection, owner.id, 5, window_days=28) == []
