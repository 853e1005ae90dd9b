"""The pictures of docs/evaluation.md, from what `simulate_drift` found. They read in grey print too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Picture

from tests.benchmarks.simulate_drift import (
    COVERAGE,
    DRIFT_EFFECTS,
    FIXED_EFFECTS,
    N_CLUSTERS,
    STABLE,
    Figure,
    Outcomes,
)

STYLE = {
    "svg.hashsalt": "fonoteca",  # the same file from the same figures
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
LINES = (("#10253f", "-", "o"), ("#8a3b12", "--", "s"), ("#2f7d4f", "-.", "^"), ("#8c8c8c", ":", "D"))
"""Colour, line and marker: each tells the lines apart by itself."""


def write_pictures(outcomes: Outcomes, found: Sequence[Figure], folder: Path) -> list[Path]:
    """Write the four pictures as SVG; returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        pictures = {
            "power-fixed-set": _power(
                outcomes,
                "fixed",
                FIXED_EFFECTS,
                (1, 2, 7, 14),
                "Fixed set of 1,710 utterances, all decoded anew",
            ),
            "power-drift": _power(
                outcomes, "drift", DRIFT_EFFECTS, (7, 14, 28), "Drift, 100 corrected segments a night"
            ),
            "false-alarms": _false_alarms(found),
            "coverage": _coverage(found),
        }
        files = []
        for name, picture in pictures.items():
            files.append(folder / f"{name}.svg")
            picture.savefig(files[-1], format="svg", metadata={"Date": None})
            # matplotlib leaves blanks at the ends of lines
            text = files[-1].read_text(encoding="utf-8")
            files[-1].write_text(
                "\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8"
            )
    return files


def _axes(width: float = 6.4, height: float = 3.6) -> tuple[Picture, Any]:
    picture = Picture(figsize=(width, height), layout="constrained")
    return picture, picture.subplots()


def _power(
    outcomes: Outcomes, kind: str, effects: Sequence[float], within: Sequence[int], title: str
) -> Picture:
    picture, axes = _axes()
    for nights, (colour, line, marker) in zip(within, LINES, strict=False):
        shares = [100 * np.mean(outcomes[f"power/{kind}/{effect}"][:, 0] <= nights) for effect in effects]
        axes.plot(
            [100 * effect for effect in effects],
            shares,
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4,
            label=f"within {nights} night{'s' if nights > 1 else ''}",
        )
    axes.set(title=title, xlabel="more errors than before, %", ylabel="alarmed, % of trials", ylim=(-2, 102))
    axes.legend(frameon=False)
    return picture


def _false_alarms(found: Sequence[Figure]) -> Picture:
    picture, axes = _axes(height=3.2)
    names = list(STABLE)
    for (verdict, offset), (colour, _, marker) in zip(
        (("regressed", -0.12), ("improved", 0.12)), LINES, strict=False
    ):
        rows = [
            figure
            for name in names
            for figure in found
            if figure.what == f"false `{verdict}` in 1,000 stable nights: {name}"
        ]
        axes.errorbar(
            [row.value for row in rows],
            [index + offset for index in range(len(rows))],
            xerr=[2 * row.error for row in rows],
            color=colour,
            marker=marker,
            linestyle="none",
            capsize=3,
            label=verdict,
        )
    axes.axvline(5, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="alarms in 1,000 stable nights (dashed: allowed)", xlim=(-0.2, 6))
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.82, 1))
    return picture


def _coverage(found: Sequence[Figure]) -> Picture:
    picture, axes = _axes()
    axes.axhspan(93, 97, color="#eeeeee")
    axes.axhline(95, color="black", linewidth=0.8)
    for index, (name, (colour, line, marker)) in enumerate(zip(COVERAGE, LINES, strict=True)):
        rows = [figure for figure in found if figure.what.startswith(f"intervals hold the truth: {name},")]
        axes.errorbar(
            [position + 0.08 * (index - 1.5) for position in range(len(rows))],
            [100 * row.value for row in rows],
            yerr=[200 * row.error for row in rows],
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4,
            capsize=2,
            label=name,
        )
    axes.set_xticks(range(len(N_CLUSTERS)), [str(n) for n in N_CLUSTERS])
    axes.set(
        title="95 % intervals that hold the truth (grey: 93 to 97 %)",
        xlabel="speakers in the set",
        ylabel="% of trials",
        ylim=(89, 99),
    )
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return picture
