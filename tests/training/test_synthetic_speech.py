"""Synthetic speech: what espeak-ng is given and gives, what is done to it, and the corpus it becomes."""

import random
from pathlib import Path

import numpy as np
import pytest

from speech.audio import SAMPLE_RATE_HZ
from training.synthetic.__main__ import main
from training.synthetic.acoustics import CONDITIONS, add_at_snr, degrade, nothing
from training.synthetic.corpus import Clip, Corpus, CorpusError, CorpusWriter
from training.synthetic.espeak import Delivery, EspeakMissing, Voice, espeak_version, speak
from training.synthetic.letters import PHONEMES
from training.synthetic.make import Recipe, make_corpus
from training.synthetic.pronunciation import SILENCE, TABLES, clauses_of, espeak_input
from training.synthetic.test_sets import TestSetsChanged, make_test_sets
from training.synthetic.voices import SEEN_VARIANTS, UNSEEN_VARIANTS


def _missing() -> str:
    try:
        espeak_version()
    except EspeakMissing as error:
        return str(error)
    return ""


needs_espeak = pytest.mark.skipif(bool(_missing()), reason=_missing() or "it is there")

SENTENCE = "O xuíz chegou a Ourense coa muller, e un neno choraba na praia do Miño; logo chovía."


def tone(duration_s: float = 1.0) -> np.ndarray:
    time_s = np.arange(int(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.1 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)


@needs_espeak
@pytest.mark.parametrize("table", TABLES)
def test_every_table_speaks_the_sounds_that_it_is_asked_for(table: str) -> None:
    asked = [name for clause in clauses_of(SENTENCE) for word in clause.words for name in word.phonemes]
    speech = speak(espeak_input(SENTENCE, linked=False), Voice(table, "m3"), Delivery())
    spoken = [name for name in speech.phonemes if name != SILENCE]
    assert [name.replace("N", "n").lower() for name in spoken] == [
        name.replace("N", "n").lower() for name in asked
    ]
    assert list(speech.phoneme_ends_ms) == sorted(speech.phoneme_ends_ms)
    assert speech.phoneme_ends_ms[-1] == pytest.approx(len(speech.samples) * 1000 / SAMPLE_RATE_HZ, abs=20)


@needs_espeak
def test_all_phonemes_are_told_apart_by_ear_of_a_table() -> None:
    spoken = {
        name: speak(espeak_input(word), Voice("es", "m3"), Delivery()).phonemes
        for name, word in {
            "rr": "carro",
            "r": "caro",
            "N": "unha",
            "n": "una",
            "L": "ollo",
            "J": "viño",
        }.items()
    }
    assert all(name in phonemes for name, phonemes in spoken.items())


@needs_espeak
@pytest.mark.parametrize("variant", [*SEEN_VARIANTS[::9], *UNSEEN_VARIANTS])
def test_a_voice_speaks(variant: str) -> None:
    speech = speak(espeak_input("Boas noites"), Voice("es", variant), Delivery())
    assert np.abs(speech.samples).max() > 0.05
    assert set(speech.phonemes) <= {*PHONEMES, SILENCE}


@needs_espeak
def test_a_voice_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no voice xx\+nobody"):
        speak(espeak_input("Boas noites"), Voice("xx", "nobody"), Delivery())


def test_unseen_voices_are_in_no_corpus() -> None:
    assert not set(SEEN_VARIANTS) & set(UNSEEN_VARIANTS)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_keeps_time_and_stays_within_full_scale(condition: str) -> None:
    speech = tone()
    changed = degrade(condition, speech, [tone(0.3)], np.random.default_rng(4))
    again = degrade(condition, speech, [tone(0.3)], np.random.default_rng(4))
    assert changed.shape == speech.shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert 0.001 < np.abs(changed).max() <= 1.0
    assert np.array_equal(changed, again)


def test_what_is_behind_is_as_soft_as_asked() -> None:
    speech, behind = tone(), np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    added = add_at_snr(speech, behind, 12.0) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(12.0, abs=0.1)


def test_nothing_has_kinds() -> None:
    kinds = {nothing(2000, np.random.default_rng(seed))[1] for seed in range(40)}
    assert kinds == {"silence", "noise", "music", "tone"}


def made_clip(n_samples: int, text: str) -> Clip:
    return Clip(0, n_samples, text, "news", "es+m1", "clean", ("a", SILENCE), (5, 10), "train")


def test_a_corpus_is_read_as_it_was_written(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path, {"seed": 3}) as writer:
        writer.append([made_clip(3, "un"), made_clip(2, "dous")], np.array([1, 2, 3, 4, 5], np.int16))
        writer.append([made_clip(1, "tres")], np.array([-32768], np.int16))
    corpus = Corpus.open(tmp_path)
    assert [clip.text for clip in corpus.clips] == ["un", "dous", "tres"]
    assert [clip.start for clip in corpus.clips] == [0, 3, 5]
    assert corpus.samples_int16(1).tolist() == [4, 5]
    assert corpus.samples(2).tolist() == [-1.0]
    assert corpus.recipe == {"seed": 3}
    assert corpus.clips[0].phonemes == ("a", SILENCE)


def test_a_corpus_that_was_not_finished_is_none(tmp_path: Path) -> None:
    def stopped() -> None:
        with CorpusWriter(tmp_path, {}) as writer:
            writer.append([made_clip(1, "un")], np.array([1], np.int16))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with pytest.raises(CorpusError, match="no whole corpus"):
        Corpus.open(tmp_path)


def test_a_corpus_whose_audio_was_cut_is_refused(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path, {}) as writer:
        writer.append([made_clip(2, "un")], np.array([1, 2], np.int16))
    (tmp_path / "audio.i16").write_bytes(b"\0\0")
    with pytest.raises(CorpusError, match="has 1 samples"):
        Corpus.open(tmp_path)


@needs_espeak
@pytest.mark.slow
def test_a_seed_gives_the_same_corpus_by_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.synthetic.make.CHUNK_S", 12.0
    )  # three chunks: one spoken after another, or beside it
    recipe = Recipe(hours=0.01, seed=9)
    made = [make_corpus(tmp_path / str(n), recipe, processes=n) for n in (1, 2)]
    assert made[0].clips == made[1].clips
    assert (tmp_path / "1/audio.i16").read_bytes() == (tmp_path / "2/audio.i16").read_bytes()
    assert made[0].hours() >= 0.01
    assert {clip.part for clip in made[0].clips} >= {"news", "prose", "words", "nothing"}
    for clip in made[0].clips:
        assert (clip.text == "") == (clip.part == "nothing")
        assert clip.split in ("train", "validation")
        assert len(clip.phonemes) == len(clip.phoneme_ends_ms)
        assert abs(clip.phoneme_ends_ms[-1] - clip.n_samples / 16) <= 1


@needs_espeak
@pytest.mark.slow
def test_a_condition_is_made_with_its_manifest(tmp_path: Path) -> None:
    from training.manifest import read_manifest

    arguments = ["--voice", "pt+m7", "--condition", "shortwave", "--minutes", "0.3", "--test-minutes", "0.2"]
    assert main(["condition", *arguments, "--out", str(tmp_path)]) == 0
    manifest = read_manifest(tmp_path / "manifest.parquet")
    texts = {
        split: {u.text for u in manifest.of_split(split).utterances}
        for split in ("train", "validation", "test")
    }
    assert all(texts.values())
    assert not texts["train"] & texts["test"]
    assert {u.speaker for u in manifest.utterances} == {"pt+m7"}
    assert sum(u.duration_s for u in manifest.of_split("train").utterances) >= 18
    assert all((manifest.folders[u.dataset] / u.audio).is_file() for u in manifest.utterances)


@needs_espeak
@pytest.mark.slow
def test_the_frozen_test_sets_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_test_sets(tmp_path, names=["news", "nothing"])
    assert all(clip.text == "" for clip in made["nothing"].clips)
    monkeypatch.setattr("training.synthetic.test_sets.SEED", random.randrange(10**6))
    with pytest.raises(TestSetsChanged, match="the test sets nothing are not those"):
        make_test_sets(tmp_path, names=["nothing"])
