"""Everything that training and held-out data share is found, with examples, and nothing else."""

from __future__ import annotations

import random

import pytest

from evaluation.overlap import ManifestRow, Overlap, Shared, find_overlaps, shingles

VOCABULARY = ["o", "vento", "norte", "choveu", "moito", "en", "lugo", "onte", "á", "noite"]


def row(text: str, dataset: str = "CommonVoice", split: str = "train", **more: str) -> ManifestRow:
    return ManifestRow(audio=f"{text}.flac", text=text, duration_s=2.5, dataset=dataset, split=split, **more)


def by_kind(training: list[ManifestRow], held_out: list[ManifestRow]) -> dict[Shared, Overlap]:
    return {overlap.kind: overlap for overlap in find_overlaps(training, held_out)}


def test_equal_texts_are_found_after_normalising_and_across_datasets() -> None:
    held_out = [row("O vento, do norte!", split="test"), row("choveu", split="test"), row("", split="test")]
    found = by_kind([row("o vento do norte", dataset="FalAI"), row("")], held_out)[Shared.TEXT]
    assert (found.n_utterances, found.n_known, found.n_values, found.duration_s) == (1, 2, 1, 2.5)
    assert found.share == 0.5
    assert found.examples[0].held_out is held_out[0]
    assert found.examples[0].training.dataset == "FalAI"


def test_an_utterance_read_by_many_counts_each_time_and_its_text_once() -> None:
    held_out = [row("o vento do norte", split="test", speaker=str(index)) for index in range(7)]
    found = by_kind([row("o vento do norte", speaker="x")], held_out)[Shared.TEXT]
    assert (found.n_utterances, found.n_values, len(found.examples)) == (7, 1, 1)


def test_similar_texts_are_found_apart_from_equal_ones() -> None:
    long = "a xunta e o comité de empresa chegaron onte a un acordo sobre o prezo do leite en lugo"
    found = by_kind([row(long + " hoxe"), row("outra cousa"), row(long)], [row(long, split="test")])
    assert found[Shared.SIMILAR_TEXT].n_utterances == 1
    assert found[Shared.SIMILAR_TEXT].examples[0].training.text.endswith("hoxe")
    assert found[Shared.TEXT].n_utterances == 1
    far = by_kind(
        [row(long.replace("comité", "consello").replace("acordo", "pacto"))], [row(long, split="test")]
    )
    assert far[Shared.SIMILAR_TEXT].n_utterances == 0


@pytest.mark.parametrize("similarity", [0.5, 0.8, 1.0])
def test_similar_texts_are_exactly_those_of_comparing_all(similarity: float) -> None:
    generator = random.Random(5)
    made = [" ".join(generator.choices(VOCABULARY, k=generator.randint(1, 9))) for _ in range(150)]
    training = made + [
        " ".join(word for word in text.split() if generator.random() > 0.1) + generator.choice(["", " o"])
        for text in made
    ]
    expected = {
        text
        for text in made
        for other in training
        if other.strip()
        and text != other.strip()
        and len(shingles(text) & shingles(other)) >= similarity * len(shingles(text) | shingles(other)) - 1e-9
    }
    overlaps = find_overlaps(
        [row(text) for text in training],
        [row(text, split="test") for text in made],
        similarity=similarity,
        max_examples=1_000,
    )
    similar = next(overlap for overlap in overlaps if overlap.kind is Shared.SIMILAR_TEXT)
    assert {example.held_out.text for example in similar.examples} == expected


def test_audio_is_compared_across_datasets_and_names_within_one() -> None:
    training = [row("a", sha256="AB", speaker="ana", programme="Informativo")]
    same = row("b", split="test", sha256="ab", speaker="ana", programme="Informativo")
    other = row("c", dataset="FLEURS", split="test", sha256="ab", speaker="ana", programme="Informativo")
    unknown = row("d", split="test")
    found = {
        (o.dataset, o.kind): (o.n_utterances, o.n_known)
        for o in find_overlaps(training, [same, other, unknown])
    }
    for kind in (Shared.AUDIO, Shared.SPEAKER, Shared.PROGRAMME):
        assert found["CommonVoice", kind] == (1, 1)
    assert found["FLEURS", Shared.AUDIO] == (1, 1)
    assert found["FLEURS", Shared.SPEAKER] == (0, 1)


def test_every_set_is_reported_for_every_kind_even_without_overlap() -> None:
    overlaps = find_overlaps([], [row("a", split="test"), row("b", dataset="FLEURS", split="test")])
    assert [(overlap.dataset, overlap.kind) for overlap in overlaps] == [
        (dataset, kind) for dataset in ("CommonVoice", "FLEURS") for kind in Shared
    ]
    assert all(overlap.n_utterances == 0 and overlap.share == 0 for overlap in overlaps)


def test_texts_shorter_than_a_trigram_are_compared_whole() -> None:
    assert shingles("si") == {("<", "si", ">")}
    assert by_kind([row("si")], [row("non", split="test")])[Shared.SIMILAR_TEXT].n_utterances == 0
