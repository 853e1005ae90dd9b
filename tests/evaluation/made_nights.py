"""Nights with a known truth: fixed sets decoded again, and windows of corrected segments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from evaluation.counts import EditCounts
from evaluation.drift import Window

N_UTTERANCES = 1_710
WORDS_AN_UTTERANCE = 25
N_SPEAKERS = 90
ERROR_RATE = 0.1168
"""Size and rate of the card's Transcrispeech; words and speakers are guessed."""


def counts_of(errors: np.ndarray, words: np.ndarray) -> EditCounts:
    """Counts in which every error is a substitution."""
    zero = np.zeros(len(words), dtype=np.int64)
    errors = np.minimum(errors, words)
    return EditCounts((words - errors).astype(np.int64), errors.astype(np.int64), zero, zero)


@dataclass(frozen=True)
class FixedSet:
    """Utterances whose difficulty depends on themselves and on their speaker."""

    words: np.ndarray
    rates: np.ndarray
    """True error rate of each utterance; their mean over words is ERROR_RATE."""
    speakers: list[int]

    @classmethod
    def make(cls, generator: np.random.Generator) -> FixedSet:
        speakers = np.sort(generator.integers(0, N_SPEAKERS, N_UTTERANCES))
        words = 1 + generator.poisson(WORDS_AN_UTTERANCE - 1, N_UTTERANCES)
        rates = generator.gamma(4, 1, N_SPEAKERS)[speakers] * generator.gamma(2, 1, N_UTTERANCES)
        rates *= ERROR_RATE * words.sum() / (rates * words).sum()
        return cls(words, np.minimum(rates, 0.9), [int(speaker) for speaker in speakers])

    def decode(self, generator: np.random.Generator, factor: float = 1.0) -> np.ndarray:
        """Errors of each utterance by a system whose error rate is `factor` times the truth."""
        return generator.binomial(self.words, np.minimum(self.rates * factor, 1))

    def again(
        self,
        errors: np.ndarray,
        generator: np.random.Generator,
        changed: float,
        factor: float = 1.0,
        share: float = 1.0,
    ) -> np.ndarray:
        """The same system on another night, or a little-changed one: a share of the utterances is decoded anew.

        With a `factor` above 1 further words go wrong: each right word with the chance that makes the total so. With a
        `share` below 1 that hits the first speakers alone, so much harder that all together are up to the factor.
        """
        anew = generator.random(len(errors)) < changed
        errors = np.where(anew, self.decode(generator), errors)
        if factor > 1:
            hit = np.array(self.speakers) < share * (max(self.speakers) + 1)
            more = (factor - 1) * (self.rates * self.words).sum() / (self.rates * self.words)[hit].sum()
            extra = hit * np.minimum(self.rates * more / (1 - np.minimum(self.rates, 0.9)), 1)
            errors = errors + generator.binomial(np.maximum(self.words - errors, 0), extra)
        return errors


UTTERANCES_A_SPEAKER = 19
TRUTH_DRAWS = 400_000


@dataclass(frozen=True)
class Population:
    """All speakers there are. A set of some of them has, by chance, another rate than all: intervals are about that."""

    speaker_shape: float
    """Speakers' rates spread by 1 / sqrt(shape) of their mean."""

    def draw(self, generator: np.random.Generator, n_speakers: int) -> FixedSet:
        """Utterances of some speakers; most say few, some many (geometric)."""
        speakers = np.repeat(np.arange(n_speakers), generator.geometric(1 / UTTERANCES_A_SPEAKER, n_speakers))
        words = 1 + generator.poisson(WORDS_AN_UTTERANCE - 1, len(speakers))
        rates = (
            ERROR_RATE * self._difficulty(generator, n_speakers)[speakers] * _own(generator, len(speakers))
        )
        return FixedSet(words, rates, [int(speaker) for speaker in speakers])

    def rate(self, factor: float = 1.0) -> float:
        """Over all words of all speakers: no word can have more than one error, so a little below ERROR_RATE."""
        return _true_rate(self, factor)

    def _difficulty(self, generator: np.random.Generator, n_speakers: int) -> np.ndarray:
        return generator.gamma(self.speaker_shape, 1 / self.speaker_shape, n_speakers)


@cache
def _true_rate(population: Population, factor: float) -> float:
    generator = np.random.default_rng(0)
    rates = ERROR_RATE * population._difficulty(generator, TRUTH_DRAWS) * _own(generator, TRUTH_DRAWS)
    # the mean is known but for what is cut off
    return float(factor * ERROR_RATE - np.maximum(factor * rates - 1, 0).mean())


def _own(generator: np.random.Generator, n_utterances: int) -> np.ndarray:
    return generator.gamma(2, 1 / 2, n_utterances)


STRATA = ("radio news", "radio talk", "television news", "television talk")
STRATUM_RATES = (0.06, 0.16, 0.08, 0.2)
SEGMENTS_A_RECORDING = 8


def window(
    generator: np.random.Generator,
    n_segments: int,
    factor: float = 1.0,
    mix: tuple[float, ...] = (0.4, 0.2, 0.25, 0.15),
) -> Window:
    """Corrected segments: recordings differ (standard deviation 40 % of their stratum's rate), 8 segments from each."""
    n_recordings = max(1, round(n_segments / SEGMENTS_A_RECORDING))
    strata = generator.choice(len(STRATA), n_recordings, p=np.array(mix))
    rates = np.array(STRATUM_RATES)[strata] * factor * generator.gamma(6.25, 1 / 6.25, n_recordings)
    recordings = np.repeat(np.arange(n_recordings), SEGMENTS_A_RECORDING)[:n_segments]
    words = 1 + generator.poisson(24, len(recordings))
    errors = generator.binomial(words, np.minimum(rates[recordings], 1))
    return Window(
        counts_of(errors, words),
        [STRATA[stratum] for stratum in strata[recordings]],
        [int(recording) for recording in recordings],
    )
