"""The picture of how the archive's views hang together, and the same as a table for those who do not see it.

Columns and their types come from the catalogue; what a row is, where a box stands and which columns lead to which
view are declared here. Own SVG: boxes and lines need no layout program, and the same schema gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from db.settings import PROJECT_ROOT
from tests.sql_docs.dictionary import Function, View

PICTURE = PROJECT_ROOT / "docs" / "pictures" / "archive-relations.svg"

BOX_WIDTH, ROW_HEIGHT, HEAD_HEIGHT = 232, 20, 44
COLUMN_STEP, TOP, LEFT, GAP, RADIUS = 312, 28, 24, 26, 6


@dataclass(frozen=True)
class Relation:
    """One view, or function that gives rows, in the picture."""

    name: str
    row: str
    """What one row is."""
    place: int
    """Column of the picture, from the left."""
    key: tuple[str, ...]
    shown: tuple[str, ...]
    """Further columns worth knowing, without those that lead elsewhere."""


@dataclass(frozen=True)
class Link:
    """Rows of `child` belong to a row of `parent`, by columns of this name in both."""

    child: str
    column: str
    parent: str
    is_drawn: bool = True
    """False: told in the box only, because a line would cross others."""


RELATIONS = (
    Relation("broadcasters", "one tenant", 0, ("broadcaster",), ("created_at",)),
    Relation("batches", "recordings submitted together", 0, ("batch_id",), ("batch", "priority")),
    Relation("models", "one checkpoint that was run", 0, ("model_id",), ("model", "is_demo_model")),
    Relation(
        "recordings", "one media file", 1, ("recording_id",),
        ("recording", "programme", "programme_kind", "broadcast_on", "state", "duration_s", "sha256"),
    ),
    Relation(
        "transcripts", "recording × model; one is current", 1, ("transcript_id",),
        ("is_current", "transcribed_s", "no_speech_s", "failed_s", "finished_at"),
    ),
    Relation(
        "segments", "a span of speech, ≤ 30 s, current", 2, ("segment_id",),
        ("start_s", "end_s", "text", "confidence", "flags", "corrected_text"),
    ),
    Relation("coverage", "a span of any kind, current", 2, (), ("kind", "start_s", "end_s", "reason")),
    Relation("words", "one word of a segment", 3, (), ("word_index", "word", "start_s")),
    Relation("mentions(…)", "one segment that matches", 3, (), ("said_on",)),
    Relation("corrections", "what a person says is said", 3, ("correction_id",), ("transcribed", "corrected")),
    Relation("attempts", "one try at splitting or transcribing", 3, ("attempt_id",), ("kind", "outcome", "error_code")),
    Relation("quality_runs", "model × held-out set × time", 0, ("run_id",), ("held_out_set", "night", "model")),
    Relation("quality_scores", "rates of a run", 1, (), ("wer", "wer_low", "wer_high")),
    Relation("quality_daily", "a night's verdict", 1, (), ("night", "subject", "verdict")),
    Relation("quality_measures", "a nightly measure, no references", 2, (), ("night", "unit", "measure", "value")),
    Relation("quality_alerts", "something a person must look at", 3, ("alert_id",), ("opened_night", "closed_at")),
)  # fmt: skip
LINKS = (
    Link("batches", "broadcaster", "broadcasters"),
    Link("recordings", "batch_id", "batches"),
    Link("transcripts", "recording_id", "recordings"),
    Link("transcripts", "model_id", "models"),
    Link("segments", "recording_id", "recordings"),
    Link("segments", "transcript_id", "transcripts"),
    Link("coverage", "transcript_id", "transcripts"),
    Link("coverage", "recording_id", "recordings", is_drawn=False),
    Link("words", "segment_id", "segments"),
    Link("mentions(…)", "segment_id", "segments"),
    Link("corrections", "segment_id", "segments"),
    Link("corrections", "recording_id", "recordings", is_drawn=False),
    Link("attempts", "segment_id", "segments"),
    Link("attempts", "recording_id", "recordings", is_drawn=False),
    Link("quality_scores", "run_id", "quality_runs"),
    Link("quality_daily", "run_id", "quality_runs"),
)
LEFT_OUT = {
    "all_segments": "as `segments`, of every transcript and not the current ones only; `is_current` tells them apart",
}
"""Views that the picture leaves out, and why nothing is lost."""

STYLE = """
  svg { color-scheme: light dark; }
  text { font: 13px system-ui, "Noto Sans", "DejaVu Sans", sans-serif; fill: #1c2431; }
  .page, .body { fill: #fffffe; } .frame { fill: none; stroke: #5a6676; } .head { fill: #dbe8f2; }
  .name { font-weight: 600; font-size: 14.5px; } .row { font-size: 11.5px; fill: #465264; }
  .key { font-weight: 600; } .link, .more { fill: #465264; } .type { fill: #5a6676; font-size: 11.5px; }
  .line { fill: none; stroke: #0b5c8b; stroke-width: 1.6; }
  .halo { fill: none; stroke: #fffffe; stroke-width: 6; } .group { font-size: 12.5px; fill: #465264; }
  .rule { stroke: #dde2e9; stroke-width: 1; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6eaf0; } .page { fill: #14181f; } .body { fill: #1b212a; } .head { fill: #263a4b; }
    .frame { stroke: #8b97a8; }
    .row, .link, .more, .type, .group { fill: #b4bfcd; } .line { stroke: #7cc0ec; } .halo { stroke: #14181f; }
    .rule { stroke: #333c48; }
  }
"""
"""Its own paper, in both schemes: a picture in a page does not know what lies behind it."""


@dataclass(frozen=True)
class _Row:
    name: str
    note: str
    is_key: bool
    parent: str | None


@dataclass(frozen=True)
class _Box:
    relation: Relation
    x: float
    y: float
    rows: tuple[_Row, ...]
    n_more: int

    @property
    def height(self) -> float:
        return HEAD_HEIGHT + ROW_HEIGHT * (len(self.rows) + (self.n_more > 0)) + 8

    def row_y(self, name: str) -> float:
        """Middle of a row."""
        index = next(index for index, row in enumerate(self.rows) if row.name == name)
        return self.y + HEAD_HEIGHT + ROW_HEIGHT * (index + 0.5) + 4


def picture(views: Sequence[View], functions: Sequence[Function]) -> str:
    """The picture as SVG.

    Raises:
        ValueError: a view is missing here, or a declared view or column is missing in the schema.
    """
    columns = _columns(views, functions)
    boxes = _boxes(columns)
    bottom = max(box.y + box.height for box in boxes.values())
    width, height = LEFT * 2 + COLUMN_STEP * 3 + BOX_WIDTH, bottom + 26
    quality_y = boxes["quality_runs"].y - 16
    drawn = [_lines(boxes, parent) for parent in dict.fromkeys(link.parent for link in LINKS)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" '
            f'height="{height:g}" role="img" aria-labelledby="title desc">',
            '<title id="title">How the views of schema archive hang together</title>',
            f'<desc id="desc">{escape(description())}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height:g}" rx="10"/>',
            f'<line class="rule" x1="{LEFT}" x2="{width - LEFT}" y1="{quality_y - 22:g}" y2="{quality_y - 22:g}"/>',
            f'<text class="group" x="{LEFT}" y="{quality_y - 1:g}">Quality, night by night</text>',
            *drawn,
            *(line for box in boxes.values() for line in _drawn_box(box)),
            "</svg>",
            "",
        ]
    )  # fmt: skip


def description() -> str:
    """The picture in words."""
    return " ".join(
        f"{link.child} lead to {link.parent} by {link.column}." for link in LINKS if link.is_drawn
    )


def _columns(views: Sequence[View], functions: Sequence[Function]) -> dict[str, list[str]]:
    found = {view.name: [column.name for column in view.columns] for view in views}
    declared = {relation.name for relation in RELATIONS} | set(LEFT_OUT)
    if unknown := set(found) - declared:
        raise ValueError(
            f"tests/sql_docs/relations.py names no place for archive.{', archive.'.join(sorted(unknown))}"
        )
    for function in functions:
        found[f"{function.name}(…)"] = [column.name for column in function.columns]
    for relation in RELATIONS:
        wanted = {
            *relation.key,
            *relation.shown,
            *(link.column for link in LINKS if link.child == relation.name),
        }
        if missing := wanted - set(found.get(relation.name, ())):
            raise ValueError(f"archive.{relation.name} has no column {', '.join(sorted(missing))}")
    return found


def _boxes(columns: dict[str, list[str]]) -> dict[str, _Box]:
    boxes: dict[str, _Box] = {}
    is_quality = {relation.name: relation.name.startswith("quality") for relation in RELATIONS}
    for wanted in (False, True):
        start = max((box.y + box.height for box in boxes.values()), default=TOP - GAP - 40) + 40 + GAP
        ends = [start] * 4
        for relation in RELATIONS:
            if is_quality[relation.name] != wanted:
                continue
            parents = {link.column: link.parent for link in LINKS if link.child == relation.name}
            names = [*relation.key, *parents, *relation.shown]
            rows = tuple(_Row(n, "", n in relation.key, parents.get(n)) for n in names)
            n_more = len(set(columns[relation.name]) - set(names))
            box = _Box(relation, LEFT + COLUMN_STEP * relation.place, ends[relation.place], rows, n_more)
            boxes[relation.name] = box
            ends[relation.place] = box.y + box.height + GAP
    return boxes


def _drawn_box(box: _Box) -> list[str]:
    x, y = box.x, box.y
    dash = ' stroke-dasharray="5 3"' if box.relation.name.endswith("(…)") else ""
    body = box.height - HEAD_HEIGHT - RADIUS
    lines = [
        f'<rect class="head" x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{box.height:g}" rx="{RADIUS}"/>',
        f'<path class="body" d="M{x:g} {y + HEAD_HEIGHT:g} h{BOX_WIDTH} v{body:g} q0 {RADIUS} {-RADIUS} {RADIUS} '
        f'h{2 * RADIUS - BOX_WIDTH} q{-RADIUS} 0 {-RADIUS} {-RADIUS} z"/>',
        f'<rect class="frame" x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{box.height:g}" rx="{RADIUS}"{dash}/>',
        f'<text class="name" x="{x + 12:g}" y="{y + 19:g}">{escape(box.relation.name)}</text>',
        f'<text class="row" x="{x + 12:g}" y="{y + 36:g}">{escape(box.relation.row)}</text>',
    ]
    for index, row in enumerate(box.rows):
        at = y + HEAD_HEIGHT + ROW_HEIGHT * index + 18
        css = ' class="key"' if row.is_key else ""
        lines.append(f'<text{css} x="{x + 12:g}" y="{at:g}">{escape(row.name)}</text>')
        if row.is_key or row.parent:
            note = "key" if row.is_key else f"→ {row.parent}"
            lines.append(
                f'<text class="type" x="{x + BOX_WIDTH - 12:g}" y="{at:g}" text-anchor="end">{note}</text>'
            )
    if box.n_more:
        at = y + HEAD_HEIGHT + ROW_HEIGHT * len(box.rows) + 18
        lines.append(f'<text class="type" x="{x + 12:g}" y="{at:g}">and {box.n_more} more</text>')
    return lines


def _lines(boxes: dict[str, _Box], parent: str) -> str:
    """All lines to one parent: they meet each other, and pass over those of other parents."""
    paths = [_line(boxes, link) for link in LINKS if link.parent == parent and link.is_drawn]
    halo, line = (" ".join(parts) for parts in zip(*paths, strict=True))
    return f'<path class="halo" d="{halo}"/><path class="line" d="{halo} {line}"/>'


def _line(boxes: dict[str, _Box], link: Link) -> tuple[str, str]:
    """From the child's row to the parent's key, and its ends: a fork at the child (many), a bar at the parent (one)."""
    child, parent = boxes[link.child], boxes[link.parent]
    y1 = child.row_y(link.column)
    y2 = parent.row_y(link.column)
    if child.x == parent.x:  # below each other: round the left side
        x, out = child.x, child.x - 14
        path = f"M{x:g} {y1:g} H{out:g} V{y2:g} H{x:g}"
        ends = f"M{x:g} {y1 - 5:g} L{x - 9:g} {y1:g} L{x:g} {y1 + 5:g} M{x - 6:g} {y2 - 5:g} V{y2 + 5:g}"
    else:
        x1, x2 = child.x, parent.x + BOX_WIDTH
        y2 = y1 if abs(y1 - y2) < 4 else y2  # no jog of two points
        lanes = [
            each
            for each in LINKS
            if each.is_drawn and boxes[each.parent].x + BOX_WIDTH == x2 and boxes[each.child].x > x2
        ]
        parents = list(dict.fromkeys(each.parent for each in lanes))
        lane = x2 + 22 + 16 * parents.index(link.parent)
        path = f"M{x1:g} {y1:g} H{lane:g} V{y2:g} H{x2:g}"
        ends = f"M{x1:g} {y1 - 5:g} L{x1 - 9:g} {y1:g} L{x1:g} {y1 + 5:g} M{x2 + 6:g} {y2 - 5:g} V{y2 + 5:g}"
    return path, ends


def table() -> str:
    """The same for those who do not see the picture, or search the page: a view a line."""
    lines = ["| view | one row is | key | leads to |", "|---|---|---|---|"]
    for relation in RELATIONS:
        leads = [f"`{link.column}` → `{link.parent}`" for link in LINKS if link.child == relation.name]
        key = ", ".join(f"`{name}`" for name in relation.key)
        lines.append(f"| `{relation.name}` | {relation.row} | {key} | {', '.join(leads)} |")
    lines += [f"| `{name}` | {told} | | |" for name, told in LEFT_OUT.items()]
    return "\n".join(lines)
