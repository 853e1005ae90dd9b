"""Where the errors are: most confused words, by programme, length and confidence, and the worst utterances."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import jiwer
import numpy as np
import numpy.typing as npt

from db.evaluation_runs import PredictionRow
from db.schema import SAMPLE_RATE_HZ
from evaluation.bootstrap import ratio_interval
from evaluation.compare import compare_counts
from evaluation.confusions import confusions
from evaluation.counts import EditCounts, count_many_words, group_indices
from evaluation.report.document import (
    AlignedPiece,
    BinRow,
    ConfusionRow,
    ErrorReport,
    GroupRow,
    WorstUtterance,
)
from evaluation.run_scores import set_clusters
from evaluation.score import basic_normalizer, normalize_texts

MAX_CONFUSIONS = 30
MAX_PROGRAMMES = 40
N_WORST = 20
LENGTH_EDGES_S = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0)
"""Lower ends of the bins of length; the last one has no upper end."""
CONFIDENCE_EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)

Mask = npt.NDArray[np.bool_]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Scored:
    """Utterances that can be scored, of one set or of all, with their counts. Lists run in parallel."""

    set_names: tuple[str, ...]
    rows: tuple[PredictionRow, ...]
    references: tuple[str, ...]
    """Normalised."""
    hypotheses: tuple[str, ...]
    words: EditCounts
    baseline_hypotheses: tuple[str | None, ...]
    """Normalised; None where the baseline has none."""
    baseline_words: EditCounts
    """Zeros where the baseline has none."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_baseline(self) -> Mask:
        return np.array([text is not None for text in self.baseline_hypotheses], dtype=bool)


def score_rows(set_name: str, rows: Iterable[PredictionRow], baseline: Iterable[PredictionRow]) -> Scored:
    """Count the errors of one set tonight and, where its baseline has the same utterance, of the baseline."""
    usable = [row for row in rows if row.text is not None]
    before = {row.utterance_id: row.text for row in baseline if row.text is not None}
    references = normalize_texts([row.reference for row in usable], basic_normalizer)
    hypotheses = normalize_texts([row.text or "" for row in usable], basic_normalizer)
    old = [
        basic_normalizer(text).strip() if (text := before.get(row.utterance_id)) is not None else None
        for row in usable
    ]
    known = [index for index, text in enumerate(old) if text is not None]
    old_counts = count_many_words([references[i] for i in known], [old[i] or "" for i in known])
    table = np.zeros((4, len(usable)), dtype=np.int64)
    for line, counts in zip(
        table,
        (old_counts.hits, old_counts.substitutions, old_counts.deletions, old_counts.insertions),
        strict=True,
    ):
        line[known] = counts
    return Scored(
        set_names=(set_name,) * len(usable),
        rows=tuple(usable),
        references=tuple(references),
        hypotheses=tuple(hypotheses),
        words=count_many_words(references, hypotheses),
        baseline_hypotheses=tuple(old),
        baseline_words=EditCounts(*table),
    )


def join(parts: Sequence[Scored]) -> Scored:
    """The utterances of several sets as one."""

    def counts(of: Callable[[Scored], EditCounts]) -> EditCounts:
        found = [of(part) for part in parts]
        return EditCounts(
            np.concatenate([one.hits for one in found]),
            np.concatenate([one.substitutions for one in found]),
            np.concatenate([one.deletions for one in found]),
            np.concatenate([one.insertions for one in found]),
        )

    return Scored(
        set_names=tuple(name for part in parts for name in part.set_names),
        rows=tuple(row for part in parts for row in part.rows),
        references=tuple(text for part in parts for text in part.references),
        hypotheses=tuple(text for part in parts for text in part.hypotheses),
        words=counts(lambda part: part.words),
        baseline_hypotheses=tuple(text for part in parts for text in part.baseline_hypotheses),
        baseline_words=counts(lambda part: part.baseline_words),
    )


def clusters_of(scored: Scored) -> list[Hashable]:
    """The cluster of each utterance."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(scored.set_names):
        members.setdefault(name, []).append(index)
    found: dict[int, Hashable] = {}
    for name, indices in members.items():
        clusters = set_clusters([scored.rows[index] for index in indices])
        found.update((index, (name, cluster)) for index, cluster in zip(indices, clusters, strict=True))
    return [found[index] for index in range(len(scored.rows))]


def analyse(scored: Scored, standouts: Container[tuple[str, str | None]] = ()) -> ErrorReport:
    """Where the errors of these utterances are.

    Args:
        standouts: (set, programme) pairs that the night's verdicts name: they come first.
    """
    groups = group_indices(clusters_of(scored), len(scored))
    seconds = np.array([row.duration_samples / SAMPLE_RATE_HZ for row in scored.rows])
    confidences = np.array(
        [math.exp(row.mean_logprob) if row.mean_logprob is not None else math.nan for row in scored.rows]
    )
    total = scored.words.total
    return ErrorReport(
        n_utterances=len(scored),
        n_words=total.reference_length,
        n_errors=total.errors,
        confusions=_confusions(scored),
        by_programme=_by_programme(scored, standouts),
        by_kind=_by_kind(scored),
        by_length=_bins(scored, groups, seconds, (*LENGTH_EDGES_S, None)),
        by_confidence=_bins(scored, groups, confidences, CONFIDENCE_EDGES),
    )


def _confusions(scored: Scored) -> tuple[ConfusionRow, ...]:
    known = np.flatnonzero(scored.has_baseline)
    before: Counter[tuple[str, str]] = Counter()
    if len(known):
        for row in confusions(
            [scored.references[i] for i in known], [scored.baseline_hypotheses[i] or "" for i in known]
        ):
            before[row.reference, row.hypothesis] = row.count
    return tuple(
        ConfusionRow(
            row.reference,
            row.hypothesis,
            row.count,
            before[row.reference, row.hypothesis] if len(known) else None,
        )
        for row in confusions(scored.references, scored.hypotheses, MAX_CONFUSIONS)
    )


def finite(value: float) -> float | None:
    """The number, or None where it is none."""
    return value if math.isfinite(value) else None


def _rate(errors: int, length: int) -> float | None:
    return errors / length if length else None


def _bins(
    scored: Scored,
    groups: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    edges: Sequence[float | None],
) -> tuple[BinRow, ...]:
    """Utterances by `values` in [edge, next edge); the last bin holds its upper end, too."""
    found = []
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        assert low is not None
        inside = values >= low
        if high is not None:
            inside &= (values <= high) if index == len(edges) - 2 else (values < high)
        counts = scored.words.take(inside)
        total = counts.total
        _, within = np.unique(groups[inside], return_inverse=True)
        ends = (
            ratio_interval(counts.errors, counts.reference_lengths, within.astype(np.int64), 0)
            if inside.any()
            else (math.nan, math.nan)
        )
        found.append(
            BinRow(
                low=low,
                high=high,
                n_utterances=int(inside.sum()),
                n_words=total.reference_length,
                n_errors=total.errors,
                wer=_rate(total.errors, total.reference_length),
                wer_low=finite(ends[0]),
                wer_high=finite(ends[1]),
            )
        )
    return tuple(found)


def _members(keys: Iterable[Key]) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return found


def _group(scored: Scored, members: list[int], clusters: list[Hashable]) -> GroupRow:
    """A group's figures, without its name."""
    chosen = np.array(members)
    counts = scored.words.take(chosen)
    total = counts.total
    own = [clusters[index] for index in members]
    low, high = ratio_interval(counts.errors, counts.reference_lengths, group_indices(own, len(own)), 0)
    paired = chosen[scored.has_baseline[chosen]]
    baseline_wer = None
    difference = difference_low = difference_high = None
    if len(paired):
        before = scored.baseline_words.take(paired)
        compared = compare_counts(
            before, scored.words.take(paired), clusters=[clusters[index] for index in paired]
        )
        baseline_wer = _rate(before.total.errors, before.total.reference_length)
        difference = finite(compared.value)
        difference_low, difference_high = finite(compared.low), finite(compared.high)
    return GroupRow(
        set_name=None,
        kind=None,
        programme=None,
        n_utterances=len(members),
        n_words=total.reference_length,
        n_errors=total.errors,
        wer=_rate(total.errors, total.reference_length),
        wer_low=finite(low),
        wer_high=finite(high),
        baseline_wer=baseline_wer,
        difference=difference,
        difference_low=difference_low,
        difference_high=difference_high,
        stands_out=False,
    )


def _by_programme(scored: Scored, standouts: Container[tuple[str, str | None]]) -> tuple[GroupRow, ...]:
    """Programmes of each set, those that lost most words to errors first. Clusters are speakers, else utterances."""
    clusters: list[Hashable] = [row.speaker for row in scored.rows]
    keys = [(name, row.programme) for name, row in zip(scored.set_names, scored.rows, strict=True)]
    rows: list[GroupRow] = []
    for (set_name, programme), members in _members(keys).items():
        kinds = {scored.rows[index].kind for index in members}
        rows.append(
            replace(
                _group(scored, members, clusters),
                set_name=set_name,
                programme=programme,
                kind=kinds.pop() if len(kinds) == 1 else None,
                stands_out=(set_name, programme) in standouts,
            )
        )
    if all(row.programme is None for row in rows):
        return ()
    rows.sort(key=lambda row: (not row.stands_out, -(row.difference or 0) * row.n_words, -row.n_errors))
    return tuple(rows[:MAX_PROGRAMMES])


def _by_kind(scored: Scored) -> tuple[GroupRow, ...]:
    """Kinds of programme over all sets, by name; empty where no kind is known."""
    clusters = clusters_of(scored)
    members = _members(row.kind for row in scored.rows)
    if set(members) <= {None}:
        return ()
    rows = [replace(_group(scored, own, clusters), kind=kind) for kind, own in members.items()]
    return tuple(sorted(rows, key=lambda row: (row.kind is None, row.kind or "")))


def worst(scored: Scored, n: int = N_WORST) -> tuple[WorstUtterance, ...]:
    """The utterances with the most errors, then the highest rate; without clips. Perfect ones are not among them."""
    errors, lengths = scored.words.errors, scored.words.reference_lengths
    rates = errors / np.maximum(lengths, 1)
    order = np.lexsort((np.arange(len(scored)), -rates, -errors))[:n]
    known = scored.has_baseline
    found = []
    for index in order[errors[order] > 0]:
        row = scored.rows[index]
        found.append(
            WorstUtterance(
                set_name=scored.set_names[index],
                key=row.key,
                programme=row.programme,
                speaker=row.speaker,
                audio=row.audio,
                duration_s=row.duration_samples / SAMPLE_RATE_HZ,
                n_words=int(lengths[index]),
                n_errors=int(errors[index]),
                baseline_errors=int(scored.baseline_words.errors[index]) if known[index] else None,
                confidence=math.exp(row.mean_logprob) if row.mean_logprob is not None else None,
                flags=tuple(row.flags),
                reference=row.reference,
                hypothesis=row.text or "",
                alignment=align(scored.references[index], scored.hypotheses[index]),
                clip=None,
            )
        )
    return tuple(found)


def align(reference: str, hypothesis: str) -> tuple[AlignedPiece, ...]:
    """Which words became which, of normalised texts, as jiwer aligns them."""
    if not reference or not hypothesis:
        pieces = (
            AlignedPiece("delete", tuple(reference.split()), ()),
            AlignedPiece("insert", (), tuple(hypothesis.split())),
        )
        return tuple(piece for piece in pieces if piece.reference or piece.hypothesis)
    aligned = jiwer.process_words(reference, hypothesis)
    said, written = aligned.references[0], aligned.hypotheses[0]
    return tuple(
        AlignedPiece(
            chunk.type,
            tuple(said[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(written[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in aligned.alignments[0]
    )
