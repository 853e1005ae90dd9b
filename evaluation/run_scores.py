"""Scores of evaluation runs: both normalisers, intervals over clusters, Combined over all words.

Everything is made from raw predictions, so that a run can be scored again without a GPU.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, text

from db.evaluation_runs import PredictionRow, read_predictions
from evaluation.counts import EditCounts, TextCounts, count_texts
from evaluation.normalizer import NORMALIZERS
from evaluation.score import Rate, Score, normalize_texts, score_counts

NORMALIZER_NAMES = tuple(NORMALIZERS)


MIN_CLUSTERS = 5
"""Fewer programmes, or speakers, say too little of their spread to be what is resampled."""


@dataclass(frozen=True)
class RunScore:
    """One run under one normaliser."""

    normalizer: str
    score: Score | None
    """None where no utterance has a text to score."""
    n_failed: int
    """Utterances without a text: left out."""
    n_clusters: int
    counts: TextCounts
    """Of the utterances scored, in the order of `keys`."""
    keys: tuple[str, ...]
    clusters: tuple[str, ...]


def set_clusters(rows: Sequence[PredictionRow]) -> tuple[str, ...]:
    """What each utterance of one set depends on with others: programme where known, else speaker, else itself.

    Programmes, and then speakers, count only where there are enough of them: over one or two clusters no spread can be
    known, and a set that is a single programme could never be judged.
    """
    n_programmes = len({row.programme for row in rows if row.programme})
    n_speakers = len({row.speaker for row in rows if row.speaker})
    return tuple(
        f"programme {row.programme}"
        if row.programme and n_programmes >= MIN_CLUSTERS
        else f"speaker {row.speaker}"
        if row.speaker and n_speakers >= MIN_CLUSTERS
        else f"utterance {row.key}"
        for row in rows
    )


def score_rows(rows: Sequence[PredictionRow], normalizer: str = "basic", *, seed: int = 0) -> RunScore:
    """Score predictions; those without a text are counted and left out.

    Raises:
        KeyError: no normaliser of that name.
    """
    return _score(rows, normalizer, _normalized(rows, normalizer), None, seed)


def score_all(rows: Sequence[PredictionRow], *, seed: int = 0) -> dict[str, RunScore]:
    """Scores under every normaliser, by its name; what a normaliser leaves as another did is aligned once."""
    scores: dict[str, RunScore] = {}
    first: tuple[list[Pair], TextCounts] | None = None
    for name in NORMALIZER_NAMES:
        pairs = _normalized(rows, name)
        scores[name] = _score(rows, name, pairs, first, seed)
        first = first or (pairs, scores[name].counts)
    return scores


Pair = tuple[str, str]
"""Reference and hypothesis, normalised."""


def _normalized(rows: Sequence[PredictionRow], normalizer: str) -> list[Pair]:
    """Of the utterances with a text; each text is normalised once, however often it comes."""
    pairs = [(row.reference, row.text) for row in rows if row.text is not None]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    found = dict(zip(texts, normalize_texts(texts, NORMALIZERS[normalizer]), strict=True))
    return [(found[reference], found[hypothesis]) for reference, hypothesis in pairs]


def _score(
    rows: Sequence[PredictionRow],
    normalizer: str,
    pairs: Sequence[Pair],
    known: tuple[list[Pair], TextCounts] | None,
    seed: int,
) -> RunScore:
    scored = [row for row in rows if row.text is not None]
    clusters = set_clusters(scored)
    counts = _count(pairs) if known is None else _count_what_differs(pairs, *known)
    return RunScore(
        normalizer=normalizer,
        score=score_counts(counts, clusters=clusters, seed=seed) if scored else None,
        n_failed=len(rows) - len(scored),
        n_clusters=len(set(clusters)),
        counts=counts,
        keys=tuple(row.key for row in scored),
        clusters=clusters,
    )


def _count(pairs: Sequence[Pair]) -> TextCounts:
    return count_texts([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])


def _count_what_differs(pairs: Sequence[Pair], known: Sequence[Pair], counts: TextCounts) -> TextCounts:
    """Counts of pairs, taken from those that are known where the pair is the same."""
    differ = [n for n, (pair, before) in enumerate(zip(pairs, known, strict=True)) if pair != before]
    fresh = _count([pairs[n] for n in differ])
    return TextCounts(
        _replaced(counts.words, fresh.words, differ), _replaced(counts.characters, fresh.characters, differ)
    )


def _replaced(counts: EditCounts, fresh: EditCounts, at: Sequence[int]) -> EditCounts:
    columns = []
    for name in ("hits", "substitutions", "deletions", "insertions"):
        column = getattr(counts, name).copy()
        column[list(at)] = getattr(fresh, name)
        columns.append(column)
    return EditCounts(*columns)


def score_groups(
    rows: Sequence[PredictionRow],
    key: Callable[[PredictionRow], Hashable],
    normalizer: str = "basic",
    *,
    seed: int = 0,
) -> dict[Hashable, RunScore]:
    """A score for each group of predictions, in order of first appearance."""
    groups: dict[Hashable, list[PredictionRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: score_rows(group, normalizer, seed=seed) for name, group in groups.items()}


def combine(scores: Mapping[str, RunScore], *, seed: int = 0) -> RunScore:
    """All sets as one: errors over all words, never a mean of rates. Clusters of two sets are never one.

    Args:
        scores: of one normaliser, by set.

    Raises:
        ValueError: there are none, or of several normalisers.
    """
    names = {found.normalizer for found in scores.values()}
    if len(names) != 1:
        raise ValueError(f"scores of one normaliser are combined, not of {len(names)}")
    counts = TextCounts(
        _joined(found.counts.words for found in scores.values()),
        _joined(found.counts.characters for found in scores.values()),
    )
    clusters = tuple(f"{name} {cluster}" for name, found in scores.items() for cluster in found.clusters)
    return RunScore(
        normalizer=names.pop(),
        score=score_counts(counts, clusters=clusters, seed=seed) if clusters else None,
        n_failed=sum(found.n_failed for found in scores.values()),
        n_clusters=len(set(clusters)),
        counts=counts,
        keys=tuple(f"{name} {key}" for name, found in scores.items() for key in found.keys),
        clusters=clusters,
    )


def _joined(counts: Iterable[EditCounts]) -> EditCounts:
    parts = list(counts)
    return EditCounts(
        np.concatenate([part.hits for part in parts]),
        np.concatenate([part.substitutions for part in parts]),
        np.concatenate([part.deletions for part in parts]),
        np.concatenate([part.insertions for part in parts]),
    )


def score_run(connection: Connection, run_id: uuid.UUID) -> dict[str, RunScore]:
    """Score a run under every normaliser and store the figures, in place of older ones. By normaliser's name."""
    rows = read_predictions(connection, run_id)
    scores = score_all(rows)
    for found in scores.values():
        _store(connection, run_id, found)
    return scores


def _store(connection: Connection, run_id: uuid.UUID, found: RunScore) -> None:
    words, characters = found.counts.words.total, found.counts.characters.total
    connection.execute(
        text(
            """
            INSERT INTO evaluation_scores (
                run_id, normalizer, n_utterances, n_failed, n_clusters,
                word_hits, word_substitutions, word_deletions, word_insertions,
                character_hits, character_substitutions, character_deletions, character_insertions,
                insertions_on_empty, wer, wer_low, wer_high, cer, cer_low, cer_high)
            VALUES (
                :run_id, :normalizer, :n_utterances, :n_failed, :n_clusters,
                :word_hits, :word_substitutions, :word_deletions, :word_insertions,
                :character_hits, :character_substitutions, :character_deletions, :character_insertions,
                :insertions_on_empty, :wer, :wer_low, :wer_high, :cer, :cer_low, :cer_high)
            ON CONFLICT (run_id, normalizer) DO UPDATE SET
                n_utterances = excluded.n_utterances, n_failed = excluded.n_failed,
                n_clusters = excluded.n_clusters,
                word_hits = excluded.word_hits, word_substitutions = excluded.word_substitutions,
                word_deletions = excluded.word_deletions, word_insertions = excluded.word_insertions,
                character_hits = excluded.character_hits,
                character_substitutions = excluded.character_substitutions,
                character_deletions = excluded.character_deletions,
                character_insertions = excluded.character_insertions,
                insertions_on_empty = excluded.insertions_on_empty,
                wer = excluded.wer, wer_low = excluded.wer_low, wer_high = excluded.wer_high,
                cer = excluded.cer, cer_low = excluded.cer_low, cer_high = excluded.cer_high,
                created_at = now()
            """
        ),
        {
            "run_id": run_id,
            "normalizer": found.normalizer,
            "n_utterances": len(found.keys),
            "n_failed": found.n_failed,
            "n_clusters": found.n_clusters,
            "word_hits": words.hits,
            "word_substitutions": words.substitutions,
            "word_deletions": words.deletions,
            "word_insertions": words.insertions,
            "character_hits": characters.hits,
            "character_substitutions": characters.substitutions,
            "character_deletions": characters.deletions,
            "character_insertions": characters.insertions,
            "insertions_on_empty": found.score.insertions_on_empty if found.score else 0,
            **_rates("wer", found.score.wer if found.score else None),
            **_rates("cer", found.score.cer if found.score else None),
        },
    )


def _rates(name: str, rate: Rate | None) -> dict[str, float | None]:
    if rate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    has_words = rate.counts.reference_length > 0
    return {
        name: finite(rate.value) if has_words else None,
        f"{name}_low": finite(rate.low),
        f"{name}_high": finite(rate.high),
    }


def finite(value: float) -> float | None:
    """None for what neither SQL's averages nor JSON can use: infinity, not a number."""
    return value if math.isfinite(value) else None
