"""Subtitle cues from a transcript, by the habits of broadcasting. Pure: dataclasses in and out.

Words get times (a segment's time shared out by letters), then the cues are chosen together: of all ways to cut the
words between two long pauses into cues of one or two lines, the cheapest one, where cost is what disturbs a viewer:
a break inside a phrase (`api.export.breaks`), a cue too short or too long, a pause inside a cue, lines of unequal
length. Then each cue may stay on into the silence behind it, for the shortest time and for its reading.

What always holds, whatever a broken model writes: every word once and in order, no line over LINE_CHARS, no more
than CUE_LINES lines, every cue longer than nothing, none over another, none longer than MAX_CUE_MS. A cue is shorter
than MIN_CUE_MS only where its text comes faster than two full lines a second and no silence follows.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TypeVar

from api.export.breaks import SENTENCE_END, break_cost
from api.export.spoken import Spoken, words_of

Item = TypeVar("Item")

LINE_CHARS = 42
CUE_LINES = 2
MIN_CUE_MS = 1_000
MAX_CUE_MS = 7_000
MIN_GAP_MS = 80
"""Two frames of 25 a second: cues touch, or are at least so far apart."""
READING_CHARS_PER_S = 15
"""A cue stays on into the silence behind it until it could be read at this speed (UNE 153010 asks for it)."""
SPEAKING_CHARS_PER_S = 25
"""Faster than people speak: such a text is taken to go on into the silence behind its segment."""

BRIDGED_PAUSE_MS = 2_000
"""No cue goes on over a longer pause."""
SHORT_PAUSE_MS = 200
CUE_COST = 8.0
TOO_SHORT_COST = 150.0
TOO_LONG_COST = 60.0
LINE_BREAK_WEIGHT = 0.7
CUE_BREAK_WEIGHT = 1.5
IMBALANCE_COST = 8.0
SENTENCE_INSIDE_LINE_COST = 3.0
SENTENCE_BEGUN_COST = 10.0
"""Of ending one sentence and beginning another that goes on in the next cue."""
SHORT_TEXT_CHARS = 24
"""Fewer are an orphan, unless pauses set them apart."""
INSIDE_WORD = 60.0


@dataclass(frozen=True)
class Cue:
    """What is shown from one moment to another."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]

    @property
    def n_chars(self) -> int:
        """Characters to read, the line break among them."""
        return sum(map(len, self.lines)) + len(self.lines) - 1


@dataclass(frozen=True)
class Piece:
    """A word as it is laid out, or a part of one that is longer than a line."""

    text: str
    start_ms: int
    end_ms: int
    break_cost: float
    """Of ending a line or cue behind it."""
    alone: bool = False
    """Not shown in one cue with others."""


def cut_cues(spans: Iterable[Spoken], duration_ms: int, *, notice: str = "") -> list[Cue]:
    """All cues, in order and without overlap.

    Arguments:
        spans: what is said, in order of time.
        duration_ms: the recording's, up to which the last cue may stay on.
        notice: shown before everything else; takes the first second from what is said then.
    """
    pieces = list(timed_pieces(spans, duration_ms, first_ms=MIN_CUE_MS if notice else 0))
    cues = lay_out(pieces_of(notice, 0, MIN_CUE_MS), MIN_CUE_MS)
    all_runs = list(runs(pieces))
    for run, behind in each_with_next(all_runs):
        cues += lay_out(run, behind[0].start_ms if behind else duration_ms)
    return settle(cues, duration_ms)


# --- words in time ----------------------------------------------------------------------------------------


def timed_pieces(spans: Iterable[Spoken], duration_ms: int, first_ms: int) -> Iterator[Piece]:
    """The pieces of all spans, in order; times never go back, and none is before `first_ms`."""
    position = first_ms
    for span, behind in each_with_next(list(spans)):
        start_ms = max(position, span.start_ms)
        end_ms = max(start_ms, span.end_ms)
        alone = False
        if span.failed:
            end_ms = min(end_ms, start_ms + MAX_CUE_MS)
            alone = end_ms - start_ms >= MIN_CUE_MS
        else:
            until_ms = max(end_ms, behind.start_ms if behind else duration_ms)
            end_ms = max(end_ms, min(until_ms, start_ms + len(span.text) * 1000 // SPEAKING_CHARS_PER_S))
        for piece in pieces_of(
            span.text, start_ms, end_ms, pause_behind=behind is None or behind.start_ms > end_ms
        ):
            yield replace(piece, alone=alone)
        position = end_ms


def each_with_next(items: Sequence[Item]) -> Iterator[tuple[Item, Item | None]]:
    """Each item and the one behind it; None behind the last."""
    return zip(items, [*items[1:], None][: len(items)], strict=True)


def pieces_of(text: str, start_ms: int, end_ms: int, *, pause_behind: bool = True) -> list[Piece]:
    """A text's words as pieces. Words longer than a line are cut; a pause behind the text is a good end."""
    pieces = []
    words = words_of(text, start_ms, end_ms)
    texts = [word.text for word in words] + ["", ""]
    for index, word in enumerate(words):
        if index < len(words) - 1:
            cost = break_cost(*texts[index : index + 3])
        else:
            # a segment without a pause behind it was cut at its greatest length, in the middle of speech
            cost = 0.0 if pause_behind else break_cost(word.text, "") / 2
        if len(word.text) <= LINE_CHARS:
            pieces.append(Piece(word.text, word.start_ms, word.end_ms, cost))
            continue
        parts = [word.text[at : at + LINE_CHARS] for at in range(0, len(word.text), LINE_CHARS)]
        ends = [
            word.start_ms + (word.end_ms - word.start_ms) * n // len(parts) for n in range(1, len(parts) + 1)
        ]
        for part, begin, end in zip(parts, [word.start_ms, *ends], ends, strict=False):
            pieces.append(Piece(part, begin, end, INSIDE_WORD))
        pieces[-1] = replace(pieces[-1], break_cost=cost)
    return pieces


def runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces between two borders that no cue goes on over: long pauses, and what is shown alone."""
    run: list[Piece] = []
    for piece in pieces:
        if run and (piece.start_ms - run[-1].end_ms > BRIDGED_PAUSE_MS or piece.alone != run[-1].alone):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


# --- choosing the cues ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What the search asks of a run, as sums that are ready."""

    pieces: Sequence[Piece]
    room_ms: int
    """Until when the last cue may stay on."""
    chars: list[int]
    """Characters before each piece, one space behind every piece."""
    pauses: list[float]
    """Cost of the pauses before each piece, summed up."""
    sentence_ends: list[int]
    """Ends of sentences before each piece."""

    @classmethod
    def of(cls, pieces: Sequence[Piece], room_ms: int) -> Run:
        """Prepare the search."""
        pauses = [0.0, *(pause_cost(b.start_ms - a.end_ms) for a, b in pairwise(pieces))]
        return cls(
            pieces,
            room_ms,
            [0, *accumulate(len(piece.text) + 1 for piece in pieces)],
            list(accumulate(pauses)),
            [0, *accumulate(int(piece.break_cost == SENTENCE_END) for piece in pieces)],
        )

    def length(self, start: int, end: int) -> int:
        """Characters of pieces `start` to `end` (not included) on one line."""
        return self.chars[end] - self.chars[start] - 1

    def best_line_break(self, start: int, end: int) -> tuple[float, int] | None:
        """(cost, piece that begins the second line; `end` for a single line), or None where two lines are too few."""
        chars, ends = self.chars, self.sentence_ends
        begin, behind = chars[start], chars[end]
        if behind - begin <= LINE_CHARS + 1:
            return SENTENCE_INSIDE_LINE_COST * self._sentences_inside(start, end), end
        first = max(start + 1, bisect_left(chars, behind - LINE_CHARS - 1))
        last = min(end - 1, bisect_right(chars, begin + LINE_CHARS + 1) - 1)
        best = None
        for middle in range(last, first - 1, -1):
            inside = ends[middle - 1] - ends[start] + ends[end - 1] - ends[middle]
            cost = (
                LINE_BREAK_WEIGHT * self.pieces[middle - 1].break_cost
                + IMBALANCE_COST * abs(2 * chars[middle] - begin - behind) / LINE_CHARS
                + SENTENCE_INSIDE_LINE_COST * inside
            )
            if best is None or cost < best[0]:
                best = cost, middle
        return best

    def _sentences_inside(self, start: int, end: int) -> int:
        return self.sentence_ends[end - 1] - self.sentence_ends[start]

    def cost(self, start: int, end: int) -> float:
        """Of showing these pieces as one cue, without its line break."""
        pieces = self.pieces
        first_ms, last_ms = pieces[start].start_ms, pieces[end - 1].end_ms
        behind_ms = pieces[end].start_ms if end < len(pieces) else self.room_ms
        # the cue before may take the first second of a silence that lies between
        before_ms = max(0, first_ms - pieces[start - 1].end_ms - MIN_CUE_MS) if start else 0
        room_ms = behind_ms - first_ms + before_ms
        cost = CUE_COST + self.pauses[end - 1] - self.pauses[start]
        if room_ms < MIN_CUE_MS:
            cost += TOO_SHORT_COST * (2 - room_ms / MIN_CUE_MS)
        cost += TOO_LONG_COST * max(0, last_ms - first_ms - MAX_CUE_MS) / MAX_CUE_MS
        n_chars = self.length(start, end)
        stands_alone = (
            behind_ms - last_ms >= SHORT_PAUSE_MS
            and (start == 0 or first_ms - pieces[start - 1].end_ms >= SHORT_PAUSE_MS)
        )  # fmt: skip
        if n_chars < SHORT_TEXT_CHARS and not stands_alone:
            cost += (SHORT_TEXT_CHARS - n_chars) / 2
        if end < len(pieces):
            cost += CUE_BREAK_WEIGHT * pieces[end - 1].break_cost
            if pieces[end - 1].break_cost > SENTENCE_END and self._sentences_inside(start, end):
                cost += SENTENCE_BEGUN_COST
        return cost


def pause_cost(pause_ms: int) -> float:
    """Of going on over a pause inside a cue."""
    return 0.0 if pause_ms < SHORT_PAUSE_MS else 6.0 + 20.0 * pause_ms / BRIDGED_PAUSE_MS


def lay_out(pieces: Sequence[Piece], room_ms: int) -> list[Cue]:
    """A run's cues: the cheapest way to cut it. They begin and end with their words.

    Two lines of LINE_CHARS hold few words, so the time is linear in the length of the run.
    """
    run = Run.of(pieces, room_ms)
    # cheapest way to lay out the first n pieces: its cost, where its last cue begins, and that cue's second line
    ways: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(pieces) + 1):
        best = (math.inf, 0, 0)
        for start in range(end - 1, -1, -1):
            if run.length(start, end) > CUE_LINES * LINE_CHARS + 1:
                break
            cost = ways[start][0] + run.cost(start, end)
            if cost < best[0] and (line_break := run.best_line_break(start, end)):
                cost += line_break[0]
                if cost < best[0]:
                    best = cost, start, line_break[1]
        ways.append(best)
    cues = []
    end = len(pieces)
    while end:
        _, start, middle = ways[end]
        lines = [
            " ".join(piece.text for piece in pieces[a:b])
            for a, b in ((start, middle), (middle, end))
            if a < b
        ]
        cues.append(Cue(pieces[start].start_ms, pieces[end - 1].end_ms, tuple(lines)))
        end = start
    return cues[::-1]


# --- when each is shown -----------------------------------------------------------------------------------


def settle(cues: Sequence[Cue], duration_ms: int) -> list[Cue]:
    """The same cues with their final times: in order, apart, as long as the silence around them allows."""
    starts: list[int] = []
    ends: list[int] = []
    for cue in cues:
        starts.append(max(cue.start_ms, ends[-1] if ends else 0))
        ends.append(min(max(cue.end_ms, starts[-1] + 1), starts[-1] + MAX_CUE_MS))
    last = len(cues) - 1

    def stay_on(index: int, wanted_ms: int) -> None:
        until_ms = starts[index + 1] if index < last else max(duration_ms, ends[index])
        ends[index] = max(ends[index], min(until_ms, starts[index] + wanted_ms))

    for index in range(len(cues)):
        stay_on(index, MIN_CUE_MS)
        before_ms = ends[index - 1] if index else 0
        if ends[index] - starts[index] < MIN_CUE_MS:
            starts[index] = max(before_ms, ends[index] - MIN_CUE_MS)
    for index, cue in enumerate(cues):
        stay_on(index, min(MAX_CUE_MS, cue.n_chars * 1000 // READING_CHARS_PER_S))
    for index in range(last):
        gap_ms = starts[index + 1] - ends[index]
        if 0 < gap_ms < MIN_GAP_MS:
            if starts[index + 1] - starts[index] <= MAX_CUE_MS:
                ends[index] = starts[index + 1]
            else:
                ends[index] = starts[index + 1] - MIN_GAP_MS
    return [replace(cue, start_ms=starts[n], end_ms=ends[n]) for n, cue in enumerate(cues)]
