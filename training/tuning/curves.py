"""The learning curves of a run as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LINE, SECOND, QUIET, GRID = "#0b5c8b", "#b3261f", "#5a6676", "#dde2e9"


def draw_curves(history: Sequence[Mapping[str, Any]], file: Path, *, title: str) -> None:
    """Draw loss and error rates by optimizer step into a PNG file.

    Args:
        history: the Trainer's log: dicts with `step`, and `loss` or `eval_wer`, `eval_cer`.
    """
    figure = Figure(figsize=(8, 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes_loss, axes_rates = figure.subplots(1, 2)
    _draw(axes_loss, history, (("loss", "loss", LINE, ""),), "training loss per token")
    rates = (("eval_wer", "words (WER)", LINE, "o"), ("eval_cer", "characters (CER)", SECOND, "s"))
    _draw(axes_rates, history, rates, "error rate on the validation sample, %", scale=100)
    figure.suptitle(title, fontsize=11, color="#1c2431")
    # no date or version inside: the same run gives the same picture
    figure.savefig(file, format="png", metadata={"Software": None})


def _draw(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    series: Sequence[tuple[str, str, str, str]],
    title: str,
    *,
    scale: float = 1,
) -> None:
    for key, label, colour, marker in series:
        points = [(line["step"], line[key] * scale) for line in history if key in line]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=label, lw=1.4
            )
    axes.set_title(title, fontsize=9, color="#1c2431", loc="left")
    axes.set_xlabel("optimizer step", fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET)
    axes.grid(color=GRID, lw=0.6)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.lines) > 1:
        axes.legend(fontsize=8, frameon=False)
