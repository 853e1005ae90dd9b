"""Error rates are those of jiwer and of the definition, with their counts."""

from __future__ import annotations

import math

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.score import Counts, ScoreError, basic_normalizer, count_characters, count_words, score

steady = settings(deadline=None, derandomize=True)
"""A busy machine fails no example, and every run tries the same ones."""

WORDS = st.lists(st.sampled_from(["o", "vento", "do", "norte", "choveu"]), max_size=8).map(" ".join)


@steady
@given(pairs=st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=5))
def test_rates_equal_jiwers(pairs: list[tuple[str, str]]) -> None:
    refs, hyps = [ref for ref, _ in pairs], [hyp for _, hyp in pairs]
    result = score(refs, hyps)
    assert result.wer.value == pytest.approx(jiwer.wer(refs, hyps))
    assert result.cer.value == pytest.approx(jiwer.cer(refs, hyps))


def test_counts_of_a_known_pair() -> None:
    assert count_words("a b c d", "a x c d e") == Counts(hits=3, substitutions=1, deletions=0, insertions=1)
    assert count_characters("ab c", "abd c") == Counts(hits=4, substitutions=0, deletions=0, insertions=1)


def test_texts_are_normalised_as_the_model_card_does() -> None:
    assert score(["Boas tardes, Coruña!"], ["boas tardes coruña"]).wer.value == 0
    assert score(["Coruña"], ["Coruna"]).wer.value == 1


def test_text_on_an_empty_reference_counts_as_insertions() -> None:
    result = score(["", "o vento"], ["moitas grazas", "o vento"])
    assert result.insertions_on_empty == 2
    assert result.wer.counts == Counts(hits=2, substitutions=0, deletions=0, insertions=2)
    assert score([""], ["grazas"]).wer.value == math.inf
    assert score([""], [""]).wer.value == 0


def test_the_corpus_rate_is_over_all_words_not_a_mean_of_utterances() -> None:
    result = score(["a", "a b c d e f g h i"], ["x", "a b c d e f g h i"])
    assert result.wer.value == pytest.approx(1 / 10)


def test_intervals_are_repeatable_and_hold_the_rate() -> None:
    refs, hyps = ["a b c d"] * 60, ["a b c d"] * 40 + ["a b c x"] * 20
    first, again = score(refs, hyps), score(refs, hyps)
    assert (first.wer.low, first.wer.high) == (again.wer.low, again.wer.high)
    assert first.wer.low < first.wer.value < first.wer.high


def test_dependent_utterances_widen_the_interval() -> None:
    refs, hyps = ["a b c d"] * 60, ["a b c d"] * 40 + ["a b c x"] * 20
    speakers = [index // 10 for index in range(60)]
    by_utterance, by_speaker = score(refs, hyps), score(refs, hyps, clusters=speakers)
    assert by_speaker.wer.value == by_utterance.wer.value
    assert by_speaker.wer.high - by_speaker.wer.low > by_utterance.wer.high - by_utterance.wer.low


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ScoreError, match="1 references, 2 hypotheses"):
        score(["a"], ["a", "b"])
    with pytest.raises(ScoreError, match="nothing to score"):
        score([], [])


def test_normaliser_keeps_galician_letters() -> None:
    assert basic_normalizer("Años, É: «unha» cançón").split() == ["años", "é", "unha", "cançón"]
