"""`check_rows` tells where the search index and the archive do not hold together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text

from db.integrity import check_rows


def test_rows_of_the_search_index_that_should_not_be_so(
    engine: Engine, make_transcript: Callable[..., Any]
) -> None:
    make_transcript()
    with engine.connect() as connection:  # nothing of it is committed
        assert check_rows(connection) == []
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no triggers
        connection.execute(text("UPDATE recordings SET broadcast_on = '1987-11-21'"))
        (told,) = check_rows(connection)
        assert "1 rows of the search index have another day" in told
        connection.execute(text("UPDATE transcripts SET is_current = false"))
        assert any("1 rows of the search index are of no text" in told for told in check_rows(connection))
        connection.execute(text("UPDATE transcripts SET is_current = true"))
        connection.execute(text("UPDATE segments SET text = ''"))
        (told,) = check_rows(connection)
        assert "1 rows of the search index are of no text" in told
