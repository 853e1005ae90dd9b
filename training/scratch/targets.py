"""What is told about a clip in training: its text, its letters, and which phoneme sounds when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

IGNORED = -100
SILENCE, BLANK = 0, 0
RARE = 20
"""Phonemes heard less often than this in the whole corpus are not told."""
SILENT = frozenset({"", "sil"})
TOKEN_S = 0.08
SLOT_S = 0.02


class Clip(Protocol):
    """A row of the synthetic corpus."""

    @property
    def n_samples(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def phonemes(self) -> Sequence[str]: ...
    @property
    def phoneme_ends_ms(self) -> Sequence[int]: ...


class Speech(Protocol):
    """The synthetic corpus (`training.synthetic.corpus.Corpus`)."""

    @property
    def clips(self) -> Sequence[Any]:
        """Of `Clip`."""
        ...

    def samples(self, index: int, /) -> npt.NDArray[Any]:
        """Of one clip, int16 or float32 in -1..1, 16 kHz."""
        ...


def letters(text: str) -> str:
    """What the character CTC is told: lower case, words apart, no signs."""
    kept = "".join(sign if sign.isalnum() else " " for sign in text.lower())
    return " ".join(kept.split())


@dataclass(frozen=True)
class Inventory:
    """The classes of the training heads."""

    phonemes: tuple[str, ...]
    """By id; the first is silence."""
    characters: tuple[str, ...]
    """By id; the first is CTC's blank."""

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> Inventory:
        """Of a corpus: its phonemes, but for rare ones, and its characters."""
        phonemes: Counter[str] = Counter()
        characters: set[str] = set()
        for clip in clips:
            phonemes.update(clip.phonemes)
            characters.update(letters(clip.text))
        kept = sorted(one for one, n in phonemes.items() if one not in SILENT and n >= RARE)
        return cls(("sil", *kept), ("", *sorted(characters)))


@dataclass(frozen=True)
class Told:
    """Of one item: clips joined, in the audio's own time (before any stretching)."""

    characters: tuple[int, ...]
    answer: tuple[int, ...]
    middles_s: tuple[float, ...]
    """When the middle of each of the answer's tokens is said."""
    phonemes: tuple[int, ...]
    """One after another; IGNORED for a rare one."""
    ends_s: tuple[float, ...]


class Teller:
    """Tells what is said in clips.

    Args:
        inventory: classes of the heads.
        tokenizer: of the model.
    """

    def __init__(self, inventory: Inventory, tokenizer: PreTrainedTokenizerFast) -> None:
        self._phonemes = {one: number for number, one in enumerate(inventory.phonemes)}
        self._phonemes |= dict.fromkeys(SILENT, SILENCE)
        self._characters = {one: number for number, one in enumerate(inventory.characters)}
        self._tokenizer = tokenizer

    def tell(self, clips: Sequence[Clip], starts_s: Sequence[float], durations_s: Sequence[float]) -> Told:
        """Of clips that start at `starts_s` in one item."""
        texts = [clip.text for clip in clips if clip.text]
        text = " ".join(texts)
        phonemes: list[int] = []
        ends: list[float] = []
        times: list[npt.NDArray[np.float64]] = []
        for clip, start, duration in zip(clips, starts_s, durations_s, strict=True):
            if (ends[-1] if ends else 0.0) < start:  # what lies before, and between two clips
                phonemes.append(SILENCE)
                ends.append(start)
            for phoneme, end_ms in zip(clip.phonemes, clip.phoneme_ends_ms, strict=True):
                phonemes.append(self._phonemes.get(phoneme, IGNORED))
                ends.append(min(start + end_ms / 1000, start + duration))
            if not clip.text and not clip.phonemes:  # noise, music: no phoneme at all
                phonemes.append(SILENCE)
                ends.append(start + duration)
            if clip.text:
                times.append(_letter_times(clip, start, duration))
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        counted = np.cumsum([sign.isalnum() for sign in text]) if text else np.zeros(0)
        all_times = np.concatenate(times) if times else np.zeros(0)
        middles = tuple(_when(all_times, counted, first, last) for first, last in encoded["offset_mapping"])
        return Told(
            characters=tuple(self._characters[one] for one in letters(text) if one in self._characters),
            answer=tuple(encoded["input_ids"]),
            middles_s=middles,
            phonemes=tuple(phonemes),
            ends_s=tuple(ends),
        )


def _letter_times(clip: Clip, start: float, duration: float) -> npt.NDArray[np.float64]:
    """When each letter of a clip is said: its letters spread evenly over its phonemes, pauses left out."""
    n_letters = sum(sign.isalnum() for sign in clip.text)
    begins, ends, at = [], [], 0.0
    for phoneme, end_ms in zip(clip.phonemes, clip.phoneme_ends_ms, strict=True):
        if phoneme not in SILENT:
            begins.append(at)
            ends.append(end_ms / 1000)
        at = end_ms / 1000
    if not begins:
        begins, ends = [0.0], [duration]
    place = (np.arange(n_letters) + 0.5) * len(begins) / max(1, n_letters)
    whole = np.minimum(place.astype(int), len(begins) - 1)
    first, last = np.asarray(begins)[whole], np.asarray(ends)[whole]
    times: npt.NDArray[np.float64] = start + first + (place - whole) * (last - first)
    return times


def _when(times: npt.NDArray[np.float64], counted: npt.NDArray[Any], first: int, last: int) -> float:
    """When the characters `first` to `last` of the text are said; a sign is said with the letter before it."""
    if not len(times):
        return 0.0
    low = int(counted[first - 1]) if first else 0
    high = int(counted[last - 1]) if last else 0
    middle = (low + high - 1) // 2 if high > low else low - 1
    return float(times[min(max(middle, 0), len(times) - 1)])


def phoneme_slots(told: Told, stretch: float, n_tokens: int, per_token: int) -> npt.NDArray[np.int64]:
    """The phoneme in each slot of 20 ms, [audio tokens, slots].

    Args:
        stretch: how much longer the audio became.
    """
    ends = np.asarray(told.ends_s) * stretch
    at = np.searchsorted(ends, (np.arange(n_tokens * per_token) + 0.5) * SLOT_S)
    told_and_after = np.asarray([*told.phonemes, SILENCE], dtype=np.int64)
    return told_and_after[np.minimum(at, len(told.phonemes))].reshape(n_tokens, per_token)
