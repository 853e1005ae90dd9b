"""Makes a corpus: texts are drawn, spoken, and put into a condition, chunk by chunk.

Chunks of half an hour are independent: each has a seed of its own and a process of its own, as espeak-ng carries
state from clip to clip. So the corpus depends on the seed and hours alone, not on how many processes make it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.synthetic.acoustics import CONDITIONS, degrade, nothing
from training.synthetic.corpus import SAMPLE_RATE_HZ, Clip, Corpus, CorpusWriter, to_int16
from training.synthetic.espeak import Delivery, Speech, Voice, espeak_version, speak
from training.synthetic.pronunciation import SILENCE, espeak_input
from training.synthetic.texts import draw_text, read_lexicon, split_of, take_lexicon
from training.synthetic.voices import draw_delivery, draw_voice

__all__ = ["Recipe", "Spoken", "make_condition", "make_corpus", "silent_clip", "speak_texts"]

CHUNK_S = 1800.0
MAX_CLIP_S = 25.0
Samples = npt.NDArray[np.float32]
_Job = tuple[str, Voice, Delivery, str, int]
"""Text, voice, delivery, condition, seed."""


@dataclass(frozen=True)
class Recipe:
    """All that a corpus depends on, beside the code and the version of espeak-ng."""

    hours: float = 30.0
    seed: int = 1
    parts: Mapping[str, float] = field(
        default_factory=lambda: {
            "news": 0.54, "prose": 0.24, "words": 0.11, "interface": 0.04, "fragments": 0.04, "nothing": 0.03,
        }
    )  # fmt: skip
    """Share of the time of each part; parts that are left out are not made."""
    conditions: Mapping[str, float] = field(
        default_factory=lambda: {
            "clean": 0.46, "noise": 0.11, "music": 0.08, "babble": 0.07, "room": 0.08, "telephone": 0.06,
            "coded": 0.05, "mixed": 0.09,
        }
    )  # fmt: skip
    """Share of the clips in each of `acoustics.CONDITIONS`."""


@dataclass(frozen=True)
class Spoken:
    """A clip in memory, before it has a place in a corpus."""

    clip: Clip
    samples: Samples


def make_corpus(
    folder: Path, recipe: Recipe, *, processes: int = 2, on_progress: Callable[[float], None] | None = None
) -> Corpus:
    """Make a corpus of at least `recipe.hours` in a folder; one that is there is replaced.

    Args:
        on_progress: called with the hours made so far.

    Raises:
        EspeakMissing: espeak-ng is not installed.
    """
    n_chunks = max(1, round(recipe.hours * 3600 / CHUNK_S))
    chunk_s = recipe.hours * 3600 / n_chunks
    about = {**asdict(recipe), "espeak_ng": espeak_version()}
    with CorpusWriter(folder, about) as writer:
        jobs = [(recipe, index, chunk_s, folder / f"chunk-{index:05d}.i16") for index in range(n_chunks)]
        for clips, path in _in_order(_make_chunk, jobs, processes, read_lexicon()):
            writer.append(clips, path.read_bytes())
            path.unlink()
            if on_progress:
                on_progress(writer.n_samples / SAMPLE_RATE_HZ / 3600)
    return Corpus.open(folder)


def make_condition(
    folder: Path, *, minutes: float, voice: Voice | None, condition: str, seed: int, test_minutes: float = 5.0
) -> Corpus:
    """A small corpus of news in one voice, one condition, or both: something new to fine-tune a model on.

    Splits `train` of `minutes`, `validation` and `test` of `test_minutes` each: what is to choose settings by has to
    be as large as what tells how good they were. No text is in two of them, and those of `test` are in no training
    corpus.

    Args:
        voice: None draws one of the seen voices for each clip.

    Raises:
        EspeakMissing: espeak-ng is not installed.
        ValueError: there is no such voice or condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"there is no condition {condition!r}: choose of {', '.join(CONDITIONS)}")
    rng = random.Random(f"{seed}/{voice}/{condition}")  # noqa: S311
    left_s = {"train": minutes * 60, "validation": test_minutes * 60, "test": test_minutes * 60}
    about = {"voice": str(voice or ""), "condition": condition, "minutes": minutes, "seed": seed}
    with CorpusWriter(folder, {**about, "espeak_ng": espeak_version()}) as writer:
        while any(left > 0 for left in left_s.values()):
            for spoken in speak_texts(_condition_jobs(left_s, voice, condition, rng), "news"):
                split = spoken.clip.split
                if left_s[split] > 0:
                    writer.append([spoken.clip], to_int16(spoken.samples))
                    left_s[split] -= len(spoken.samples) / SAMPLE_RATE_HZ
    return Corpus.open(folder)


def _condition_jobs(
    left_s: Mapping[str, float], voice: Voice | None, condition: str, rng: random.Random
) -> list[_Job]:
    """About as many texts of each split as are still needed."""
    wanted = {split: int(max(0.0, left) / 4) + (left > 0) for split, left in left_s.items()}
    texts: dict[str, None] = {}
    while any(wanted.values()):
        text = draw_text("news", rng)
        split = split_of(text)
        if wanted[split] > 0 and text not in texts:
            texts[text] = None
            wanted[split] -= 1
    return [(t, voice or draw_voice(rng), draw_delivery(rng), condition, rng.randrange(2**31)) for t in texts]


def speak_texts(jobs: Sequence[_Job], part: str) -> list[Spoken]:
    """Speak given texts, each with its voice, delivery, condition and seed, in a process of their own.

    The same jobs give the same samples.
    """
    return next(iter(_in_order(_speak_texts, [(tuple(jobs), part)], 1)))


def _in_order(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], processes: int, lexicon: Any = ((), ())
) -> Iterator[Any]:
    """Results in the order of the jobs, each from a fresh process, with few waiting to be taken."""
    # spawn: a fork of a process that uses torch's threads may hang
    with ProcessPoolExecutor(
        processes, get_context("spawn"), take_lexicon, (lexicon,), max_tasks_per_child=1
    ) as pool:
        waiting: list[Future[Any]] = []
        try:
            for job in jobs:
                waiting.append(pool.submit(work, *job))
                if len(waiting) > processes + 1:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _make_chunk(recipe: Recipe, index: int, chunk_s: float, path: Path) -> tuple[list[Clip], Path]:
    rng = random.Random(f"{recipe.seed}/{index}")  # noqa: S311 (a reproducible draw, no secret)
    spare = {part: share for part, share in recipe.parts.items() if share > 0}
    total = sum(spare.values())
    left_s = {part: chunk_s * share / total for part, share in spare.items()}
    clips: list[Clip] = []
    recent: list[Samples] = []
    with path.open("wb") as audio:
        while (part := max(left_s, key=lambda name: left_s[name])) and left_s[part] > 0:
            spoken = _draw_clip(recipe, part, recent, rng)
            if spoken is None:
                continue
            left_s[part] -= len(spoken.samples) / SAMPLE_RATE_HZ
            clips.append(spoken.clip)
            audio.write(to_int16(spoken.samples).tobytes())
    return clips, path


def _draw_clip(recipe: Recipe, part: str, recent: list[Samples], rng: random.Random) -> Spoken | None:
    """One clip, or None where the draw is not to be trained on."""
    seed = rng.randrange(2**31)
    if part == "nothing":
        return silent_clip(rng.uniform(0.5, 12.0), seed, "validation" if rng.random() < 0.02 else "train")
    text = draw_text(part, rng)
    split = split_of(text)
    if split == "test":
        return None
    voice, delivery = draw_voice(rng), draw_delivery(rng)
    condition = rng.choices(list(recipe.conditions), list(recipe.conditions.values()))[0]
    speech = speak(espeak_input(text, linked=rng.random() < 0.8), voice, delivery, seed=seed)
    if not 0.2 < len(speech.samples) / SAMPLE_RATE_HZ < MAX_CLIP_S:
        return None
    spoken = _finished(speech, text, part, voice, condition, split, recent, seed)
    recent.append(speech.samples)
    del recent[:-8]
    return spoken


def _speak_texts(jobs: tuple[_Job, ...], part: str) -> list[Spoken]:
    recent: list[Samples] = []
    made = []
    for text, voice, delivery, condition, seed in jobs:
        speech = speak(espeak_input(text), voice, delivery, seed=seed)
        made.append(_finished(speech, text, part, voice, condition, split_of(text), recent, seed))
        recent.append(speech.samples)
        del recent[:-8]
    return made


def silent_clip(duration_s: float, seed: int, split: str) -> Spoken:
    """A clip without speech, whose text is empty."""
    samples, kind = nothing(int(duration_s * SAMPLE_RATE_HZ), np.random.default_rng(seed))
    ends_ms = (round(len(samples) * 1000 / SAMPLE_RATE_HZ),)
    return Spoken(Clip(0, len(samples), "", "nothing", "", kind, (SILENCE,), ends_ms, split), samples)


def _finished(
    speech: Speech,
    text: str,
    part: str,
    voice: Voice,
    condition: str,
    split: str,
    others: Sequence[Samples],
    seed: int,
) -> Spoken:
    """Speech with a little silence around it, in its condition."""
    rng = np.random.default_rng(seed)
    before, after = (int(rng.uniform(0.03, 0.35) * SAMPLE_RATE_HZ) for _ in range(2))
    padded = np.concatenate([np.zeros(before, np.float32), speech.samples, np.zeros(after, np.float32)])
    samples = degrade(condition, padded, others, rng)
    shift_ms = round(before * 1000 / SAMPLE_RATE_HZ)
    phonemes = (SILENCE, *speech.phonemes)
    ends_ms = [shift_ms, *(end + shift_ms for end in speech.phoneme_ends_ms)]
    whole_ms = round(len(samples) * 1000 / SAMPLE_RATE_HZ)
    if phonemes[-1] == SILENCE:
        ends_ms[-1] = whole_ms
    else:
        phonemes, ends_ms = (*phonemes, SILENCE), [*ends_ms, whole_ms]
    clip = Clip(0, len(samples), text, part, str(voice), condition, phonemes, tuple(ends_ms), split)
    return Spoken(clip, samples)
