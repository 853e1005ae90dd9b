"""Corrections: what people say is said in segments.

Every function takes the broadcaster whose rows it may see; rows of others are as if they did not exist. Which segments
are drawn for correction is in `db.correction_draws`.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.batches import FORBIDDEN_CATEGORIES
from db.schema import SAMPLE_RATE_HZ
from db.states import SegmentState

MAX_TEXT_CHARS = 5_000
"""Thirty seconds of fast speech are about 600."""
MAX_NAME_CHARS = 200


class SegmentUnknown(Exception):
    """The broadcaster has no such segment."""

    def __init__(self, segment_id: int) -> None:
        super().__init__(f"there is no segment {segment_id}")
        self.segment_id = segment_id


class SegmentNotTranscribed(Exception):
    """A segment without text cannot be corrected."""

    def __init__(self, segment_id: int, state: SegmentState) -> None:
        super().__init__(
            f"segment {segment_id} is {state.value}: only a transcribed segment can be corrected"
            + ("" if state is SegmentState.FAILED else ", try again later")
        )
        self.segment_id = segment_id
        self.state = state


class BadCorrection(Exception):
    """A correction whose text or author cannot be stored."""


@dataclass(frozen=True)
class NewCorrection:
    """A correction as it is sent."""

    segment_id: int
    text: str
    corrected_by: str


@dataclass(frozen=True)
class Correction:
    """A stored correction."""

    id: int
    segment_id: int
    recording_id: uuid.UUID
    text: str
    is_drawn: bool
    is_current: bool
    corrected_by: str
    created_at: dt.datetime


@dataclass(frozen=True)
class Segment:
    """A segment as a person needs it who is to say what is said in it."""

    segment_id: int
    recording_id: uuid.UUID
    recording: str
    programme: str | None
    programme_kind: str | None
    broadcast_on: dt.date | None
    index: int
    start_s: float
    end_s: float
    state: SegmentState
    text: str | None
    """What the model wrote."""
    flags: tuple[str, ...]
    corrected: str | None
    """The current correction; None without one."""
    is_demo: bool
    drawn_at: dt.datetime | None
    stratum: str | None
    """What it was drawn for; None unless drawn."""


def clean_text(value: str) -> str:
    """A correction's text as it is stored: NFC, without space at its ends; empty where nothing is said.

    Raises:
        BadCorrection: a line break, another control character, or too long.
    """
    cleaned = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(character) in FORBIDDEN_CATEGORIES for character in cleaned):
        raise BadCorrection(
            "the text holds a line break or another control character: send it as one line of plain text"
        )
    if len(cleaned) > MAX_TEXT_CHARS:
        raise BadCorrection(
            f"the text has {len(cleaned):,} characters, the most is {MAX_TEXT_CHARS:,}: a segment has 30 s at most, "
            "send only what is said in it"
        )
    return cleaned


def clean_name(value: str) -> str:
    """Who corrected, as it is stored.

    Raises:
        BadCorrection: empty, too long, or with control characters.
    """
    cleaned = unicodedata.normalize("NFC", value).strip()
    if not 0 < len(cleaned) <= MAX_NAME_CHARS:
        raise BadCorrection(f"corrected_by has {len(cleaned)} characters: use 1 to {MAX_NAME_CHARS}")
    if any(unicodedata.category(character) in FORBIDDEN_CATEGORIES for character in cleaned):
        raise BadCorrection("corrected_by holds a control character: send a plain name")
    return cleaned


# --- storing ---------------------------------------------------------------------------------------------

_CORRECTION_COLUMNS = "id, segment_id, recording_id, text, is_drawn, is_current, corrected_by, created_at"


def store_correction(
    connection: Connection, broadcaster_id: int, new: NewCorrection
) -> tuple[Correction, bool]:
    """Store a correction as the segment's current one; older ones stay. Equal text changes nothing.

    Returns:
        The current correction, and whether it was stored now.

    Raises:
        SegmentUnknown, SegmentNotTranscribed, BadCorrection.
    """
    cleaned, author = clean_text(new.text), clean_name(new.corrected_by)
    # the lock makes two people who correct the same segment at once take turns
    segment = connection.execute(
        text(
            "SELECT recording_id, state FROM segments WHERE id = :id AND broadcaster_id = :broadcaster_id "
            "FOR NO KEY UPDATE"
        ),
        {"id": new.segment_id, "broadcaster_id": broadcaster_id},
    ).one_or_none()
    if segment is None:
        raise SegmentUnknown(new.segment_id)
    if segment.state != SegmentState.DONE:
        raise SegmentNotTranscribed(new.segment_id, SegmentState(segment.state))
    current = find_correction(connection, broadcaster_id, new.segment_id)
    if current is not None and current.text == cleaned:
        return current, False
    connection.execute(
        text("UPDATE corrections SET is_current = false WHERE segment_id = :id AND is_current"),
        {"id": new.segment_id},
    )
    row = connection.execute(
        text(
            f"""
            INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, is_current,
                                     corrected_by)
            VALUES (:broadcaster_id, :recording_id, :id, :text,
                    EXISTS (SELECT FROM correction_draws WHERE segment_id = :id), true, :corrected_by)
            RETURNING {_CORRECTION_COLUMNS}
            """
        ),
        {
            "broadcaster_id": broadcaster_id,
            "recording_id": segment.recording_id,
            "id": new.segment_id,
            "text": cleaned,
            "corrected_by": author,
        },
    ).one()
    return Correction(*row), True


class CorrectionsRefused(Exception):
    """Some of many corrections cannot be stored, so none was."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(f"{len(reasons)} corrections cannot be stored")
        self.reasons = reasons
        """By position in the request."""


def store_corrections(connection: Connection, broadcaster_id: int, new: Sequence[NewCorrection]) -> int:
    """Store many corrections, all or none; how many were not there already.

    The caller's transaction must be rolled back when this raises.

    Raises:
        CorrectionsRefused: with the reason of each that cannot be stored.
    """
    reasons: dict[int, str] = {}
    first: dict[int, int] = {}
    n_stored = 0
    # in order of segment, so that two such requests at once cannot wait for each other
    for position, each in sorted(enumerate(new), key=lambda item: (item[1].segment_id, item[0])):
        if first.setdefault(each.segment_id, position) != position:
            reasons[position] = (
                f"segment {each.segment_id} comes twice, first as item {first[each.segment_id]}: send it once"
            )
            continue
        try:
            _, is_new = store_correction(connection, broadcaster_id, each)
        except (SegmentUnknown, SegmentNotTranscribed, BadCorrection) as error:
            reasons[position] = str(error)
        else:
            n_stored += is_new
    if reasons:
        raise CorrectionsRefused(dict(sorted(reasons.items())))
    return n_stored


# --- reading ---------------------------------------------------------------------------------------------


def find_correction(connection: Connection, broadcaster_id: int, segment_id: int) -> Correction | None:
    """A segment's current correction."""
    row = connection.execute(
        text(
            f"SELECT {_CORRECTION_COLUMNS} FROM corrections "
            "WHERE segment_id = :id AND is_current AND broadcaster_id = :broadcaster_id"
        ),
        {"id": segment_id, "broadcaster_id": broadcaster_id},
    ).one_or_none()
    return Correction(*row) if row else None


@dataclass(frozen=True)
class CorrectedText:
    """A correction beside what the model wrote."""

    id: int
    segment_id: int
    recording_id: uuid.UUID
    recording: str
    start_s: float
    end_s: float
    transcribed: str
    text: str
    is_drawn: bool
    is_current: bool
    corrected_by: str
    created_at: dt.datetime


def list_corrections(
    connection: Connection,
    broadcaster_id: int,
    *,
    limit: int,
    after: int | None = None,
    with_older: bool = False,
) -> list[CorrectedText]:
    """Corrections in the order in which they were made, those behind `after` where given; the current ones, or all."""
    rows = connection.execute(
        text(
            """
            SELECT c.id, c.segment_id, c.recording_id, r.name AS recording, s.start_sample, s.end_sample,
                   s.text AS transcribed, c.text, c.is_drawn, c.is_current, c.corrected_by, c.created_at
            FROM (SELECT * FROM corrections
                  WHERE broadcaster_id = :broadcaster_id AND id > :after AND (is_current OR :with_older)
                  ORDER BY id LIMIT :limit) c
            JOIN segments s ON s.id = c.segment_id
            JOIN recordings r ON r.id = c.recording_id
            ORDER BY c.id
            """
        ),
        {"broadcaster_id": broadcaster_id, "after": after or 0, "limit": limit, "with_older": with_older},
    )
    return [
        CorrectedText(
            id=row.id,
            segment_id=row.segment_id,
            recording_id=row.recording_id,
            recording=row.recording,
            start_s=_seconds(row.start_sample),
            end_s=_seconds(row.end_sample),
            transcribed=row.transcribed or "",
            text=row.text,
            is_drawn=row.is_drawn,
            is_current=row.is_current,
            corrected_by=row.corrected_by,
            created_at=row.created_at,
        )
        for row in rows
    ]


SEGMENT_SQL = """
    SELECT s.id, s.recording_id, r.name AS recording, r.programme, r.programme_kind, r.broadcast_on,
           s.index AS position, s.start_sample, s.end_sample, s.state, s.text, s.flags, c.text AS corrected,
           coalesce(m.is_demo, false) AS is_demo, d.drawn_at, d.stratum
    FROM {origin}
    JOIN transcripts t ON t.id = s.transcript_id
    JOIN recordings r ON r.id = s.recording_id
    LEFT JOIN models m ON m.id = t.model_id
    LEFT JOIN corrections c ON c.segment_id = s.id AND c.is_current
    WHERE s.broadcaster_id = :broadcaster_id
"""
"""Segments with what a person needs to correct them; `origin` gives `s` and, where it was drawn, `d`."""


def find_segment(connection: Connection, broadcaster_id: int, segment_id: int) -> Segment | None:
    """One segment, of whatever transcript."""
    origin = "segments s LEFT JOIN correction_draws d ON d.segment_id = s.id"
    row = connection.execute(
        text(SEGMENT_SQL.format(origin=origin) + " AND s.id = :id"),
        {"id": segment_id, "broadcaster_id": broadcaster_id},
    ).one_or_none()
    return segment_of(row) if row else None


def segment_of(row: Any) -> Segment:
    """From a row of SEGMENT_SQL."""
    return Segment(
        segment_id=row.id,
        recording_id=row.recording_id,
        recording=row.recording,
        programme=row.programme,
        programme_kind=row.programme_kind,
        broadcast_on=row.broadcast_on,
        index=row.position,
        start_s=_seconds(row.start_sample),
        end_s=_seconds(row.end_sample),
        state=SegmentState(row.state),
        text=row.text,
        flags=tuple(row.flags),
        corrected=row.corrected,
        is_demo=row.is_demo,
        drawn_at=row.drawn_at,
        stratum=row.stratum,
    )


def _seconds(samples: int) -> float:
    return round(int(samples) / SAMPLE_RATE_HZ, 3)
