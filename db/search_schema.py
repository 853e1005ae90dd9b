"""The tables of search and of the roles that read over SQL. `migrations/versions/search.sql` fills them by triggers."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from db.schema import Base, now_by_default


class SearchSegment(Base):
    """What search knows of one segment with a text, of a recording's current transcript."""

    __tablename__ = "search_segments"
    __table_args__ = (
        Index(
            "ix_search_segments_doc_pairs",
            "doc",
            "pairs",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
        Index("ix_search_segments_said_on", "said_on", "segment_id"),
    )

    segment_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    broadcaster_id: Mapped[int]
    recording_id: Mapped[uuid.UUID]
    said_on: Mapped[dt.date]
    """Day of the broadcast; of the arrival, in UTC, where that is not known."""
    doc: Mapped[Any] = mapped_column(TSVECTOR)
    """Folded words with their places; behind `~` their stems; behind `/` what filters ask for."""
    pairs: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    """A number for each two words that follow each other: phrases of common words are found by them."""


class SearchLexicon(Base):
    """Forms whose stem the stemmer does not find by itself (`db/make_lexicon.py`)."""

    __tablename__ = "search_lexicon"
    __table_args__ = (Index("ix_search_lexicon_stems", "stems", postgresql_using="gin"),)

    form: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    stems: Mapped[list[str]] = mapped_column(ARRAY(Text))


class SearchWord(Base):
    """Every folded word ever indexed: what `begin*` is looked up in."""

    __tablename__ = "search_words"

    word: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)


class SearchPending(Base):
    """A segment whose text is to be indexed a moment after it was stored (`db.search.index_pending`)."""

    __tablename__ = "search_pending"

    segment_id: Mapped[int] = mapped_column(BigInteger)
    __mapper_args__ = {"primary_key": [segment_id]}  # noqa: RUF012 - for the mapper alone: the table has no key


class SearchBackfill(Base):
    """How far segments of before the search have been indexed: all from this id on are."""

    __tablename__ = "search_backfill"
    __table_args__ = (CheckConstraint("is_only", name="one_row"),)

    is_only: Mapped[bool] = mapped_column(primary_key=True, server_default=sql("true"))
    below_segment_id: Mapped[int] = mapped_column(BigInteger)


class SqlUser(Base):
    """A login role that reads schema `archive`: of one broadcaster, or (empty) of all."""

    __tablename__ = "sql_users"

    role_name: Mapped[str] = mapped_column(primary_key=True)
    broadcaster_id: Mapped[int | None] = mapped_column(ForeignKey("broadcasters.id"))
    label: Mapped[str]
    created_at: Mapped[dt.datetime] = now_by_default()
    statement_timeout_s: Mapped[int] = mapped_column(server_default=sql("30"))
    """Longest query; kept here because a role may change its own settings."""


Table(
    "search_new_words",
    Base.metadata,
    # words that are not in `search_words` yet, with repetitions: the sweep moves them
    Column("word", Text(collation="C"), nullable=False, index=True),
)
