"""Scores of runs: the same as of the texts, whichever way they are reached; Combined over all words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from db.evaluation_runs import PredictionRow
from evaluation.card import card_figure
from evaluation.normalizer import NORMALIZERS
from evaluation.run_scores import NORMALIZER_NAMES, combine, score_all, score_groups, score_rows, set_clusters
from evaluation.score import score

TEXTS = [
    ("Son as 10:30 h.", "son as dez e trinta horas"),
    ("Ola, bos días.", "Ola bos días"),
    ("con o can", "co gato"),
    ("", "inventado todo"),
    ("", ""),
    ("Ola, bos días.", None),
    ("Ata mañá", "até mañá"),
]


def row(key: str, reference: str, text: str | None, **known: str | None) -> PredictionRow:
    reason = "unreadable" if text is None else None
    values = {"speaker": None, "programme": None, "kind": None} | known
    return PredictionRow(
        utterance_id=1,
        key=key,
        audio=f"s/{key}",
        reference=reference,
        text=text,
        duration_samples=16_000,
        mean_logprob=-0.1,
        flags=[],
        failure_reason=reason,
        **values,
    )


ROWS = [
    row(str(n), reference, text, speaker="ana" if n % 2 else "uxía", programme="Diario" if n > 4 else None)
    for n, (reference, text) in enumerate(TEXTS)
]


def test_clusters_are_programmes_then_speakers_where_there_are_enough() -> None:
    many = [row(str(n), "a", "a", speaker=f"s{n % 6}", programme=f"p{n % 5}") for n in range(30)]
    assert set(set_clusters(many)) == {f"programme p{n}" for n in range(5)}
    one_programme = [replace(each, programme="Diario") for each in many]
    assert set(set_clusters(one_programme)) == {f"speaker s{n}" for n in range(6)}
    one_speaker = [replace(each, programme=None, speaker="ana") for each in many]
    assert len(set(set_clusters(one_speaker))) == 30


@pytest.mark.parametrize("name", NORMALIZER_NAMES)
def test_a_run_scores_as_its_texts_do(name: str) -> None:
    scored = [(reference, text) for reference, text in TEXTS if text is not None]
    expected = score(  # over utterances: two speakers and one programme are too few to be resampled
        [reference for reference, _ in scored],
        [text for _, text in scored],
        normalizer=NORMALIZERS[name],
    )
    one = score_rows(ROWS, name)
    assert one.score == expected
    assert score_all(ROWS)[name].score == expected
    assert (one.n_failed, one.n_clusters) == (1, 6)
    assert one.score.insertions_on_empty == 2


def test_combined_is_over_all_words_and_keeps_the_sets_speakers_apart() -> None:
    scores = {"a": score_rows(ROWS[:3]), "b": score_rows(ROWS[3:])}
    combined = combine(scores)
    whole = score_rows(ROWS)
    assert combined.score is not None
    assert whole.score is not None
    assert combined.score.wer.counts == whole.score.wer.counts
    assert combined.score.cer.counts == whole.score.cer.counts
    assert combined.n_clusters == scores["a"].n_clusters + scores["b"].n_clusters
    assert combined.n_failed == 1
    with pytest.raises(ValueError, match="of one normaliser"):
        combine({"a": score_rows(ROWS), "b": score_rows(ROWS, "galician")})


def test_groups_and_runs_without_a_text() -> None:
    groups = score_groups(ROWS, lambda found: found.programme)
    assert list(groups) == [None, "Diario"]
    assert len(groups["Diario"].keys) == 1
    nothing = score_rows([ROWS[5]])
    assert nothing.score is None
    assert nothing.n_failed == 1
    assert combine({"a": nothing, "b": score_rows(ROWS)}).score == combine({"b": score_rows(ROWS)}).score
    assert combine({"a": nothing}).score is None


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("CommonVoice", "CommonVoice"),
        ("common_voice", "CommonVoice"),
        ("Mozilla Common Voice", "CommonVoice"),
        ("FLEURS", "FLEURS"),
        ("google/fleurs", "FLEURS"),
        ("FalAI", "FalAI"),
        ("fal-ai", "FalAI"),
        ("openslr77", "OpenSLR"),
        ("TranscriSpeech", "Transcrispeech"),
        ("radio", None),
    ],
)
def test_the_cards_datasets_are_known_by_their_usual_names(name: str, dataset: str | None) -> None:
    figure = card_figure(name)
    assert (figure.dataset if figure else None) == dataset
