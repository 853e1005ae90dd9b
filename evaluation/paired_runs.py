"""Two runs of one set, utterance by utterance: the difference, what it stands out in, and what changed beside it.

Kinds, programmes and speakers of a set are tested alone, each paired with itself, and corrected for how many there are
(Benjamini-Yekutieli: a speaker is part of a programme, a programme of a kind).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from db.baselines import BaselineRow
from db.evaluation_runs import PredictionRow, Run
from evaluation.compare import Difference, compare_counts
from evaluation.counts import EditCounts, ScoreError, count_many_words
from evaluation.history import FALSE_DISCOVERY_RATE
from evaluation.matched_pairs import MatchedPairs, matched_pairs
from evaluation.run_scores import set_clusters
from evaluation.score import basic_normalizer, normalize_texts

MIN_GROUP_UTTERANCES = 5
"""A group of fewer is not tested by itself."""
MAX_STANDOUTS = 8
"""Shown of each kind of group."""


@dataclass(frozen=True)
class PairedRuns:
    """Two runs on the utterances that both have a text for, normalised by the card's normaliser."""

    rows: tuple[PredictionRow, ...]
    """Tonight's."""
    refs: tuple[str, ...]
    hyps_before: tuple[str, ...]
    hyps_now: tuple[str, ...]
    before: EditCounts
    now: EditCounts

    @property
    def difference(self) -> Difference:
        """Tonight's word error rate less the baseline's, over clusters."""
        return compare_counts(self.before, self.now, clusters=set_clusters(self.rows))

    @property
    def matched_pairs(self) -> MatchedPairs | None:
        """NIST's test; None where an utterance is too long for it."""
        try:
            return matched_pairs(self.refs, self.hyps_before, self.hyps_now)
        except ScoreError:
            return None


def pair_runs(before: Sequence[PredictionRow], now: Sequence[PredictionRow]) -> PairedRuns:
    """Pair two runs of the same set by utterance."""
    return _pair(before, now, lambda row: row.utterance_id)


def pair_what_is_left(before: Sequence[PredictionRow], now: Sequence[PredictionRow]) -> PairedRuns:
    """Pair two runs of a set that was changed in between, on the utterances whose audio and reference are the same."""
    return _pair(before, now, lambda row: (row.key, row.audio, row.duration_samples, row.reference))


def _pair(
    before: Sequence[PredictionRow],
    now: Sequence[PredictionRow],
    name_of: Callable[[PredictionRow], Hashable],
) -> PairedRuns:
    earlier = {name_of(row): row.text for row in before if row.text is not None}
    rows = tuple(row for row in now if row.text is not None and name_of(row) in earlier)
    refs = normalize_texts([row.reference for row in rows], basic_normalizer)
    hyps_before = normalize_texts([earlier[name_of(row)] for row in rows], basic_normalizer)
    hyps_now = normalize_texts([row.text or "" for row in rows], basic_normalizer)
    return PairedRuns(
        rows=rows,
        refs=tuple(refs),
        hyps_before=tuple(hyps_before),
        hyps_now=tuple(hyps_now),
        before=count_many_words(refs, hyps_before),
        now=count_many_words(refs, hyps_now),
    )


# --- where it changed --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupChange:
    """A part of the set whose errors changed, tested alone."""

    kind: str
    """programme, programme_kind or speaker."""
    name: str
    wer: float
    expected: float
    """What the baseline made of the same utterances."""
    difference: float
    n_utterances: int
    n_words: int
    n_errors: int
    n_errors_before: int
    p_value: float
    adjusted_p: float
    broadcaster: str | None = None


_WITHIN: dict[str, Callable[[PredictionRow], str]] = {
    # What utterances of a group depend on, inside of it. A programme has few speakers, and the question is whether it
    # got worse as it lies here, not whether other speakers of it would: its utterances.
    "programme": lambda row: f"utterance {row.key}",
    "programme_kind": lambda row: f"programme {row.programme}" if row.programme else f"utterance {row.key}",
    "speaker": lambda row: f"utterance {row.key}",
}
_NAMES: dict[str, Callable[[PredictionRow], str | None]] = {
    "programme": lambda row: row.programme,
    "programme_kind": lambda row: row.kind,
    "speaker": lambda row: row.speaker,
}


def find_standouts(pair: PairedRuns) -> tuple[list[GroupChange], int]:
    """Groups whose errors changed, programmes first, the most errors first; and how many were tested."""
    tested: list[GroupChange] = []
    for kind, name_of in _NAMES.items():
        members: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(pair.rows):
            if name := name_of(row):
                members[name].append(index)
        for name, indices in members.items():
            # what is all of the set says nothing of where in it
            if MIN_GROUP_UTTERANCES <= len(indices) < len(pair.rows):
                found = _test(pair, kind, name, np.array(indices))
                if found is not None:
                    tested.append(found)
    if not tested:
        return [], 0
    adjusted = false_discovery_control([group.p_value for group in tested], method="by")
    kept = [
        GroupChange(**(asdict(group) | {"adjusted_p": float(p)}))
        for group, p in zip(tested, adjusted, strict=True)
        if p <= FALSE_DISCOVERY_RATE
    ]
    order = list(_NAMES)
    kept.sort(
        key=lambda group: (order.index(group.kind), -abs(group.n_errors - group.n_errors_before), group.name)
    )
    shown = [
        group for kind in order for group in [each for each in kept if each.kind == kind][:MAX_STANDOUTS]
    ]
    return shown, len(tested)


def _test(pair: PairedRuns, kind: str, name: str, indices: np.typing.NDArray[np.int64]) -> GroupChange | None:
    before, now = pair.before.take(indices), pair.now.take(indices)
    n_words = before.total.reference_length
    within = _WITHIN[kind]
    clusters = [within(pair.rows[index]) for index in indices]
    if not n_words or len(set(clusters)) < 2:
        return None
    if (before.errors == now.errors).all():
        p_value = 1.0
    else:
        p_value = compare_counts(before, now, clusters=clusters, samples=2).p_value
    if math.isnan(p_value):
        return None
    return GroupChange(
        kind=kind,
        name=name,
        wer=now.total.errors / n_words,
        expected=before.total.errors / n_words,
        difference=(now.total.errors - before.total.errors) / n_words,
        n_utterances=len(indices),
        n_words=n_words,
        n_errors=now.total.errors,
        n_errors_before=before.total.errors,
        p_value=p_value,
        adjusted_p=1.0,
    )


# --- what else changed -------------------------------------------------------------------------------------


def find_changes(baseline: BaselineRow, run: Run, model: str) -> dict[str, dict[str, Any]]:
    """What of the two runs is not the same: `{"model": {"before": ..., "now": ...}}`.

    Args:
        model: tonight's, with the beginning of its weights' hash.
    """
    pairs = {
        "model": (f"{baseline.model} ({baseline.weights_sha256[:12]})", model),
        "code_version": (baseline.code_version, run.code_version),
        "decode_settings": (baseline.decode_settings, run.decode_settings),
        "prompt": (baseline.prompt, run.prompt),
        "device": (baseline.device, run.device),
    }
    return {name: {"before": before, "now": now} for name, (before, now) in pairs.items() if before != now}


def describe_changes(changes: dict[str, dict[str, Any]]) -> str:
    """For a person: `the model changed: A -> B`, the likely causes first."""
    if not changes:
        return "neither model, code, settings nor device changed"
    return "; ".join(_describe_change(name, **change) for name, change in changes.items())


def _describe_change(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
        before, now = ([f"{key} {values.get(key)}" for key in keys] for values in (before, now))
        before, now = ", ".join(before), ", ".join(now)
    shown = [str(value) if value is not None else "not known" for value in (before, now)]
    return f"the {name.replace('_', ' ')} changed: {shown[0]} -> {shown[1]}"


def describe_standouts(standouts: Sequence[dict[str, Any]], most: int = 3) -> str:
    """For a person: `most of all in the programme Tempo (+12.30 points)`; empty without any."""
    programmes = [each for each in standouts if each["kind"] == "programme"] or list(standouts)
    named = [
        f"the {each['kind'].replace('programme_kind', 'kind of programme')} {each['name']} "
        f"({100 * each['difference']:+.2f} points)"
        for each in programmes[:most]
    ]
    return f"it stands out in {', '.join(named)}" if named else ""
