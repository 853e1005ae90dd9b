"""Counts of each utterance are jiwer's, and clusters are what the caller named."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.counts import (
    Counts,
    EditCounts,
    ScoreError,
    check_lengths,
    count_many_characters,
    count_many_words,
    group_indices,
)

steady = settings(deadline=None, derandomize=True)
"""A busy machine fails no example, and every run tries the same ones."""

TEXTS = st.lists(st.sampled_from(["o", "vento", "ñandú", "choveu", "á"]), max_size=12).map(" ".join)


@steady
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=20))
def test_counts_of_each_utterance_are_jiwers_to_the_last_digit(pairs: list[tuple[str, str]]) -> None:
    refs, hyps = [ref for ref, _ in pairs], [hyp for _, hyp in pairs]
    words, characters = count_many_words(refs, hyps), count_many_characters(refs, hyps)
    for index, (ref, hyp) in enumerate(pairs):
        for counts, process in ((words, jiwer.process_words), (characters, jiwer.process_characters)):
            expected = process(ref, hyp)
            assert counts.take(np.array([index])).total == Counts(
                expected.hits, expected.substitutions, expected.deletions, expected.insertions
            )
    if words.total.reference_length:
        assert words.total.rate == jiwer.wer(refs, hyps)
        assert characters.total.rate == jiwer.cer(refs, hyps)


def test_blocks_leave_every_utterance_in_its_place() -> None:
    refs = [f"a {index}" for index in range(2_500)]
    hyps = [ref if index % 3 else ref + " x" for index, ref in enumerate(refs)]
    counts = count_many_words(refs, hyps)
    assert counts.insertions.tolist() == [0 if index % 3 else 1 for index in range(2_500)]


def test_rows_and_arrays_hold_the_same() -> None:
    rows = [Counts(3, 1, 0, 2), Counts(0, 0, 4, 0)]
    counts = EditCounts.of(rows)
    assert len(counts) == 2
    assert counts.errors.tolist() == [3, 4]
    assert counts.reference_lengths.tolist() == [4, 4]
    assert counts.total == rows[0] + rows[1]


def test_an_utterance_without_a_known_cluster_stands_alone() -> None:
    assert group_indices(["ana", None, "ana", None, "xan"], 5).tolist() == [0, 1, 0, 2, 3]
    assert group_indices(None, 3).tolist() == [0, 1, 2]


def test_clusters_must_be_as_many_as_utterances() -> None:
    with pytest.raises(ScoreError, match="2 references, 2 hypotheses and 1 clusters"):
        check_lengths(["a", "b"], ["a", "b"], ["ana"])
