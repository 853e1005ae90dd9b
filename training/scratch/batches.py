"""Which clips make a step, and the step's batch out of them: a function of the seed and the step's number alone.

Items of like length stand together, so that little is padding. A step has a part for each shard; on a GPU one
process takes all parts, each with its own generator, and so sees what two processes would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.utils.data

from speech.features import (
    HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    count_audio_tokens,
    count_frames,
    log_mel,
)
from training.scratch.augment import BABBLE_SHARE, Samples, augment_features, augment_samples
from training.scratch.network import PHONEMES_PER_TOKEN, Batch
from training.scratch.settings import N_SHARDS, Settings
from training.scratch.targets import IGNORED, TOKEN_S, Speech, Teller, phoneme_slots

POOL = 60
"""Parts of steps that are cut from items sorted together by length."""
GAP_S = (0.05, 0.7)
"""Between joined clips."""
EDGE_S = 0.3
"""Most near-silence before and after an item."""
LONGEST_ALONE_S = 30.0
SHORTEST_S = 0.3


@dataclass(frozen=True)
class Item:
    """Clips that are heard one after another."""

    clips: tuple[int, ...]


class Plan:
    """The items of every step.

    Args:
        durations_s: of every clip.
        train: the clips trained on.
        settings: phases, audio of a step, seed.

    Raises:
        ValueError: there is nothing to train on.
    """

    def __init__(self, durations_s: Sequence[float], train: Sequence[int], settings: Settings) -> None:
        self._durations = np.asarray(durations_s)
        self._train = np.asarray(
            [index for index in train if SHORTEST_S <= durations_s[index] <= LONGEST_ALONE_S], dtype=np.int64
        )
        if not len(self._train):
            raise ValueError(
                "the corpus has no clip to train on: make one with `python -m training.synthetic`"
            )
        self._settings = settings
        self._pool = lru_cache(maxsize=2)(self._make_pool)

    def items(self, step: int, shard: int) -> list[Item]:
        """Of one part of a step."""
        phase, _ = self._settings.phase_at(step)
        first = self._settings.phase_bounds()[phase][0]
        part = (step - first) * N_SHARDS + shard
        return self._pool(phase, part // POOL)[part % POOL]

    def _make_pool(self, phase: int, number: int) -> list[list[Item]]:
        """`POOL` parts, cut from items sorted by length and put in random order."""
        rules = self._settings.phases[phase]
        rng = np.random.default_rng([self._settings.seed, 1, phase, number])
        budget = self._settings.step_audio_s / N_SHARDS
        parts: list[list[Item]] = []
        items: list[tuple[float, Item]] = []
        drawn = self._endless(rng)
        gathered = 0.0
        while gathered < budget * POOL:
            items.append(self._draw(drawn, rng, rules.max_item_s, rules.joined))
            gathered += items[-1][0]
        items.sort(key=lambda entry: entry[0])
        while items:
            longest = 0.0
            part: list[Item] = []
            # from the longest on; what is padded counts
            while items and (not part or longest * (len(part) + 1) <= budget * 1.02):
                length, item = items.pop()
                longest = max(longest, length)
                part.append(item)
            parts.append(part)
        order = rng.permutation(len(parts))
        return [parts[order[at % len(parts)]] for at in range(POOL)]

    def _endless(self, rng: np.random.Generator) -> Iterator[int]:
        while True:
            yield from rng.permutation(self._train).tolist()

    def _draw(
        self, drawn: Iterator[int], rng: np.random.Generator, max_s: float, joined: float
    ) -> tuple[float, Item]:
        clips = [next(drawn)]
        length = float(self._durations[clips[0]])
        if rng.random() < joined:
            goal = rng.uniform(0.4, 1.0) * max_s
            while length < goal:
                more = next(drawn)
                if length + self._durations[more] + GAP_S[1] > max_s:
                    break
                clips.append(more)
                length += float(self._durations[more]) + sum(GAP_S) / 2
        return length, Item(tuple(clips))


class Loader:
    """Makes batches.

    Args:
        speech: the corpus.
        teller: tells what is said.
        plan: which items.
        settings: seed and the share of random inputs.
        mean: [80], mean of the features.
        vocabulary: pieces of the tokenizer, from which random inputs are drawn.
    """

    def __init__(
        self,
        speech: Speech,
        teller: Teller,
        plan: Plan,
        settings: Settings,
        *,
        mean: torch.Tensor,
        vocabulary: int,
    ) -> None:
        self._speech = speech
        self._teller = teller
        self._plan = plan
        self._settings = settings
        self._mean = mean
        self._vocabulary = vocabulary

    def batches(self, steps: range, shards: Sequence[int], *, n_workers: int) -> Iterator[Batch]:
        """The batches of `steps`, made ahead by `n_workers` processes; the same with 0, here and now."""
        if not n_workers:
            yield from (self.batch(step, shards) for step in steps)
            return
        made = _Steps(self, shards)
        yield from torch.utils.data.DataLoader(
            made,
            batch_size=None,
            sampler=list(steps),
            num_workers=n_workers,
            collate_fn=_as_it_is,
            multiprocessing_context="fork",
        )

    def batch(self, step: int, shards: Sequence[int]) -> Batch:
        """The batch of one step, or of a shard of it."""
        made = []
        for shard in shards:
            rng = np.random.default_rng([self._settings.seed, 2, step, shard])
            made += [self._make(item, rng) for item in self._plan.items(step, shard)]
        widest = max(len(one.features) for one in made)
        features = torch.zeros(len(made), widest, made[0].features.shape[1])
        n_tokens = count_audio_tokens(widest)
        phonemes = torch.full((len(made), n_tokens, PHONEMES_PER_TOKEN), IGNORED, dtype=torch.long)
        for row, one in enumerate(made):
            features[row, : len(one.features)] = one.features
            phonemes[row, : len(one.phonemes)] = torch.from_numpy(one.phonemes)
        return Batch(
            features=features,
            n_frames=tuple(len(one.features) for one in made),
            phonemes=phonemes,
            characters=tuple(one.characters for one in made),
            answers=tuple(one.answer for one in made),
            shown=tuple(one.shown for one in made),
            places=tuple(one.places for one in made),
        )

    def _make(self, item: Item, rng: np.random.Generator) -> _Made:
        clips = [self._speech.clips[index] for index in item.clips]
        pieces: list[Samples] = [_near_silence(rng.uniform(0.0, EDGE_S), rng)]
        starts, durations = [], []
        for number, index in enumerate(item.clips):
            if number:
                pieces.append(_near_silence(rng.uniform(*GAP_S), rng))
            starts.append(sum(map(len, pieces)) / SAMPLE_RATE_HZ)
            pieces.append(as_float(self._speech.samples(index)))
            durations.append(len(pieces[-1]) / SAMPLE_RATE_HZ)
        pieces.append(_near_silence(rng.uniform(0.0, EDGE_S), rng))
        samples = np.concatenate(pieces)
        has_words = any(clip.text for clip in clips)
        babble = self._babble(len(samples), rng) if has_words and rng.random() < BABBLE_SHARE else None
        features = features_of(augment_samples(samples, babble, rng))
        features, stretch = augment_features(features, self._mean, rng)
        told = self._teller.tell(clips, starts, durations)
        n_tokens = count_audio_tokens(len(features))
        is_random = rng.random(len(told.answer)) < self._settings.random_inputs
        other = rng.integers(6, self._vocabulary, len(told.answer))
        return _Made(
            features=features,
            phonemes=phoneme_slots(told, stretch, n_tokens, PHONEMES_PER_TOKEN),
            characters=told.characters,
            answer=told.answer,
            shown=tuple(np.where(is_random, other, told.answer).tolist()) if told.answer else (),
            places=tuple(middle * stretch / TOKEN_S for middle in told.middles_s),
        )

    def _babble(self, n_samples: int, rng: np.random.Generator) -> Samples:
        """Three other clips at once."""
        total = np.zeros(n_samples, dtype=np.float32)
        for _ in range(3):
            samples = as_float(self._speech.samples(int(rng.integers(len(self._speech.clips)))))
            total += np.resize(samples, n_samples)
        return total


class _Steps(torch.utils.data.Dataset[Batch]):
    """Steps by their numbers, for torch's loader."""

    def __init__(self, loader: Loader, shards: Sequence[int]) -> None:
        self._loader = loader
        self._shards = shards

    def __getitem__(self, step: int) -> Batch:
        torch.set_num_threads(1)
        return self._loader.batch(step, self._shards)


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass(frozen=True)
class _Made:
    features: torch.Tensor
    phonemes: np.ndarray
    characters: tuple[int, ...]
    answer: tuple[int, ...]
    shown: tuple[int, ...]
    places: tuple[float, ...]


def as_float(samples: np.ndarray) -> Samples:
    """float32 in -1..1 of either kind of samples."""
    if samples.dtype == np.int16:
        return (samples / np.float32(32768)).astype(np.float32)
    return samples.astype(np.float32, copy=False)


def _near_silence(duration_s: float, rng: np.random.Generator) -> Samples:
    n_samples = round(duration_s * SAMPLE_RATE_HZ)
    level = 10 ** rng.uniform(-5.5, -3.5)
    return (rng.standard_normal(n_samples) * level).astype(np.float32)


def features_of(samples: Samples) -> torch.Tensor:
    """[frames, 80] of one item."""
    n_frames = count_frames(len(samples))
    n_samples = (n_frames - 1) * HOP_SAMPLES + WINDOW_SAMPLES
    waveform = torch.from_numpy(np.ascontiguousarray(samples[:n_samples]))[None]
    return log_mel(waveform, torch.tensor([n_frames]))[0]


def feature_moments(speech: Speech, train: Sequence[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and spread [80] of the features of 200 clips, for the encoder's normalisation."""
    rng = np.random.default_rng([seed, 3])
    chosen = rng.choice(np.asarray(train), size=min(200, len(train)), replace=False)
    rows = torch.cat([features_of(as_float(speech.samples(int(index)))) for index in np.sort(chosen)])
    return rows.mean(0), rows.std(0).clamp(min=0.1)
