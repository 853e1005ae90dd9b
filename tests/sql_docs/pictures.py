"""Pictures of cookbook answers: SVG on their own paper, in light and dark, told by place and hatching before colour.

The house style of the nightly report's pictures: text stays text, colours are the page's variables, and the same rows
give the same bytes. The rows themselves stand in the picture's description, to be read aloud and to be tested.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from db.settings import PROJECT_ROOT
from evaluation.report.pictures import (
    BAD,
    BAND,
    FONTS,
    GRID,
    LINE,
    PAPER,
    QUIET,
    SETTINGS,
    SVG,
    TEXT,
    VARIABLES,
)
from tests.sql_docs.cookbook import Answer, Recipe

FOLDER = PROJECT_ROOT / "docs" / "pictures"
WIDTH_IN = 7.2
SCALE = 1.4
"""Shown larger than drawn: letters of 11 points are 15 pixels high in a page."""
DARK = {
    TEXT: "#e6eaf0",
    QUIET: "#b4bfcd",
    GRID: "#333c48",
    BAND: "#24506e",
    LINE: "#7cc0ec",
    BAD: "#ff8a80",
    PAPER: "#14181f",
}
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"


def picture(recipe: Recipe, found: Answer) -> str:
    """The picture of an answer as SVG; `recipe.picture` names which."""
    draw = DRAWN[recipe.picture or ""]
    with mpl.rc_context(SETTINGS | {"font.size": 11}):
        figure = draw(found)
        return _svg(figure, recipe.title, description(found))


def description(found: Answer) -> str:
    """All rows in words."""
    return "; ".join(
        ", ".join(f"{name} {value}" for name, value in zip(found.columns, row, strict=True))
        for row in found.rows
    )


def _mentions_per_month(found: Answer) -> Figure:
    counts = {(month, programme): n for month, programme, n in found.rows}
    months = _months([month for month, _ in counts])
    programmes = sorted({programme for _, programme in counts})
    highest = max(counts.values())
    figure, rows = _figure(2.9, len(programmes), left_in=0.55)
    for axes, programme in zip(rows, programmes, strict=True):
        values = [counts.get((month, programme), 0) for month in months]
        axes.bar(range(len(months)), values, width=0.6, color=BAND, edgecolor=LINE, linewidth=1.0)
        for place, value in enumerate(values):
            axes.annotate(
                str(value), (place, value), xytext=(0, 2), textcoords="offset points", ha="center",
                color=TEXT if value else QUIET, fontsize=10,
            )  # fmt: skip
        axes.set_ylim(0, highest * 1.45)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", length=0, labelbottom=axes is rows[-1])
        axes.set_title(programme, loc="left", fontsize=11, color=TEXT, pad=-6)
    rows[-1].set_xticks(range(len(months)), months)
    return figure


def _months(found: Sequence[str]) -> list[str]:
    """All months from the first to the last, those without a row too."""
    first, last = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (min(found), max(found)))
    return [f"{number // 12}-{number % 12 + 1:02d}" for number in range(first, last + 1)]


def _no_speech_by_decade(found: Answer) -> Figure:
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    figure, (axes,) = _figure(2.7, 1, left_in=0.95, top_in=0.42)
    ends = [0.0] * len(rows)
    places = list(range(len(rows)))[::-1]
    for column, label, style in (
        ("transcribed_percent", "speech, transcribed", {"facecolor": LINE}),
        ("no_speech_percent", "no speech: silence, music, noise", {"facecolor": BAND}),
        (
            "failed_percent",
            "failed",
            {"facecolor": PAPER, "edgecolor": BAD, "hatch": "/////", "linewidth": 0.8},
        ),
    ):
        values = [float(row[column]) for row in rows]
        kept = [index for index, value in enumerate(values) if value]
        axes.barh(
            [places[i] for i in kept], [values[i] for i in kept], left=[ends[i] for i in kept], height=0.62,
            label=label, **style,
        )  # fmt: skip
        for i in kept:
            if column != "failed_percent" and values[i] > 8:
                axes.text(
                    ends[i] + values[i] / 2, places[i], f"{rows[i][column]} %", ha="center", va="center",
                    color=PAPER if column == "transcribed_percent" else TEXT,
                )  # fmt: skip
        ends = [end + value for end, value in zip(ends, values, strict=True)]
    axes.set_yticks(places, [f"{row['decade']}\n{row['minutes']} min" for row in rows], fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    figure.legend(
        loc="upper left", bbox_to_anchor=(0.85 / WIDTH_IN, 1.0), ncols=3, frameon=False, handlelength=1.4,
        columnspacing=1.4, fontsize=10.5, borderaxespad=0.3,
    )  # fmt: skip
    return figure


def _speech_rate(found: Answer) -> Figure:
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    units = list(dict.fromkeys(row["unit"] for row in rows))
    ratios = [float(sum(row["unit"] == unit for row in rows)) for unit in units]
    figure, all_axes = _figure(4.4, len(units), left_in=1.55, ratios=ratios, bottom_in=0.55)
    highest = max(float(row["words_per_minute"]) for row in rows)
    for axes, unit in zip(all_axes, units, strict=True):
        chosen = [row for row in rows if row["unit"] == unit]
        places = list(range(len(chosen)))[::-1]
        values = [float(row["words_per_minute"]) for row in chosen]
        axes.hlines(places, 0, values, color=GRID, linewidth=1.2)
        axes.plot(values, places, linestyle="none", marker="o", markersize=6.5, color=LINE)
        for place, row, value in zip(places, chosen, values, strict=True):
            axes.annotate(
                f"{row['words_per_minute']}", (value, place), xytext=(8, 0), textcoords="offset points",
                va="center", fontsize=10, color=TEXT,
            )  # fmt: skip
        axes.set_yticks(places, [row["name"] for row in chosen], fontsize=10.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.7, len(chosen) - 0.3)
        axes.set_xlim(0, highest * 1.12)
        axes.set_ylabel(unit, labelpad=4)
        axes.yaxis.set_label_coords(-1.36 / (WIDTH_IN - 1.7), 0.5)
        axes.tick_params(axis="x", labelbottom=axes is all_axes[-1])
        if axes is not all_axes[-1]:
            axes.spines["bottom"].set_color(GRID)
            axes.tick_params(axis="x", length=0)
    all_axes[-1].set_xlabel("words per minute of speech")
    return figure


def _wer_over_time(found: Answer) -> Figure:
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    sets = sorted({row["held_out_set"] for row in rows})
    models = sorted({row["model"] for row in rows})
    nights = sorted({row["night"] for row in rows})
    highest = max(float(row["high"]) for row in rows)
    figure, all_axes = _figure(4.2, len(sets), left_in=0.75, top_in=0.62)
    for axes, name in zip(all_axes, sets, strict=True):
        for model, marker, colour in zip(models, "osD^", (LINE, BAD, TEXT, QUIET), strict=False):
            chosen = [row for row in rows if row["held_out_set"] == name and row["model"] == model]
            places = [nights.index(row["night"]) for row in chosen]
            axes.vlines(
                places,
                [float(row["low"]) for row in chosen],
                [float(row["high"]) for row in chosen],
                color=colour,
            )
            axes.plot(
                places, [float(row["wer_percent"]) for row in chosen], linestyle="none", marker=marker, markersize=6.5,
                color=colour, label=model if axes is all_axes[0] else None,
            )  # fmt: skip
            for place, row in zip(places, chosen, strict=True):
                axes.annotate(
                    f"{row['wer_percent']}", (place, float(row["wer_percent"])), xytext=(9, 0), va="center",
                    textcoords="offset points", fontsize=10, color=TEXT,
                )  # fmt: skip
        axes.set_title(name, loc="left", fontsize=11, color=TEXT, pad=5)
        axes.set_xlim(-0.4, len(nights) - 0.4)
        axes.set_ylim(0, highest * 1.08)
        axes.set_yticks([0, 5, 10, 15], ["0 %", "5 %", "10 %", "15 %"])
        axes.set_xticks(range(len(nights)), [str(night) for night in nights])
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(axis="x", length=0, labelbottom=axes is all_axes[-1])
    figure.legend(
        loc="upper left", bbox_to_anchor=(0.65 / WIDTH_IN, 1.0), ncols=len(models), frameon=False, handlelength=1.0,
        columnspacing=1.4, fontsize=10.5, borderaxespad=0.3,
    )  # fmt: skip
    return figure


DRAWN: dict[str, Callable[[Answer], Figure]] = {
    "mentions-per-month": _mentions_per_month,
    "no-speech-by-decade": _no_speech_by_decade,
    "speech-rate": _speech_rate,
    "wer-over-time": _wer_over_time,
}


def _figure(
    height_in: float,
    n_rows: int,
    *,
    left_in: float,
    top_in: float = 0.3,
    bottom_in: float = 0.35,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH_IN, height_in))
    grid = figure.add_gridspec(
        n_rows, 1, left=left_in / WIDTH_IN, right=1 - 0.3 / WIDTH_IN, top=1 - top_in / height_in,
        bottom=bottom_in / height_in, hspace=0.35 if ratios is None else 0.12, height_ratios=ratios,
    )  # fmt: skip
    return figure, [figure.add_subplot(grid[number, 0]) for number in range(n_rows)]


def _svg(figure: Figure, title: str, desc: str) -> str:
    """The figure on its own paper, its colours as variables with a set for dark pages."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag.endswith("}metadata"):
            root.remove(child)
    for element in root.iter():
        if (target := element.attrib.pop(XLINK_HREF, None)) is not None:
            element.set("href", target)
        for attribute, value in element.attrib.items():
            value = re.sub(r"(font(?:-family)?: [^;]*?)'DejaVu Sans'[^;]*", rf"\1{FONTS}", value)
            element.set(attribute, re.sub("#[0-9a-f]{6}", lambda found: _variable(found[0]), value))
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.update(
        {
            "role": "img",
            "aria-labelledby": "title desc",
            "width": f"{float(width) * SCALE:g}",
            "height": f"{float(height) * SCALE:g}",
        }
    )
    head: list[tuple[str, dict[str, str], str]] = [
        ("title", {"id": "title"}, title),
        ("desc", {"id": "desc"}, desc),
        ("style", {}, _style()),
        ("rect", {"width": width, "height": height, "rx": "8", "style": f"fill: {_variable(PAPER)}"}, ""),
    ]
    for index, (tag, attributes, words) in enumerate(head):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", attributes)
        element.text = words or None
        root.insert(index, element)
    lines = ElementTree.tostring(root, encoding="unicode").splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _style() -> str:
    def listed(colours: dict[str, Any]) -> str:
        return " ".join(f"{VARIABLES[light]}: {shown};" for light, shown in colours.items())

    return (
        f"svg {{ color-scheme: light dark; {listed({light: light for light in DARK})} }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {listed(DARK)} }} }}"
    )


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]}, {colour})" if colour in DARK else colour
