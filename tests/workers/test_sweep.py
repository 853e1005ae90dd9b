"""The sweep sends wake-ups whatever becomes of what it fills in little by little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from db.connect import transaction
from db.search import index_older
from db.settings import Settings
from tests.conftest import Said
from workers.queue import MEDIA_QUEUE
from workers.sweep import sweep


def test_wake_ups_are_sent_though_nothing_can_be_filled_in(
    engine: Engine, settings: Settings, make_recording: Callable[..., Any]
) -> None:
    settings.require_upload_dir().mkdir(parents=True, exist_ok=True)
    make_recording(media=b"audio")
    with transaction(engine) as tx:
        # every step fails in the database: its table is not there
        for table in ("search_new_words", "search_pending", "search_backfill"):
            tx.connection.execute(text(f"ALTER TABLE {table} RENAME TO {table}_away"))
        tx.connection.execute(text("ALTER TABLE transcripts RENAME COLUMN done_segments TO done_away"))
    with capture_logs() as logs:
        sweep(engine, settings)
    failed = [entry["step"] for entry in logs if entry["event"] == "fill_in_failed"]
    assert failed == ["merge_new_words", "index_pending", "index_older", "fill_counts"]
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        assert client.llen(MEDIA_QUEUE) == 1


def test_a_text_that_cannot_be_indexed_keeps_no_other_out(
    engine: Engine, make_transcript: Callable[..., Any]
) -> None:
    texts = ["Choveu en Lugo", "Choveu sen fin", "Choveu en Vigo"]
    make_transcript([Said(2 * i + 0.5, 2 * i + 2, said) for i, said in enumerate(texts)])
    with transaction(engine) as tx:
        ids = tx.connection.scalars(text("SELECT id FROM segments ORDER BY id")).all()
        tx.connection.execute(text("DELETE FROM search_segments"))
        tx.connection.execute(
            text("UPDATE search_backfill SET below_segment_id = :all"), {"all": ids[-1] + 1}
        )
        tx.connection.execute(
            text(
                f"""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'string is too long for tsvector' USING ERRCODE = '54000'; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON search_segments FOR EACH ROW
                    WHEN (NEW.segment_id = {ids[1]}) EXECUTE FUNCTION refuse()
                """
            )
        )
    with transaction(engine) as tx, capture_logs() as logs:
        assert index_older(tx.connection, 10) == 3
    assert [(entry["event"], entry["segment_id"]) for entry in logs] == [("segment_not_indexed", ids[1])]
    with transaction(engine) as tx:
        assert index_older(tx.connection, 10) == 0, "it is not tried for ever"
        found = tx.connection.scalars(
            text("SELECT segment_id FROM search_segments ORDER BY segment_id")
        ).all()
    assert found == [ids[0], ids[2]]
