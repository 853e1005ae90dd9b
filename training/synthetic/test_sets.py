"""Test sets of synthetic speech, made once: nothing in them is trained on, and nothing is tuned on them.

Each is a function of its texts, the code of this folder and the version of espeak-ng; `data/test_sets.json` holds the
texts, and the SHA-256 of each set (`sha256_of`), so that whoever makes them again knows that they are the same.

| set | what |
|---|---|
| domain | sentences of the templates that are in no corpus, voices and conditions as in training, clean |
| unseen_voices | the same kind of sentences, by voice variants that are in no corpus, clean |
| degraded | the same, seen voices, condition mixed |
| long | 10 to 25 s: two to five such sentences after each other, clean |
| news | `data/handwritten_news.txt`, seen voices, clean |
| interface | what a screen says, seen voices, clean |
| nothing | silence, noise, music and tones; the right text is empty |
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from training.synthetic.acoustics import degrade
from training.synthetic.corpus import SAMPLE_RATE_HZ, Clip, Corpus, CorpusWriter, to_int16
from training.synthetic.espeak import Delivery, Voice, espeak_version
from training.synthetic.grammar import draw_sentence
from training.synthetic.make import Spoken, silent_clip, speak_texts
from training.synthetic.texts import split_of
from training.synthetic.voices import draw_delivery, draw_voice

__all__ = ["SETS", "TestSetsChanged", "freeze", "handwritten_news", "make_test_sets", "sha256_of", "texts_of"]

SETS = ("domain", "unseen_voices", "degraded", "long", "news", "interface", "nothing")
SEED = 20_260
N_SENTENCES, N_LONG, N_NOTHING = 120, 40, 40
LONG_S = (10.0, 25.0)
FROZEN = "test_sets.json"


class TestSetsChanged(ValueError):
    """Test sets that are not those that results were measured on."""

    __test__ = False  # for pytest


def handwritten_news() -> tuple[str, ...]:
    """Sentences of news that no template makes."""
    content = (files("training.synthetic") / "data" / "handwritten_news.txt").read_text(encoding="utf-8")
    return tuple(line for line in content.splitlines() if line and not line.startswith("#"))


def texts_of(name: str) -> tuple[str, ...]:
    """The frozen texts of a set, in order; without espeak-ng. Of `long`, the sentences that its clips are made of."""
    if name == "news":
        return handwritten_news()
    return ("",) * N_NOTHING if name == "nothing" else tuple(_frozen()["texts"][name])


def draw_texts(name: str) -> tuple[str, ...]:
    """New texts for a set of templates, out of those that no corpus has."""
    rng = random.Random(f"{SEED}/{name}")  # noqa: S311
    file = "interface" if name == "interface" else None
    texts: dict[str, None] = {}
    while len(texts) < (N_LONG * 6 if name == "long" else N_SENTENCES):
        text = draw_sentence(rng, file)
        if split_of(text) == "test":
            texts[text] = None
    return tuple(texts)


def _frozen() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (files("training.synthetic") / "data" / FROZEN).read_text(encoding="utf-8")
    )
    return found


def make_test_sets(folder: Path, *, names: Iterable[str] = SETS, check: bool = True) -> dict[str, Corpus]:
    """Make each set as a corpus in a folder of its name, and check that it is the frozen one.

    Raises:
        EspeakMissing: espeak-ng is not installed.
        TestSetsChanged: a set differs from the frozen one.
    """
    made = {name: _make(folder / name, name) for name in names}
    if check:
        frozen = _frozen()
        changed = [name for name, corpus in made.items() if sha256_of(corpus) != frozen["sha256"][name]]
        if changed:
            raise TestSetsChanged(
                f"the test sets {', '.join(changed)} are not those that were frozen with espeak-ng "
                f"{frozen['espeak_ng']} (here {espeak_version()}): results on them cannot be compared. "
                "Pass --freeze to start anew, and measure every model again"
            )
    return made


def freeze(folder: Path) -> dict[str, Corpus]:
    """Draw new texts, make the sets of them, and note both as the ones to compare with."""
    path = Path(__file__).parent / "data" / FROZEN
    texts = {name: draw_texts(name) for name in SETS if name not in ("news", "nothing")}
    found: dict[str, Any] = {"espeak_ng": espeak_version(), "sha256": {}, "texts": texts}
    path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    made = make_test_sets(folder, check=False)
    found["sha256"] = {name: sha256_of(corpus) for name, corpus in made.items()}
    path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return made


def sha256_of(corpus: Corpus) -> str:
    """Of texts, voices, phonemes with their times, and the level of each quarter of a clip to a tenth of a dB.

    Not of the samples themselves: their last bits differ between processors.
    """
    digest = hashlib.sha256()
    for index, clip in enumerate(corpus.clips):
        quarters = np.array_split(corpus.samples(index).astype(np.float64), 4)
        levels = [f"{10 * np.log10(np.mean(np.square(part)) + 1e-12):.1f}" for part in quarters]
        about = (
            clip.text,
            clip.voice,
            clip.condition,
            clip.n_samples,
            clip.phonemes,
            clip.phoneme_ends_ms,
            levels,
        )
        digest.update(json.dumps(about, ensure_ascii=False).encode())
    return digest.hexdigest()


def _make(folder: Path, name: str) -> Corpus:
    about: dict[str, Any] = {"test_set": name, "seed": SEED, "espeak_ng": espeak_version()}
    spoken = _nothing() if name == "nothing" else _spoken(name)
    with CorpusWriter(folder, about) as writer:
        for clip in spoken:
            writer.append([clip.clip], to_int16(clip.samples))
    return Corpus.open(folder)


def _nothing() -> list[Spoken]:
    rng = random.Random(f"{SEED}/nothing")  # noqa: S311
    return [silent_clip(rng.uniform(1, 15), rng.randrange(2**31), "test") for _ in range(N_NOTHING)]


def _spoken(name: str) -> list[Spoken]:
    rng = random.Random(f"{SEED}/{name}/speech")  # noqa: S311
    condition = "mixed" if name == "degraded" else "clean"
    jobs: list[tuple[str, Voice, Delivery, str, int]] = []
    for text in texts_of(name):
        voice = draw_voice(rng, unseen=name == "unseen_voices")
        jobs.append((text, voice, draw_delivery(rng), condition, rng.randrange(2**31)))
    if name != "long":
        return [_as_test(clip) for clip in speak_texts(jobs, name)]
    jobs = [
        (*job[:1], *jobs[index // 6 * 6][1:4], job[4]) for index, job in enumerate(jobs)
    ]  # six by one voice
    return _joined(speak_texts(jobs, name), rng)


def _as_test(spoken: Spoken) -> Spoken:
    return Spoken(Clip(**{**vars(spoken.clip), "split": "test"}), spoken.samples)


def _joined(sentences: list[Spoken], rng: random.Random) -> list[Spoken]:
    """Clips of 10 to 25 s from sentences that one voice says, with the pauses around each."""
    made = []
    for first in range(0, len(sentences), 6):
        wanted_s = rng.uniform(LONG_S[0] + 2, LONG_S[1] - 3)
        texts: list[str] = []
        blocks: list[Any] = []
        phonemes: list[str] = []
        ends_ms: list[int] = []
        n_samples = 0
        for sentence in sentences[first : first + 6]:
            if n_samples and (n_samples + len(sentence.samples)) / SAMPLE_RATE_HZ > LONG_S[1]:
                break
            shift_ms = round(n_samples * 1000 / SAMPLE_RATE_HZ)
            texts.append(sentence.clip.text)
            phonemes += sentence.clip.phonemes
            ends_ms += [shift_ms + end for end in sentence.clip.phoneme_ends_ms]
            blocks.append(sentence.samples)
            n_samples += len(sentence.samples)
            if n_samples / SAMPLE_RATE_HZ >= wanted_s:
                break
        samples = degrade("clean", np.concatenate(blocks), (), np.random.default_rng(rng.randrange(2**31)))
        voice = sentences[first].clip.voice
        text = " ".join(one if one[-1] in ".?!" else one + "." for one in texts)
        clip = Clip(0, len(samples), text, "long", voice, "clean", tuple(phonemes), tuple(ends_ms), "test")
        made.append(Spoken(clip, samples))
    return made
