"""Guards trip on what a model invents, and let real speech and real repeats pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speech import guards as guards
from speech.guards import (
    ALARMS,
    LOOP,
    LOW_CONFIDENCE,
    MIN_RESPLIT_S,
    NO_SPEECH,
    RESPLIT,
    TOKEN_LIMIT,
    TOO_FAST,
    flags_for,
    keep_doubtful,
    quietest_cut,
    token_limit,
    tripped,
)
from speech.presence import hears_speech, looks_unlike_speech
from tests.demo_speech import sentences

RATE_HZ = 16_000
INVENTED = "Subtítulos realizados pola comunidade."

Clip = npt.NDArray[np.float32]
Sound = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def flags(text: str, clip: Clip | None = None, **given: float) -> tuple[str, ...]:
    """Flags of a text that the model is sure of, for a clip of plain speech unless another is given."""
    clip = _speech() if clip is None else clip
    return flags_for(
        text,
        clip=clip,
        n_tokens=int(given.get("n_tokens", 20)),
        ended=bool(given.get("ended", True)),
        mean_logprob=given.get("mean_logprob", -0.1),
        limit=token_limit(len(clip) / RATE_HZ),
    )


def _speech() -> Clip:
    """25 s: any text of a sensible length fits."""
    return np.concatenate([sentence.clip for sentence in sentences()[:8]])[: 25 * RATE_HZ]


def _at_level(sound: npt.NDArray[np.float64], level_db: float) -> Clip:
    return (sound * 10 ** (level_db / 20) / np.sqrt(np.mean(sound**2))).astype(np.float32)


def _with(clip: Clip, sound: npt.NDArray[np.float64], snr_db: float) -> Clip:
    level_db = 10 * math.log10(float(np.mean(clip**2))) - snr_db
    return clip + _at_level(sound, level_db)


def _tilted(generator: np.random.Generator, n: int, db_per_octave: float) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(generator.normal(size=n))
    hertz = np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 20)
    return np.fft.irfft(spectrum * hertz ** (db_per_octave / 6.02), n)


def _white(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return generator.normal(size=n)


def _pink(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return _tilted(generator, n, -3)


def _wind(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    gusts = np.abs(_tilted(generator, n, -9))
    return _tilted(generator, n, -4.5) * (gusts / gusts.max() + 0.05)


def _tone(_: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return np.sin(2 * np.pi * 440 * np.arange(n) / RATE_HZ)


def _hum(_: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return sum(
        (np.sin(2 * np.pi * 50 * k * np.arange(n) / RATE_HZ) / k for k in (1, 2, 3, 5, 7)), np.zeros(n)
    )


def _dialling(_: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    seconds = np.arange(n) / RATE_HZ
    return (np.sin(2 * np.pi * 770 * seconds) + np.sin(2 * np.pi * 1336 * seconds)) * (seconds % 0.3 < 0.12)


def _note(hertz: float, n: int, decay_per_s: float) -> npt.NDArray[np.float64]:
    seconds = np.arange(n) / RATE_HZ
    partials = [np.sin(2 * np.pi * k * hertz * seconds) / k**1.3 for k in range(1, 7)]
    ends = np.minimum(1, np.minimum(seconds, seconds[::-1]) / 0.03)
    return ends * np.exp(-decay_per_s * seconds) * np.sum(partials, axis=0)


def _music(
    generator: np.random.Generator, n: int, *, step_s: float, intervals: tuple[int, ...], decay_per_s: float
) -> npt.NDArray[np.float64]:
    step = int(step_s * RATE_HZ)
    sound = np.zeros(n + step)
    for start in range(0, n, step):
        root = generator.choice([0, 2, 4, 5, 7, 9, 11, 12])
        for interval in intervals:
            hertz = 220 * 2 ** ((root + interval) / 12)
            sound[start : start + step] += _note(hertz, step, decay_per_s)
    return sound[:n]


def _chords(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return _music(generator, n, step_s=1.5, intervals=(0, 4, 7, 12), decay_per_s=3)


def _organ(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return _music(generator, n, step_s=1.2, intervals=(0, 4, 7), decay_per_s=0)


def _melody(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return _music(generator, n, step_s=0.3, intervals=(12,), decay_per_s=3)


def _drums(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    sound = np.zeros(n + RATE_HZ)
    seconds = np.arange(RATE_HZ // 4) / RATE_HZ
    for beat, start in enumerate(range(0, n, int(0.27 * RATE_HZ))):
        snare = generator.normal(size=len(seconds)) * np.exp(-20 * seconds)
        kick = np.sin(2 * np.pi * 60 * seconds) * np.exp(-15 * seconds)
        sound[start : start + len(seconds)] += snare if beat % 2 else kick
    return sound[:n]


def _band(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return _chords(generator, n) * 0.5 + _melody(generator, n) * 0.7 + _drums(generator, n)


def _clicks(generator: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    sound = np.zeros(n)
    for start in generator.integers(0, n - 100, n // 2_000):
        sound[start : start + 100] += generator.normal(size=100) * np.exp(-np.arange(100) / 15)
    return sound


SOUNDS: dict[str, Sound] = {
    sound.__name__.strip("_"): sound
    for sound in (
        *(_white, _pink, _wind, _tone, _hum, _dialling, _clicks),
        *(_chords, _organ, _melody, _drums, _band),
    )
}


# text where there is no speech


@pytest.mark.parametrize("level_db", [-15, -55])
@pytest.mark.parametrize("duration_s", [3, 12])
@pytest.mark.parametrize("kind", SOUNDS)
def test_text_on_sound_without_speech_is_flagged(kind: str, duration_s: int, level_db: float) -> None:
    sound = SOUNDS[kind](np.random.default_rng(duration_s), duration_s * RATE_HZ)
    clip = _at_level(sound, level_db)
    assert flags(INVENTED, clip) == (NO_SPEECH,)
    assert flags("Grazas.", clip) == (NO_SPEECH,)
    assert flags("", clip) == ()


@pytest.mark.parametrize("n_samples", [400, 16_000, 640_000])
@pytest.mark.parametrize("level", [0.0, 1 / 32_768, 1e-9])
def test_text_on_silence_is_flagged(n_samples: int, level: float) -> None:
    hiss = np.random.default_rng(2).normal(size=n_samples).astype(np.float32) * np.float32(level)
    assert NO_SPEECH in flags("Si.", hiss)


def test_a_long_text_on_a_word_and_music_is_flagged() -> None:
    """Speech is there, but nowhere near enough for so long a text."""
    generator = np.random.default_rng(4)
    word = sentences()[3].clip[16_000:24_000]
    music = _at_level(_band(generator, 20 * RATE_HZ), -25)
    music[: len(word)] = word
    assert hears_speech(music, 0.3)
    invented = " ".join(sentence.text for sentence in sentences()[20:24])
    assert flags(invented, music) == (NO_SPEECH,)
    assert flags("Boas tardes.", music) == ()


@pytest.mark.parametrize("gain_db", [0, -40])
@pytest.mark.parametrize("snr_db", [None, 20, 10])
@pytest.mark.parametrize("kind", ["white", "band"])
def test_speech_under_noise_is_speech(kind: str, snr_db: float | None, gain_db: float) -> None:
    generator = np.random.default_rng(7)
    for sentence in sentences()[::16]:
        clip = sentence.clip
        if snr_db is not None:
            clip = _with(clip, SOUNDS[kind](generator, len(clip)), snr_db)
        clip = clip * np.float32(10 ** (gain_db / 20))
        assert flags(sentence.text, clip) == ()
        assert hears_speech(clip, 0.5)


def test_halves_and_padded_sentences_are_speech() -> None:
    silence = np.zeros(10 * RATE_HZ, np.float32)
    for sentence in sentences()[4::8]:
        cut = quietest_cut(sentence.clip)
        share = cut / len(sentence.clip)
        at = int(share * len(sentence.text))
        assert flags(sentence.text[:at], sentence.clip[:cut]) == ()
        assert flags(sentence.text[at:], sentence.clip[cut:]) == ()
        assert flags(sentence.text, np.concatenate([silence, sentence.clip, silence])) == ()


def test_a_loop_on_speech_is_not_called_text_without_speech() -> None:
    """Its length says nothing about the speech that it began with."""
    clip = sentences()[0].clip
    assert flags("e " * 300, clip) == (LOOP, TOO_FAST)
    assert flags(sentences()[0].text, clip, mean_logprob=-3.0) == (LOW_CONFIDENCE,)


def test_plain_speech_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """silero would cost more than the transcription."""
    heard: list[Clip] = []
    monkeypatch.setattr(guards, "hears_speech", lambda clip, at_least_s: heard.append(clip) or True)
    generator = np.random.default_rng(1)
    for sentence in sentences()[::2]:
        flags(sentence.text, _with(sentence.clip, _pink(generator, len(sentence.clip)), 15))
    assert not heard
    flags("", np.zeros(RATE_HZ, np.float32))
    assert not heard, "an empty text needs no speech"
    flags("Si.", _speech())
    flags(INVENTED, sentences()[0].clip, mean_logprob=-1.5)
    assert len(heard) == 2, "few words, or an unsure model: worth a look"


def test_listening_is_the_same_for_any_length_of_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = np.concatenate([np.zeros(5 * RATE_HZ, np.float32), sentences()[0].clip])
    assert hears_speech(clip, 2.0)
    assert not hears_speech(clip, 6.0)
    monkeypatch.setattr("speech.presence._PIECE_SAMPLES", 512)
    assert hears_speech(clip, 2.0)
    assert not hears_speech(clip, 6.0)


@settings(max_examples=50, deadline=None)
@given(
    n_samples=st.integers(400, 20_000), seed=st.integers(0, 99), scale=st.sampled_from([0.0, 1e-20, 1.0, 1e4])
)
def test_any_finite_clip_can_be_judged(n_samples: int, seed: int, scale: float) -> None:
    clip = np.random.default_rng(seed).normal(size=n_samples).astype(np.float32) * np.float32(scale)
    assert looks_unlike_speech(clip)
    assert NO_SPEECH in flags("Si.", clip)


# loops


@pytest.mark.parametrize(
    "text",
    [
        "o vento do norte e e e e e",
        "o vento e, e, e, e, e do norte",
        "Moitas grazas. moitas grazas, Moitas grazas! Moitas grazas.",
        "na praza do Toural. men na praza do Toural. meb na praza do Toural. na praza do Toural. meleo",
        "Comeza o programa. un dous tres un dous tres un dous tres un dous tres e acabou.",
        "7 7 7 7 7 7",
        "aaaaaa",
        "e despois aaaaaaaaaaaaaaa",
        "lalalalalalala",
        "0000000000000000",
        "non-si-non-si-non-si-non-si-non-si-non-si",
        "......",
        " ".join(["O presidente da Xunta visitou onte o porto de Vigo e falou cos mariñeiros."] * 3),
    ],
)
def test_loops_are_flagged(text: str) -> None:
    assert LOOP in flags(text)


@pytest.mark.parametrize(
    "text",
    [
        "non, non e non, dixo; moi moi ben",
        "Ha ha ha! Que risa! Ha ha ha ha.",
        "jajajaja, si, si, si, claro, si",
        "Gol! Gol! Gol! Gol do Celta!",
        "O Lugo 1-1 Racing, Celta 2-2 Betis, Breogán 3-3 Obradoiro, Deportivo 1-1, 1-1, 1-1 e 1-1.",
        "Chamen ao 986 22 22 22 ou ao 600-00-00-00, repito, nove oito seis, vinte e dous, vinte e dous, vinte e dous.",
        "Son 1.000.000.000.000 de euros, 1000000 por ano.",
        "O PP o trinta por cento dos votos, o BNG o vinte por cento dos votos e o PSOE o dez por cento dos votos.",
        "trinta por cento dos votos para o PP, vinte por cento dos votos para o BNG, dez por cento dos votos para min",
        "un, dous, tres, catro, cinco, seis, sete, oito, nove, dez",
        "Santa María, roga por nós. San Xosé, roga por nós. San Pedro, roga por nós. Santa Ana, roga por nós.",
        "Pois... eu... non sei...",
        "tic tac tic tac tic tac",
    ],
)
def test_real_repeats_are_not(text: str) -> None:
    assert flags(text) == ()


def test_nothing_that_is_said_in_the_test_sentences_is_a_loop() -> None:
    texts = [sentence.text for sentence in sentences()]
    for start in range(0, len(texts) - 5):
        assert LOOP not in flags(" ".join(texts[start : start + 5]))


WORDS = st.lists(
    st.sampled_from(["auga", "vai", "polo", "río", "abaixo", "e", "chega", "ao", "mar", "con", "sal"]),
    max_size=12,
)


@given(before=WORDS, phrase=WORDS.filter(lambda words: 0 < len(words) <= 8), after=WORDS)
def test_a_phrase_five_times_running_is_a_loop_wherever_it_stands(
    before: list[str], phrase: list[str], after: list[str]
) -> None:
    assert LOOP in flags(" ".join([*before, *phrase * 5, *after]))


@given(order=st.permutations([sentence.text for sentence in sentences()[:12]]), at=st.integers(0, 12))
def test_different_sentences_are_no_loop_and_one_four_times_running_is(order: list[str], at: int) -> None:
    once = [text for number, text in enumerate(order[:5]) if text not in order[:number]]
    assert LOOP not in flags(" ".join(once))
    loop = [*once[:at], *[order[5]] * 4, *once[at:]]
    assert LOOP in flags(" ".join(loop))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400))
@example("")
@example("\u0301" * 400)
@example("ab" * 3_000)
@example("abcdefghijk" * 5 + "x")
def test_flags_are_ordered_alarms_for_any_text(text: str) -> None:
    found = flags(text, sentences()[0].clip)
    assert set(found) <= ALARMS
    assert list(found) == [flag for flag in guards._ORDER if flag in found]


# length, speed, confidence


def test_a_text_that_was_cut_off_is_flagged() -> None:
    clip = sentences()[0].clip
    limit = token_limit(len(clip) / RATE_HZ)
    assert flags(sentences()[0].text, clip, n_tokens=limit, ended=False) == (TOKEN_LIMIT,)
    assert flags(sentences()[0].text, clip, n_tokens=limit + 1) == (TOKEN_LIMIT,)
    assert flags(sentences()[0].text, clip, n_tokens=limit) == ()


def test_faster_than_anybody_speaks_is_flagged() -> None:
    clip = sentences()[0].clip
    twice = " ".join(sentence.text for sentence in sentences()[:2])
    assert flags(twice, clip[: 2 * len(clip) // 3]) == (TOO_FAST,)
    assert flags(sentences()[0].text, clip[: 2 * len(clip) // 3]) == ()


@pytest.mark.parametrize(
    ("mean_logprob", "found"),
    [(-0.99, ()), (-1.01, (LOW_CONFIDENCE,)), (math.nan, (LOW_CONFIDENCE,)), (-math.inf, (LOW_CONFIDENCE,))],
)
def test_what_the_model_doubts_is_flagged(mean_logprob: float, found: tuple[str, ...]) -> None:
    assert flags(sentences()[0].text, sentences()[0].clip, mean_logprob=mean_logprob) == found


@given(kept=st.lists(st.sampled_from([*sorted(ALARMS), RESPLIT])))
def test_every_alarm_that_is_kept_is_doubtful(kept: list[str]) -> None:
    result = keep_doubtful(kept)
    assert tripped(result) == tripped(kept) == (LOW_CONFIDENCE in result)
    assert set(kept) <= set(result) <= {*kept, LOW_CONFIDENCE}
    assert keep_doubtful(result) == result
    assert len(result) == len(set(result))


def test_resplit_is_no_alarm() -> None:
    assert not tripped((RESPLIT,))
    assert keep_doubtful((RESPLIT,)) == (RESPLIT,)
    assert keep_doubtful((RESPLIT, LOOP)) == (LOOP, LOW_CONFIDENCE, RESPLIT)


# where a clip is cut in two


def test_a_clip_is_cut_in_its_pause() -> None:
    first, second = sentences()[0].clip, sentences()[1].clip
    pause = np.zeros(4_800, np.float32)
    clip = np.concatenate([first, pause, second])
    # 0.2 s of near-silence lie at the end of each sentence too
    assert len(first) - 3_200 <= quietest_cut(clip) <= len(first) + len(pause) + 3_200


def test_a_real_pause_goes_before_a_shorter_stop() -> None:
    generator = np.random.default_rng(5)
    clip = generator.normal(0, 0.1, 8 * RATE_HZ).astype(np.float32)
    clip[48_000:49_280] = 0  # 80 ms, as in a long stop
    clip[72_000:76_800] *= np.float32(0.01)  # 300 ms, not quite silent
    assert 72_000 <= quietest_cut(clip) <= 76_800


def test_silence_is_cut_in_the_middle() -> None:
    n_samples = int(MIN_RESPLIT_S * RATE_HZ)
    assert abs(quietest_cut(np.zeros(n_samples, np.float32)) - n_samples // 2) <= 160


@settings(max_examples=60, deadline=None)
@given(n_samples=st.integers(1_600, 80_000), seed=st.integers(0, 99), silent=st.booleans())
@example(n_samples=64_000, seed=0, silent=False)
@example(n_samples=1_600, seed=0, silent=True)
def test_both_halves_are_clips(n_samples: int, seed: int, silent: bool) -> None:
    clip = np.random.default_rng(seed).normal(0, 0 if silent else 0.1, n_samples).astype(np.float32)
    cut = quietest_cut(clip)
    assert n_samples // 4 <= cut <= n_samples - n_samples // 4
    assert min(cut, n_samples - cut) >= 400


def test_too_short_to_cut() -> None:
    with pytest.raises(ValueError, match="too short to be cut"):
        quietest_cut(np.zeros(1_599, np.float32))
