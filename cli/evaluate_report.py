"""What `fonoteca evaluate` prints and writes: the card's table, the second normaliser's, the hygiene."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.output import Output, count_text

if TYPE_CHECKING:
    from db.evaluation_runs import PredictionRow, Provenance, Run
    from evaluation.card import CardFigure
    from evaluation.held_out import HeldOutSet, Unreadable
    from evaluation.overlap import Overlap
    from evaluation.run_scores import RunScore
    from evaluation.score import Rate
    from speech.checkpoint import CheckpointCard

COMBINED = "Combined"
MAX_REASONS = 3


@dataclass(frozen=True)
class SetResult:
    """One set and what became of it."""

    held_out: HeldOutSet
    run: Run
    n_resumed: int
    """Predictions that were there before."""
    rows: list[PredictionRow]

    @property
    def n_failed(self) -> int:
        return sum(row.text is None for row in self.rows)


@dataclass(frozen=True)
class Evaluation:
    """Everything that one command found."""

    model: CheckpointCard
    provenance: Provenance
    sets: list[SetResult]
    unreadable: list[Unreadable]
    overlaps: tuple[Overlap, ...] | None
    limit: int | None

    @cached_property
    def lines(self) -> dict[str, list[Line]]:
        """The tables' lines by normaliser, Combined last."""
        from evaluation.run_scores import NORMALIZER_NAMES, combine, score_all

        tables: dict[str, list[Line]] = {}
        found_scores = {found.held_out.name: score_all(found.rows) for found in self.sets}
        for normalizer in NORMALIZER_NAMES:
            scores = {name: by_normalizer[normalizer] for name, by_normalizer in found_scores.items()}
            lines = [
                Line(
                    found.held_out.dataset,
                    scores[found.held_out.name],
                    self._card(found.held_out.dataset) if normalizer == "basic" else None,
                )
                for found in self.sets
            ]
            card = self._card_of_all() if normalizer == "basic" else None
            tables[normalizer] = [*lines, Line(COMBINED, combine(scores), card)]
        return tables

    def _card(self, dataset: str) -> CardFigure | None:
        from evaluation.card import card_figure

        return card_figure(dataset)

    def _card_of_all(self) -> CardFigure | None:
        """The card's Combined, only where the sets are all of the card's and no other."""
        from evaluation.card import CARD, COMBINED, card_figure

        figures = [card_figure(found.held_out.dataset) for found in self.sets]
        names = [figure.dataset for figure in figures if figure]
        is_all = len(figures) == len(names) == len(CARD) - 1 and len(set(names)) == len(names)
        return card_figure(COMBINED) if is_all else None


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    dataset: str
    found: RunScore
    card: CardFigure | None


def problem_of(found: Evaluation) -> str | None:
    """Why the figures are not of everything that was asked for; None where they are."""
    n_failed = sum(one.n_failed for one in found.sets)
    parts = []
    if n_failed:
        parts.append(f"{count_text(n_failed, 'utterance')} could not be transcribed and are left out")
    if found.unreadable:
        parts.append(f"{count_text(len(found.unreadable), 'set')} could not be read")
    return "; ".join(parts) or None


# --- for people ------------------------------------------------------------------------------------------


def print_tables(output: Output, found: Evaluation) -> None:
    """The tables, and all that must be known to read them."""
    from evaluation.normalizer import VERSION

    demo = " (demo model: trained on synthetic speech)" if found.model.is_demo else ""
    output.line(
        f"{found.model.name}{demo}, weights {found.model.weights_sha256[:12]}, {found.provenance.device}"
    )
    if found.limit is not None:
        output.line(f"the first {found.limit:,} utterances of each set: not the figures of the sets")
    _print_table(output, "\nBasicTextNormalizer, as the model card", found.lines["basic"])
    _print_table(output, f"\nGalician normaliser ({VERSION})", found.lines["galician"])
    _print_remarks(output, found)
    _print_overlaps(output, found.overlaps)


def _print_table(output: Output, title: str, lines: Sequence[Line]) -> None:
    has_card = any(line.card for line in lines)
    width = max(len("Dataset"), *(len(line.dataset) for line in lines))
    output.line(title)
    head = (
        f"{'Dataset':<{width}} {'N':>7} {'WER':>7} {'95 % interval':^15} {'CER':>7} {'95 % interval':^15}"
        f" {'S':>6} {'D':>6} {'I':>6} {'on empty':>8}"
    )
    output.line(head + (f" | {'card N':>7} {'WER':>6} {'CER':>6}" if has_card else ""))
    for line in lines:
        text = f"{line.dataset:<{width}} {len(line.found.keys):>7,} "
        score = line.found.score
        if score is None:
            text += f"{'-':>7}"
        else:
            words = score.wer.counts
            text += (
                f"{_rate(score.wer)} {_rate(score.cer)}"
                f" {words.substitutions:>6,} {words.deletions:>6,} {words.insertions:>6,}"
                f" {score.insertions_on_empty:>8,}"
            )
        if line.card:
            text += f" | {line.card.n_utterances:>7,} {line.card.wer:.4f} {line.card.cer:.4f}"
        output.line(text)


def _rate(rate: Rate) -> str:
    """As the card writes it, and its interval: 23 characters."""
    value = f"{rate.value:.4f}" if math.isfinite(rate.value) else "-"
    ends = f"{rate.low:.4f}-{rate.high:.4f}" if math.isfinite(rate.low) else "-"
    return f"{value:>7} {ends:^15}"


def _print_remarks(output: Output, found: Evaluation) -> None:
    remarks = []
    for line, one in zip(found.lines["basic"], found.sets, strict=False):
        n_clusters = line.found.n_clusters
        if n_clusters < len(line.found.keys):
            remarks.append(f"{line.dataset}: intervals over {n_clusters:,} speakers or programmes")
        if line.card and found.limit is None and line.card.n_utterances != len(one.rows):
            remarks.append(
                f"{line.dataset}: {len(one.rows):,} utterances here and {line.card.n_utterances:,} on the card: "
                "not the same test set"
            )
        failed = [row for row in one.rows if row.text is None]
        for row in failed[:MAX_REASONS]:
            remarks.append(f"{line.dataset}: {row.key} left out: {row.failure_reason}")
        if len(failed) > MAX_REASONS:
            remarks.append(f"{line.dataset}: {len(failed) - MAX_REASONS:,} more left out")
    if any(line.found.score and line.found.score.insertions_on_empty for line in found.lines["basic"]):
        remarks.append("on empty: words written where nothing was said; they are among the insertions (I)")
    if remarks:
        output.line("")
    for remark in remarks:
        output.line(remark)


def _print_overlaps(output: Output, overlaps: tuple[Overlap, ...] | None) -> None:
    if overlaps is None:
        output.line("\nOverlap with training data: not looked for (give its manifest with --training)")
        return
    shared = [overlap for overlap in overlaps if overlap.n_utterances]
    output.line("\nOverlap with training data" + ("" if shared else ": none found"))
    for overlap in shared:
        example = overlap.examples[0]
        output.line(
            f"  {overlap.dataset}, {overlap.kind.value.replace('_', ' ')}: {overlap.n_utterances:,} of "
            f"{overlap.n_known:,} utterances ({100 * overlap.share:.1f} %, {overlap.duration_s / 60:.1f} min); "
            f"e.g. {example.held_out.audio} and {example.training.audio}"
        )
    unknown = [overlap for overlap in overlaps if not overlap.n_known]
    for overlap in unknown:
        output.line(f"  {overlap.dataset}, {overlap.kind.value.replace('_', ' ')}: not known in the set")


# --- for programs ----------------------------------------------------------------------------------------


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def score_document(line: Line) -> dict[str, Any]:
    """One line's figures."""
    content: dict[str, Any] = {
        "dataset": line.dataset,
        "normalizer": line.found.normalizer,
        "n_utterances": len(line.found.keys),
        "n_failed": line.found.n_failed,
        "n_clusters": line.found.n_clusters,
    }
    score = line.found.score
    if score is None:
        return content
    words, characters = score.wer.counts, score.cer.counts
    return content | {
        "n_words": words.reference_length,
        "hits": words.hits,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "insertions_on_empty": score.insertions_on_empty,
        "wer": _number(score.wer.value),
        "wer_ci95": [_number(score.wer.low), _number(score.wer.high)],
        "n_characters": characters.reference_length,
        "cer": _number(score.cer.value),
        "cer_ci95": [_number(score.cer.low), _number(score.cer.high)],
    }


def document(found: Evaluation) -> dict[str, Any]:
    """Everything, for --json."""
    return {
        "model": {
            "name": found.model.name,
            "weights_sha256": found.model.weights_sha256,
            "is_demo": found.model.is_demo,
        },
        "prompt": found.provenance.prompt,
        "decode_settings": found.provenance.decode_settings,
        "device": found.provenance.device,
        "code_version": found.provenance.code_version,
        "limit": found.limit,
        "sets": [
            {
                "name": one.held_out.name,
                "dataset": one.held_out.dataset,
                "content_sha256": one.held_out.content_sha256,
                "run_id": str(one.run.run_id),
                "is_complete": one.run.finished_at is not None,
                "n_resumed": one.n_resumed,
                "scores": {name: score_document(lines[index]) for name, lines in found.lines.items()},
                "card": _card_document(found.lines["basic"][index].card),
            }
            for index, one in enumerate(found.sets)
        ],
        "combined": {name: score_document(lines[-1]) for name, lines in found.lines.items()},
        "combined_card": _card_document(found.lines["basic"][-1].card),
        "overlap": [_overlap_document(overlap) for overlap in found.overlaps]
        if found.overlaps is not None
        else None,
        "unreadable": [{"name": one.name, "reason": one.reason} for one in found.unreadable],
    }


def _card_document(card: CardFigure | None) -> dict[str, Any] | None:
    return {"n_utterances": card.n_utterances, "wer": card.wer, "cer": card.cer} if card else None


def _overlap_document(overlap: Overlap) -> dict[str, Any]:
    return {
        "dataset": overlap.dataset,
        "kind": overlap.kind.value,
        "n_utterances": overlap.n_utterances,
        "n_known": overlap.n_known,
        "n_values": overlap.n_values,
        "duration_s": overlap.duration_s,
        "examples": [
            {"held_out": example.held_out.audio, "training": example.training.audio}
            for example in overlap.examples
        ],
    }


def write_csv(file: Path, found: Evaluation) -> None:
    """One row a set and normaliser, Combined among them."""
    rows: list[dict[str, Any]] = []
    for lines in found.lines.values():
        for line in lines:
            row = score_document(line)
            for name in ("wer", "cer"):
                row[f"{name}_low"], row[f"{name}_high"] = row.pop(f"{name}_ci95", (None, None))
            row |= {"card_wer": line.card.wer if line.card else None}
            row |= {"card_cer": line.card.cer if line.card else None}
            rows.append(row)
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(
            target,
            fieldnames=list(dict.fromkeys(name for row in rows for name in row)),
            restval=None,
            lineterminator="\n",
        )
        writer.writeheader()
        writer.writerows(rows)


def write_predictions(file: Path, found: Evaluation) -> None:
    """One object a line: `id` is `set/key`, so that `fonoteca score` reads the file as hypotheses."""
    with file.open("w", encoding="utf-8") as target:
        for one in found.sets:
            for row in one.rows:
                content = {
                    "id": f"{one.held_out.name}/{row.key}",
                    "text": row.text,
                    "reference": row.reference,
                    "audio": row.audio,
                    "speaker": row.speaker,
                    "programme": row.programme,
                    "kind": row.kind,
                    "mean_logprob": row.mean_logprob,
                    "flags": row.flags,
                    "failure_reason": row.failure_reason,
                }
                target.write(json.dumps(content, ensure_ascii=False) + "\n")
