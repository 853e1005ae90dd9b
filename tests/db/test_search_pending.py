"""Texts that are indexed behind their worker's back: each is found once somebody has indexed it, and none is lost."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from db.connect import transaction
from db.integrity import check_rows
from db.liveness import WorkerSession
from db.queue import store_results
from db.search import index_pending, search
from tests.conftest import MadeRecording
from tests.db.queue_work import Make, NewWorker, claim, model, result, rows, split, transcript
from workers.index import index_stored


@pytest.fixture
def stored(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> tuple[MadeRecording, WorkerSession]:
    """A recording of 40 segments whose texts, "choveu 0" to "choveu 39", are to be indexed later."""
    worker, made = new_worker(), make_recording()
    split(engine, worker, transcript(40))
    claims = claim(engine, worker, model(engine), limit=40)
    with transaction(engine) as tx:
        results = [result(one, f"choveu {number}") for number, one in enumerate(claims)]
        store_results(tx.connection, worker.worker_id, results, max_attempts=3, index_later=True)
    return made, worker


def found(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return len(search(connection, None, query, limit=100).hits)


@pytest.mark.usefixtures("stored")
def test_texts_are_found_once_they_are_indexed(engine: Engine) -> None:
    assert found(engine, "chover") == 0
    assert rows(engine, "SELECT count(*) FROM search_pending") == [(40,)]
    with engine.connect() as connection:
        assert not [fault for fault in check_rows(connection) if "search" in fault], "they wait: no fault"
    with transaction(engine) as tx:
        assert index_pending(tx.connection, 30) == 30
    assert found(engine, "chover") == 30
    assert index_stored(engine) == 10
    assert found(engine, "chover") == 40
    assert rows(engine, "SELECT count(*) FROM search_pending") == [(0,)]
    assert index_stored(engine) == 0


@pytest.mark.usefixtures("stored")
def test_what_is_broken_off_is_indexed_by_the_next(engine: Engine) -> None:
    with engine.connect() as connection:
        assert index_pending(connection, 100) == 40
        connection.rollback()  # as when its process is killed
    assert found(engine, "chover") == 0
    assert index_stored(engine) == 40
    assert found(engine, "chover") == 40


@pytest.mark.usefixtures("stored")
def test_two_at_once_share_the_work(engine: Engine) -> None:
    with engine.connect() as one, engine.connect() as other:
        assert index_pending(one, 25) == 25
        assert index_pending(other, 100) == 15, "the others are in hand"
        one.commit()
        other.commit()
    assert found(engine, "chover") == 40


def test_many_at_once_index_each_text_once(
    engine: Engine, stored: tuple[MadeRecording, WorkerSession]
) -> None:
    threads = [threading.Thread(target=index_stored, args=(engine,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found(engine, "chover") == 40
    assert rows(engine, "SELECT count(*), count(DISTINCT segment_id) FROM search_segments") == [(40, 40)]


@pytest.mark.usefixtures("stored")
def test_a_text_that_cannot_be_indexed_costs_the_others_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        refused = connection.scalar(text("SELECT min(id) + 3 FROM segments"))
        connection.execute(
            text(
                f"""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'string is too long for tsvector' USING ERRCODE = '54000'; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON search_segments FOR EACH ROW
                    WHEN (NEW.segment_id = {refused}) EXECUTE FUNCTION refuse()
                """
            )
        )
    with capture_logs() as logs:
        assert index_stored(engine) == 40
    assert [entry["segment_id"] for entry in logs if entry["event"] == "segment_not_indexed"] == [refused]
    assert found(engine, "chover") == 39
    with engine.connect() as connection:
        assert "1 transcribed segments are not in the search index" in check_rows(connection)


@pytest.mark.usefixtures("stored")
def test_only_who_asks_for_it_is_indexed_later(engine: Engine) -> None:
    index_stored(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE segments SET text = 'nevou' WHERE index = 0"))
    assert found(engine, "nevar") == 1
