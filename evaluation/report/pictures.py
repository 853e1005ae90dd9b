"""The report's pictures: SVG that stands inside a page, follows its colours, and reads in grey print.

What colour tells is told by shape too: a marker for each verdict, line styles for what is compared. Text stays text
(`svg.fonttype: none`): it can be read aloud, searched and copied, and takes the page's font. The same document gives
the same bytes: no dates, a fixed salt for ids. Drawn on figures of their own, without pyplot, whose state is shared.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evaluation.report.document import BinRow, DriftReport, NightPoint, SetReport
from evaluation.report.sentences import Language
from evaluation.report.words import Words

WIDTH_IN, HEIGHT_IN = 5.3, 3.7
"""At 72 points an inch the picture's own units are CSS pixels: 382 wide, so that text stays readable on a phone."""
FONT_PT = 10.5
FONTS = 'system-ui, "Noto Sans", "DejaVu Sans", sans-serif'

# Each colour stands for one of the page's, which has a dark set too; the value counts where the picture stands alone.
TEXT, QUIET, GRID, BAND, LINE, BASE, BAD, GOOD, WARN, PAPER, HATCH = (
    "#1c2431", "#5a6676", "#dde2e9", "#c9dcea", "#0b5c8b", "#333a44", "#b3261f", "#2e7d50", "#8a5a01", "#fffffe",
    "#b3bcc9",
)  # fmt: skip
VARIABLES = {
    TEXT: "--text",
    QUIET: "--quiet",
    GRID: "--line",
    BAND: "--band",
    LINE: "--link",
    BASE: "--base",
    BAD: "--bad",
    GOOD: "--good",
    WARN: "--warn",
    PAPER: "--card",
    HATCH: "--hatch",
}


@dataclass(frozen=True)
class Marker:
    """How a verdict is drawn, here and in the page's badges."""

    shape: str
    """matplotlib's name."""
    colour: str
    is_filled: bool
    size: float


MARKERS = {
    "ok": Marker("o", LINE, True, 3.2),
    "watch": Marker("D", WARN, False, 5.5),
    "regressed": Marker("^", BAD, True, 8.0),
    "improved": Marker("v", GOOD, True, 7.0),
}

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fonoteca",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT_PT,
    "text.color": TEXT,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "hatch.linewidth": 0.6,
}


@contextmanager
def _figure(
    rows: Sequence[float], height_in: float = HEIGHT_IN, *, top_in: float = 0.34, bottom_in: float = 0.3
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Rows of axes over each other. Margins are fixed: measuring every text first takes 1.6 times as long."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, height_in))
        grid = figure.add_gridspec(
            len(rows),
            1,
            height_ratios=list(rows),
            hspace=0.1,
            left=0.78 / WIDTH_IN,
            right=1 - 0.28 / WIDTH_IN,
            top=1 - top_in / height_in,
            bottom=bottom_in / height_in,
        )
        axes: list[Axes] = []
        for index in range(len(rows)):
            axes.append(figure.add_subplot(grid[index, 0], sharex=axes[0] if axes else None))
        for each in axes:
            each.yaxis.set_label_coords(-0.125, 0.5)
        yield figure, axes


# --- nights ----------------------------------------------------------------------------------------------


def set_chart(report: SetReport, words: Words, chart_limit: float, name: str) -> str:
    """A set's word error rate night by night, with the chart that judges it."""
    return _nights_chart(
        report.history,
        words,
        name=name,
        title=report.name,
        verdict=words.verdict_name(report.verdict),
        chart_limit=chart_limit,
        reference=words("chart.baseline"),
    )


def drift_chart(report: DriftReport, words: Words, chart_limit: float, name: str) -> str:
    """Production's word error rate: each night's corrections, and the rolling window."""
    return _nights_chart(
        report.history,
        words,
        name=name,
        title=words("subject.production"),
        verdict=words.verdict_name(report.verdict),
        chart_limit=chart_limit,
        reference=words("chart.expected"),
        drift=report,
    )


def _nights_chart(
    points: Sequence[NightPoint],
    words: Words,
    *,
    name: str,
    title: str,
    verdict: str,
    chart_limit: float,
    reference: str,
    drift: DriftReport | None = None,
) -> str:
    measured = [point for point in points if point.wer is not None]
    if not measured:
        return ""
    with _figure([2.6, 1]) as (figure, (upper, lower)):
        if drift is None:
            _draw_wer(upper, points, reference)
        else:
            _draw_drift(upper, points, drift, words, reference)
        _draw_gaps(upper, points)
        _draw_verdicts(upper, measured)
        _draw_changes(upper, points, words)
        upper.set_ylabel(words("chart.wer"))
        upper.yaxis.set_major_formatter(_decimals(words))
        upper.yaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
        upper.tick_params(labelbottom=False)
        upper.grid(axis="y")
        upper.margins(y=0.12)
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.55 / WIDTH_IN, 1.0), ncols=3, frameon=False,
            fontsize=FONT_PT, handlelength=2.2, columnspacing=1.2, borderaxespad=0.1,
        )  # fmt: skip
        _draw_sums(lower, points, words, chart_limit)
        _date_axis(lower, points, words)
        rates = [point.wer for point in measured if point.wer is not None]
        desc = words(
            "chart.desc",
            first=words.date(points[0].night),
            last=words.date(points[-1].night),
            n=words.whole(len(measured)),
            low=words.percent(min(rates)),
            high=words.percent(max(rates)),
            wer=words.percent(measured[-1].wer),
            baseline=words.percent(measured[-1].baseline_wer),
            verdict=verdict,
        )
        return _svg(figure, name, words("chart.title", name=title), desc)


def _stretches(points: Sequence[NightPoint]) -> list[list[NightPoint]]:
    """Nights measured one after another: a line must not run over a gap, nor from one baseline to the next."""
    found: list[list[NightPoint]] = [[]]
    for point in points:
        if point.is_new_baseline or point.wer is None:
            found.append([])
        if point.wer is not None:
            found[-1].append(point)
    return [stretch for stretch in found if stretch]


def _days(points: Sequence[NightPoint]) -> list[float]:
    return [_day(point.night) for point in points]


def _day(night: dt.date) -> float:
    return float(night.toordinal())


def _percent(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else 100 * value for value in values]


def _draw_wer(axes: Axes, points: Sequence[NightPoint], reference: str) -> None:
    for number, stretch in enumerate(_stretches(points)):
        days = _days(stretch)
        if len(days) == 1:  # a band needs some width to be seen
            low, high = stretch[0].low, stretch[0].high
            if low is not None and high is not None:
                axes.plot(
                    [days[0]] * 2, _percent([low, high]), color=BAND, linewidth=4, solid_capstyle="butt"
                )
        else:
            axes.fill_between(
                days,
                _percent([point.low for point in stretch]),
                _percent([point.high for point in stretch]),
                color=BAND,
                linewidth=0,
            )
        axes.plot(
            _wide(days), _widened([point.baseline_wer for point in stretch]), color=BASE, linestyle=(0, (5, 3)),
            linewidth=1.3, label=None if number else reference,
        )  # fmt: skip
        axes.plot(
            days, _percent([point.wer for point in stretch]), color=LINE, linewidth=1.6,
            label=None if number else "WER",
        )  # fmt: skip


def _wide(days: Sequence[float]) -> list[float]:
    """Half a day to both sides, so that a single night has a line too."""
    return [days[0] - 0.5, *days, days[-1] + 0.5]


def _widened(values: Sequence[float | None]) -> list[float]:
    return _percent([values[0], *values, values[-1]])


def _draw_drift(
    axes: Axes, points: Sequence[NightPoint], report: DriftReport, words: Words, reference: str
) -> None:
    measured = [point for point in points if point.wer is not None]
    ranges = [point for point in measured if point.low is not None and point.high is not None]
    axes.vlines(
        _days(ranges),
        _percent([point.low for point in ranges]),
        _percent([point.high for point in ranges]),
        color=BAND,
        linewidth=2.6,
        label=words("interval_95"),
    )
    axes.plot(
        _days(measured), _percent([point.wer for point in measured]), linestyle="none", marker=".", markersize=4,
        color=QUIET,
    )  # fmt: skip
    rolling = {point.night: point for point in report.rolling}
    for number, stretch in enumerate(_stretches_between_models(points)):
        kept = [rolling[point.night] for point in stretch if point.night in rolling]
        days = [_day(point.night) for point in kept]
        axes.plot(
            days, _percent([point.expected for point in kept]), color=BASE, linestyle=(0, (5, 3)), linewidth=1.3,
            label=None if number else reference,
        )  # fmt: skip
        axes.plot(
            days, _percent([point.wer for point in kept]), color=LINE, linewidth=1.8,
            label=None if number else words("chart.rolling", n=report.window_days),
        )  # fmt: skip


def _stretches_between_models(points: Sequence[NightPoint]) -> list[list[NightPoint]]:
    found: list[list[NightPoint]] = [[]]
    for point in points:
        if point.is_new_baseline or point.is_new_model:
            found.append([])
        found[-1].append(point)
    return [stretch for stretch in found if stretch]


def _draw_verdicts(axes: Axes, measured: Sequence[NightPoint]) -> None:
    for verdict, marker in MARKERS.items():
        chosen = [point for point in measured if point.verdict == verdict]
        if chosen:
            axes.plot(
                _days(chosen), _percent([point.wer for point in chosen]), linestyle="none", marker=marker.shape,
                markersize=marker.size, markerfacecolor=marker.colour if marker.is_filled else PAPER,
                markeredgecolor=marker.colour if not marker.is_filled else PAPER,
                markeredgewidth=1.3 if not marker.is_filled else 0.5, zorder=4, clip_on=False,
            )  # fmt: skip


def _draw_gaps(axes: Axes, points: Sequence[NightPoint]) -> None:
    for point in points:
        if point.wer is None:
            day = _day(point.night)
            axes.axvspan(day - 0.5, day + 0.5, facecolor="none", edgecolor=HATCH, hatch="////", linewidth=0)


def _draw_changes(axes: Axes, points: Sequence[NightPoint], words: Words) -> None:
    """A line where the model or the baseline changed, with its name at the top, on the side that has room."""
    marks = [
        (point.night, words("chart.new_model" if point.is_new_model else "chart.new_baseline"))
        for point in points
        if point.is_new_model or point.is_new_baseline
    ]
    middle = _day(points[0].night) + (_day(points[-1].night) - _day(points[0].night)) / 2
    for number, (night, label) in enumerate(marks[-3:]):
        day = _day(night) - 0.5
        axes.axvline(day, color=QUIET, linestyle=(0, (1, 2)), linewidth=1.1)
        is_right = day < middle
        axes.annotate(
            label, (day, 1 - 0.09 * (number % 3)), xycoords=("data", "axes fraction"),
            xytext=(3 if is_right else -3, -1), textcoords="offset points", ha="left" if is_right else "right",
            va="top", fontsize=FONT_PT - 1, color=QUIET,
        )  # fmt: skip


def _draw_sums(axes: Axes, points: Sequence[NightPoint], words: Words, limit: float) -> None:
    up = [point for point in points if point.up]
    down = [point for point in points if point.down]
    axes.bar(_days(up), [point.up or 0.0 for point in up], width=0.9, color=BAD, linewidth=0)
    axes.bar(
        _days(down), [-(point.down or 0.0) for point in down], width=0.9, facecolor="none", edgecolor=GOOD,
        hatch="//////", linewidth=0.7,
    )  # fmt: skip
    for side in (limit, -limit):
        axes.axhline(side, color=BASE, linestyle=(0, (2, 2)), linewidth=1.0)
    axes.axhline(0, color=QUIET, linewidth=0.7)
    axes.set_ylim(-9.5, 9.5)
    axes.set_yticks([-limit, 0, limit], [words("chart.limit"), "0", words("chart.limit")])
    axes.set_ylabel(words("chart.cusum"))
    for height, key in ((0.97, "chart.up"), (0.03, "chart.down")):
        axes.annotate(
            words(key), (0.008, height), xycoords="axes fraction", ha="left",
            va="top" if height > 0.5 else "bottom", fontsize=FONT_PT - 1, color=QUIET,
        )  # fmt: skip


def _date_axis(axes: Axes, points: Sequence[NightPoint], words: Words) -> None:
    first, last = _day(points[0].night), _day(points[-1].night)
    axes.set_xlim(first - 0.7, last + 0.7)
    n_days = round(last - first) + 1
    gap = max(1, -(-n_days // 6))  # at most six labels, counted back from tonight
    ticks = [last - gap * number for number in range(n_days // gap + 1) if last - gap * number >= first]
    nights = [dt.date.fromordinal(round(tick)) for tick in ticks]
    axes.set_xticks(ticks, [_short_date(night, words) for night in nights])


def _short_date(night: dt.date, words: Words) -> str:
    if words.language is Language.EN:
        return f"{night.day} {words.month(night)[:3]}"
    return f"{night.day}/{night.month}"


def _decimals(words: Words) -> FuncFormatter:
    def write(value: float, _: int | None) -> str:
        digits = (
            0 if abs(value - round(value)) < 1e-9 else 1 if abs(10 * value - round(10 * value)) < 1e-9 else 2
        )
        return words.number(value, digits)

    return FuncFormatter(write)


# --- bars ------------------------------------------------------------------------------------------------


def bars(
    rows: Sequence[BinRow],
    words: Words,
    *,
    name: str,
    title: str,
    axis: str,
    scale: float,
    digits: Callable[[float], int] = lambda value: 0,
) -> str:
    """Word error rate of each bin with its interval. `scale` turns a bin's ends into what the axis names."""
    kept = [row for row in rows if row.n_utterances]
    if not kept or all(row.wer is None for row in kept):
        return ""
    labels = [_bin_name(row, words, scale) for row in kept]
    with _figure([1.0], 2.7, top_in=0.1, bottom_in=0.68) as (figure, (axes,)):
        values = _percent([row.wer for row in kept])
        places = list(range(len(kept)))
        axes.bar(places, values, width=0.66, color=BAND, edgecolor=LINE, linewidth=1.0)
        known = [
            index for index, row in enumerate(kept) if row.wer_low is not None and row.wer_high is not None
        ]
        low, high = _percent([row.wer_low for row in kept]), _percent([row.wer_high for row in kept])
        axes.vlines(known, [low[i] for i in known], [high[i] for i in known], color=TEXT, linewidth=1.4)
        axes.set_xticks(
            places,
            [f"{label}\n{words.whole(row.n_utterances)}" for label, row in zip(labels, kept, strict=True)],
            fontsize=FONT_PT - 0.5,
        )
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(axis)
        axes.set_ylabel(words("chart.wer"))
        axes.yaxis.set_major_formatter(_decimals(words))
        axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
        axes.set_ylim(0, _top(values, [high[i] for i in known]))
        axes.set_axisbelow(True)
        axes.grid(axis="y")
        told = "; ".join(
            f"{label}: {words.percent(row.wer)}" for label, row in zip(labels, kept, strict=True)
        )
        return _svg(figure, name, title, words("bars.desc", name=axis, values=told))


def _top(values: Sequence[float], ends: Sequence[float]) -> float:
    """Upper end of the axis: a wide interval of a few utterances must not press all others flat."""
    highest = max((value for value in values if value == value), default=1.0)
    return max(0.5, min(max([highest, *ends]) * 1.08, highest * 1.8))


def _bin_name(row: BinRow, words: Words, scale: float) -> str:
    if row.high is None:
        return f"≥ {words.whole(row.low * scale)}"
    return f"{words.whole(row.low * scale)}–{words.whole(row.high * scale)}"


# --- SVG -------------------------------------------------------------------------------------------------

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def _svg(figure: Figure, name: str, title: str, desc: str) -> str:
    """The figure as an `svg` element: named, described, its ids its own, its colours the page's."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib's own output
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata"):
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        if (own := element.get("id")) is not None:
            if own in used:
                element.set("id", f"{name}-{own}")
            else:
                del element.attrib["id"]
        for attribute in list(element.attrib):
            value = element.attrib[attribute]
            if attribute == f"{{{XLINK}}}href":
                del element.attrib[attribute]
                element.set("href", f"#{name}-{value[1:]}")
                continue
            value = re.sub(r"url\(#([\w-]+)\)", rf"url(#{name}-\1)", value)
            value = re.sub(r"(font(?:-family)?: [^;]*?)'DejaVu Sans'[^;]*", rf"\1{FONTS}", value)
            value = re.sub("#[0-9a-f]{6}", lambda found: _variable(found[0]), value)
            element.set(attribute, value)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for index, (tag, words) in enumerate((("title", title), ("desc", desc))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = words
        root.insert(index, element)
    return ElementTree.tostring(root, encoding="unicode")


def _variable(colour: str) -> str:
    name = VARIABLES.get(colour)
    return f"var({name}, {colour})" if name else colour
