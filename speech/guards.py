"""Signs that a generative model did not transcribe but invent: named flags on a hypothesis.

A guard never changes the text. `no_repeat_ngram_size` and the like would, and damage genuine repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TOKEN_LIMIT = "token_limit"  # noqa: S105 - a flag's name
LOOP = "loop"
LOW_CONFIDENCE = "low_confidence"
TOO_FAST = "too_fast"

MAX_TOKENS_PER_SECOND = 25.0
"""Fast speech is about 20 characters a second; even a tokenizer of small pieces writes that in fewer tokens."""
EXTRA_TOKENS = 16
"""Tokens allowed on top, for very short clips."""
MAX_CHARACTERS_PER_SECOND = 30.0
MIN_MEAN_LOGPROB = -1.0
LOOP_REPEATS = 4
"""The same words so often in a row, at the end of a text, are a loop."""
LOOP_MAX_WORDS = 8
PHRASE_WORDS = 4
PHRASE_REPEATS = 3
"""A phrase of so many words that comes so often in one clip is taken for a loop too, whatever stands between: a
model often stumbles at the seam and starts again. A speaker may repeat himself as well: then the halves of the
clip, tried apart, say so."""

RESPLIT = "resplit"
"""Not an alarm: the clip tripped a guard, and its halves, transcribed apart, did not. The text is theirs."""
RETRIED_FLAGS = frozenset({TOKEN_LIMIT, LOOP, TOO_FAST})
"""Flags that make a clip worth a second try in two halves."""
MIN_RESPLIT_S = 4.0
"""Shorter clips are not cut again."""
_ENERGY_FRAME_SAMPLES = 160
_SMOOTHING_FRAMES = 15


def token_limit(duration_s: float) -> int:
    """Most tokens that a clip of this length may bring forth."""
    return int(duration_s * MAX_TOKENS_PER_SECOND) + EXTRA_TOKENS


def ends_in_loop(words: Sequence[str]) -> bool:
    """Whether the text ends with one phrase of up to LOOP_MAX_WORDS words, LOOP_REPEATS times over."""
    for length in range(1, LOOP_MAX_WORDS + 1):
        tail = list(words[-length * LOOP_REPEATS :])
        if len(tail) == length * LOOP_REPEATS and tail == tail[:length] * LOOP_REPEATS:
            return True
    return False


def repeats_a_phrase(words: Sequence[str]) -> bool:
    """Whether one run of PHRASE_WORDS words comes PHRASE_REPEATS times or more."""
    phrases = Counter(tuple(words[i : i + PHRASE_WORDS]) for i in range(len(words) - PHRASE_WORDS + 1))
    return bool(phrases) and max(phrases.values()) >= PHRASE_REPEATS


def quietest_cut(clip: npt.NDArray[np.float32]) -> int:
    """Sample in the middle half of `clip` around which 150 ms are the quietest: where to cut it in two."""
    n_frames = len(clip) // _ENERGY_FRAME_SAMPLES
    frames = clip[: n_frames * _ENERGY_FRAME_SAMPLES].reshape(n_frames, _ENERGY_FRAME_SAMPLES)
    energy = np.square(frames, dtype=np.float64).sum(axis=1)
    smooth = np.convolve(energy, np.ones(_SMOOTHING_FRAMES), mode="same")
    first, last = n_frames // 4, n_frames - n_frames // 4
    return int((first + smooth[first:last].argmin()) * _ENERGY_FRAME_SAMPLES)


def flags_for(
    text: str, *, duration_s: float, n_tokens: int, ended: bool, mean_logprob: float
) -> tuple[str, ...]:
    """The guards that this hypothesis trips.

    Args:
        text: what was generated for a clip of `duration_s` seconds.
        n_tokens: how many tokens it took.
        ended: whether the model ended it by itself.
        mean_logprob: mean natural log-probability of its tokens, the end included.
    """
    flags = []
    if not ended and n_tokens >= token_limit(duration_s):
        flags.append(TOKEN_LIMIT)
    words = text.split()
    if ends_in_loop(words) or repeats_a_phrase(words):
        flags.append(LOOP)
    if mean_logprob < MIN_MEAN_LOGPROB:
        flags.append(LOW_CONFIDENCE)
    if len(text) > MAX_CHARACTERS_PER_SECOND * duration_s + EXTRA_TOKENS:
        flags.append(TOO_FAST)
    return tuple(flags)
