"""The matched-pairs sentence-segment word error test, as NIST's sclite and sc_stats compute it.

Method: Gillick & Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989,
section 3. Errors of neighbouring words depend on each other, so utterances are cut into segments at places where
both systems have at least two words right; the test is on the difference in errors per segment.

Alignment and segmentation follow sctk (`net_dp.c`: weights substitution 4, insertion 3, deletion 3; at equal cost
a substitution or hit before an insertion before a deletion; `mtchprs.c`: the state machine of `test_comp_sents`),
so that segments, means and z equal sc_stats's. The weights split the same errors differently from jiwer's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.bootstrap import two_sided_t
from evaluation.counts import Counts, ScoreError

SUBSTITUTION_COST = 4
INSERTION_COST = 3
DELETION_COST = 3
MIN_CORRECT_WORDS = 2
"""Words that both systems have right at either end of a segment."""
MAX_CELLS = 400_000_000
"""Reference words times hypothesis words of one utterance: bounds memory at 0.4 GB."""

HIT, SUBSTITUTION, DELETION, INSERTION = "C", "S", "D", "I"


@dataclass(frozen=True)
class Segment:
    """A stretch of one utterance in which at least one system errs."""

    n_words: int
    errors_a: int
    errors_b: int


@dataclass(frozen=True)
class MatchedPairs:
    """The test's outcome. Positive values: system a makes more errors."""

    n_utterances: int
    n_segments: int
    n_words: int
    """Reference words within segments; a word where two segments meet counts in both, as in sc_stats."""
    errors_a: int
    errors_b: int
    mean: float
    """Errors of a less errors of b, per segment."""
    standard_deviation: float
    z: float
    p_value: float
    """Two-sided, of the normal distribution. sc_stats reads a table instead, which rounds p up."""


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> str:
    """Align words as sclite does: one letter of C, S, D, I for each step.

    Raises:
        ScoreError: the texts are too long to align in memory.
    """
    n, m = len(reference), len(hypothesis)
    if n * m > MAX_CELLS:
        raise ScoreError(
            f"an utterance of {n:,} words against {m:,} is too long for the matched-pairs test: "
            "give one utterance a line, not a whole recording"
        )
    if reference == hypothesis:
        return HIT * n
    back = _backpointers(reference, hypothesis)
    steps, row, column = [], n, m
    while row or column:
        step = back[row, column]
        if step == 0:
            row, column = row - 1, column - 1
            steps.append(HIT if reference[row] == hypothesis[column] else SUBSTITUTION)
        elif step == 1:
            row -= 1
            steps.append(DELETION)
        else:
            column -= 1
            steps.append(INSERTION)
    return "".join(reversed(steps))


def _backpointers(reference: Sequence[str], hypothesis: Sequence[str]) -> npt.NDArray[np.uint8]:
    """For each cell of the alignment 0 diagonal, 1 deletion, 2 insertion; shape (n + 1, m + 1)."""
    numbers: dict[str, int] = {}
    ref = [numbers.setdefault(word, len(numbers)) for word in reference]
    hyp = np.array([numbers.setdefault(word, len(numbers)) for word in hypothesis], dtype=np.int64)
    back = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.uint8)
    back[0] = 2
    ramp = INSERTION_COST * np.arange(len(hyp) + 1)
    above = ramp.copy()
    for index, word in enumerate(ref, start=1):
        diagonal = above[:-1] + np.where(hyp == word, 0, SUBSTITUTION_COST)
        deletion = above + DELETION_COST
        row = deletion.copy()
        row[1:] = np.minimum(row[1:], diagonal)
        # an insertion comes from the left of the same row: the running minimum does the whole row at once
        row = np.minimum.accumulate(row - ramp) + ramp
        insertion = row[:-1] + INSERTION_COST
        back[index, 0] = 1
        back[index, 1:] = np.where(
            (diagonal <= deletion[1:]) & (diagonal <= insertion), 0, np.where(deletion[1:] < insertion, 1, 2)
        )
        above = row
    return back


def count_steps(steps: str) -> Counts:
    """Counts of one alignment."""
    return Counts(*(steps.count(letter) for letter in (HIT, SUBSTITUTION, DELETION, INSERTION)))


def segments(steps_a: str, steps_b: str) -> list[Segment]:
    """The segments of one utterance, from its two alignments against the same reference.

    A port of `test_comp_sents`, less what only references with alternatives need. An utterance without two common
    correct words in a row is one segment; one without errors has none.
    """
    found: list[Segment] = []
    at_a = at_b = good_a = good_b = n_good = 0
    state = "before"

    def store(end_a: int, end_b: int) -> None:
        part_a = steps_a[max(good_a - (MIN_CORRECT_WORDS - 1), 0) : end_a + 1]
        part_b = steps_b[max(good_b - (MIN_CORRECT_WORDS - 1), 0) : end_b + 1]
        errors_a, errors_b = len(part_a) - part_a.count(HIT), len(part_b) - part_b.count(HIT)
        words = (len(part_a) - part_a.count(INSERTION) + len(part_b) - part_b.count(INSERTION)) // 2
        if errors_a or errors_b:
            found.append(Segment(words, errors_a, errors_b))

    while at_a < len(steps_a):
        while at_a < len(steps_a) and steps_a[at_a] == INSERTION:
            at_a, state = at_a + 1, "error"
        while at_b < len(steps_b) and steps_b[at_b] == INSERTION:
            at_b, state = at_b + 1, "error"
        both_correct = steps_a[at_a : at_a + 1] == HIT and steps_b[at_b : at_b + 1] == HIT
        if state == "before":
            if both_correct:
                good_a, good_b = at_a, at_b
            else:
                state = "error"
        elif both_correct:
            n_good = 1 if state == "error" else n_good + 1
            state = "good"
            if n_good == MIN_CORRECT_WORDS:
                store(at_a, at_b)
                good_a, good_b, state = at_a, at_b, "before"
        else:
            state = "error"
        at_a, at_b = min(at_a + 1, len(steps_a)), min(at_b + 1, len(steps_b))
    if state != "before" or at_b < len(steps_b):
        store(len(steps_a) - 1, len(steps_b) - 1)
    return found


def matched_pairs(refs: Sequence[str], hyps_a: Sequence[str], hyps_b: Sequence[str]) -> MatchedPairs:
    """Test two systems on the same utterances; texts are normalised, words are split at spaces.

    Raises:
        ScoreError: the numbers of texts differ, or an utterance is too long.
    """
    if not len(refs) == len(hyps_a) == len(hyps_b):
        raise ScoreError(
            f"{len(refs)} references, {len(hyps_a)} and {len(hyps_b)} hypotheses: each needs both"
        )
    found: list[Segment] = []
    for ref, hyp_a, hyp_b in zip(refs, hyps_a, hyps_b, strict=True):
        if ref == hyp_a == hyp_b:
            continue
        words = ref.split()
        found += segments(align(words, hyp_a.split()), align(words, hyp_b.split()))
    return summarize(found, n_utterances=len(refs))


def summarize(found: Sequence[Segment], n_utterances: int) -> MatchedPairs:
    """The test on segments that are already cut."""
    differences = np.array([segment.errors_a - segment.errors_b for segment in found], dtype=float)
    n = len(differences)
    mean = float(differences.mean()) if n else 0.0
    deviation = float(differences.std(ddof=1)) if n > 1 else 0.0
    z = mean / (deviation / math.sqrt(n)) if deviation else 0.0
    return MatchedPairs(
        n_utterances=n_utterances,
        n_segments=n,
        n_words=sum(segment.n_words for segment in found),
        errors_a=sum(segment.errors_a for segment in found),
        errors_b=sum(segment.errors_b for segment in found),
        mean=mean,
        standard_deviation=deviation,
        z=z,
        p_value=two_sided_t(z, math.inf),
    )
