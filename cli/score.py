"""`fonoteca score`: error rates of any two files, or which of two is better."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, count_text

if TYPE_CHECKING:
    from evaluation.compare import Comparison
    from evaluation.confusions import Confusion
    from evaluation.score import Rate, Score


class NormalizerName(StrEnum):
    """What is done to the texts before words are compared."""

    BASIC = "basic"
    GALICIAN = "galician"


@dataclass(frozen=True)
class Material:
    """The texts of one command, in the references' order."""

    refs: list[str]
    hyps: dict[str, list[str]]
    """By the name of their file: one set, or two to compare."""
    clusters: list[str | None] | None
    seed: int


@dataclass(frozen=True)
class Report:
    """Everything known with one normaliser."""

    normalizer: str
    scores: dict[str, Score]
    comparison: Comparison | None
    confusions: dict[str, tuple[Confusion, ...]]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score")(score_files)


def score_files(
    refs: Annotated[
        Path, typer.Argument(help="What was said: .jsonl, .csv or .tsv with id and text, or lines.")
    ],
    hyps: Annotated[Path, typer.Argument(help="What was written, in the same form.")],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[HYPS_B]", help="A second set, compared with the first.", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="Compare HYPS with this set.", show_default=False),
    ] = None,
    normalizer: Annotated[
        NormalizerName | None,
        typer.Option("--normalizer", help="Only this one. Unset: both, side by side.", show_default=False),
    ] = None,
    clusters: Annotated[
        Path | None,
        typer.Option(
            "--clusters",
            metavar="FILE",
            help="Speaker or programme of each utterance (id and cluster, or lines): intervals are over them.",
            show_default=False,
        ),
    ] = None,
    errors: Annotated[
        int, typer.Option("--errors", metavar="N", min=0, help="Show the N most frequent word errors.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one row a normaliser and set.")] = False,
) -> None:
    """Score what was written against what was said: word and character error rates with 95 % intervals.

    With a second set of hypotheses: which is better, by how much, and how surely.
    """
    if other is not None and against is not None:
        raise CliError("give the second set once: as a third file, or with --against")
    if as_json and as_csv:
        raise CliError("choose one of --json and --csv")
    from evaluation.counts import ScoreError
    from evaluation.utterance_files import UtteranceFileError

    sets = [path for path in (against, hyps, other) if path is not None]
    names = [normalizer.value] if normalizer else [name.value for name in NormalizerName]
    try:
        material = _read(refs, sets, clusters, seed)
        reports = [_report(material, name, errors) for name in names]
    except (ScoreError, UtteranceFileError) as error:
        raise CliError(str(error)) from error
    if as_json:
        Output(as_json).document(_document(reports))
    elif as_csv:
        _print_csv(reports)
    else:
        _print(material, reports)


def _read(refs: Path, sets: Sequence[Path], clusters: Path | None, seed: int) -> Material:
    from evaluation.utterance_files import match, read_utterances

    references = read_utterances(refs)
    hyps = {}
    for path in sets:
        name = str(path) if str(path) not in hyps else f"{path} (again)"
        hyps[name] = match(references, read_utterances(path))
    named = match(references, read_utterances(clusters, "cluster")) if clusters else None
    return Material(
        refs=list(references.values),
        hyps=hyps,
        clusters=[name.strip() or None for name in named] if named is not None else None,
        seed=seed,
    )


def _report(material: Material, name: str, n_errors: int) -> Report:
    from evaluation.compare import compare
    from evaluation.confusions import confusions
    from evaluation.normalizer import NORMALIZERS
    from evaluation.score import normalize_texts, score

    normalizer: Callable[[str], str] = NORMALIZERS[name]
    refs = normalize_texts(material.refs, normalizer)
    hyps = {path: normalize_texts(texts, normalizer) for path, texts in material.hyps.items()}
    options: dict[str, Any] = {"normalizer": str, "clusters": material.clusters, "seed": material.seed}
    return Report(
        normalizer=name,
        scores={path: score(refs, texts, **options) for path, texts in hyps.items()},
        comparison=compare(refs, *hyps.values(), **options) if len(hyps) == 2 else None,
        confusions={path: confusions(refs, texts, n_errors) for path, texts in hyps.items()}
        if n_errors
        else {},
    )


def _number(value: float) -> float | None:
    """JSON knows neither infinity nor "not a number"."""
    return value if math.isfinite(value) else None


def _score_document(report: Report, path: str) -> dict[str, Any]:
    result = report.scores[path]
    words = result.wer.counts
    content: dict[str, Any] = {
        "n_utterances": result.n_utterances,
        "n_words": words.reference_length,
        "hits": words.hits,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "insertions_on_empty": result.insertions_on_empty,
        "wer": _number(result.wer.value),
        "wer_ci95": [_number(result.wer.low), _number(result.wer.high)],
        "cer": _number(result.cer.value),
        "cer_ci95": [_number(result.cer.low), _number(result.cer.high)],
        "normalizer": report.normalizer,
    }
    if path in report.confusions:
        content["errors"] = [
            {"reference": found.reference, "hypothesis": found.hypothesis, "count": found.count}
            for found in report.confusions[path]
        ]
    return content


def _comparison_document(report: Report) -> dict[str, Any]:
    assert report.comparison is not None
    words, segments = report.comparison.words, report.comparison.segments
    a, b = report.scores
    return {
        "normalizer": report.normalizer,
        "a": {"file": a, **_score_document(report, a)},
        "b": {"file": b, **_score_document(report, b)},
        "b_is": words.direction.value,
        "wer_difference": _number(words.value),
        "wer_difference_ci95": [_number(words.low), _number(words.high)],
        "relative_difference": _number(words.relative),
        "p_value": _number(words.p_value),
        "p_bootstrap": _number(words.p_bootstrap),
        "n_clusters": words.n_clusters,
        "n_clusters_changed": words.n_clusters_changed,
        "matched_pairs": {
            "n_segments": segments.n_segments,
            "mean": segments.mean,
            "standard_deviation": segments.standard_deviation,
            "z": segments.z,
            "p_value": segments.p_value,
        },
    }


def _document(reports: Sequence[Report]) -> dict[str, Any]:
    """The first normaliser's figures; the second's under its name."""
    documents = [
        _comparison_document(report)
        if report.comparison
        else _score_document(report, next(iter(report.scores)))
        for report in reports
    ]
    return documents[0] | {
        report.normalizer: found for report, found in zip(reports[1:], documents[1:], strict=True)
    }


def _print_csv(reports: Sequence[Report]) -> None:
    rows = []
    for report in reports:
        for path in report.scores:
            row = {"file": path, **_score_document(report, path)}
            row.pop("errors", None)
            for name in ("wer", "cer"):
                row[f"{name}_low"], row[f"{name}_high"] = row.pop(f"{name}_ci95")
            if report.comparison:
                second = path != next(iter(report.scores))
                words = report.comparison.words
                row["wer_difference"] = _number(words.value) if second else None
                row["wer_difference_low"] = _number(words.low) if second else None
                row["wer_difference_high"] = _number(words.high) if second else None
                row["p_value"] = _number(words.p_value) if second else None
            rows.append(row)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print(material: Material, reports: Sequence[Report]) -> None:
    output = Output()
    n_clusters = len({name for name in material.clusters or [] if name is not None})
    over = count_text(n_clusters, "cluster") if material.clusters else "utterances"
    output.line(f"{count_text(len(material.refs), 'utterance')}; 95 % intervals over {over}")
    labels = dict(zip(material.hyps, "AB", strict=False)) if len(material.hyps) > 1 else {}
    for path, label in labels.items():
        output.line(f"  {label}  {path}")
    output.line(
        f"\n{'normaliser':<10} {'':<{1 if labels else 0}} {'words':>8} {'WER %':>6} {'interval':^13}"
        f" {'S':>6} {'D':>6} {'I':>6} {'CER %':>6} {'interval':^13} {'on empty':>8}"
    )
    for report in reports:
        for path, result in report.scores.items():
            words = result.wer.counts
            output.line(
                f"{report.normalizer:<10} {labels.get(path, '')} {words.reference_length:>8,} {_percent(result.wer)}"
                f" {words.substitutions:>6,} {words.deletions:>6,} {words.insertions:>6,}"
                f" {_percent(result.cer)} {result.insertions_on_empty:>8,}"
            )
    if any(result.insertions_on_empty for report in reports for result in report.scores.values()):
        output.line("\non empty: words written where nothing was said; they are among the insertions (I)")
    for report in reports:
        if report.comparison:
            _print_comparison(output, report)
    for report in reports:
        for path, found in report.confusions.items():
            of = f"{labels[path]}, {report.normalizer}" if labels else report.normalizer
            _print_confusions(output, of, found)


def _percent(rate: Rate) -> str:
    """Rate and interval in percent, 20 characters."""
    value = f"{100 * rate.value:.2f}" if math.isfinite(rate.value) else "-"
    ends = f"{100 * rate.low:.2f}-{100 * rate.high:.2f}" if math.isfinite(rate.low) else "-"
    return f"{value:>6} {ends:^13}"


def _p_text(p: float) -> str:
    if math.isnan(p):
        return "not known"
    return "below 0.0001" if p < 0.0001 else f"{p:.4f}"


def _print_comparison(output: Output, report: Report) -> None:
    assert report.comparison is not None
    words, segments = report.comparison.words, report.comparison.segments
    ends = f"{100 * words.low:+.2f} to {100 * words.high:+.2f}" if math.isfinite(words.low) else "not known"
    relative = f"; {100 * words.relative:+.1f} % of A's" if math.isfinite(words.relative) else ""
    finding = {
        "worse": "B is worse than A",
        "better": "B is better than A",
        "undecided": "no difference between A and B is shown",
    }[words.direction.value]
    output.line(
        f"\n{report.normalizer}: {finding}\n"
        f"  WER of B less A    {100 * words.value:+.2f} points (95 % interval {ends}){relative}\n"
        f"  p over clusters    {_p_text(words.p_value)}: {words.n_clusters:,} of them,"
        f" {words.n_clusters_changed:,} differ; by bootstrap {_p_text(words.p_bootstrap)}\n"
        f"  matched pairs      {_p_text(segments.p_value)}: {segments.n_segments:,} segments,"
        f" {segments.mean:+.3f} errors of A less B in each, z {segments.z:.3f} (NIST)"
    )


def _print_confusions(output: Output, title: str, found: Sequence[Confusion]) -> None:
    output.line(f"\nMost frequent errors, {title}")
    if not found:
        output.line("  none")
    width = max((len(row.reference or "(nothing)") for row in found), default=0)
    for row in found:
        output.line(
            f"  {row.count:>7,}  {row.reference or '(nothing)':<{width}}  ->  {row.hypothesis or '(nothing)'}"
        )
