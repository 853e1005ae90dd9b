"""Signs that a generative model did not transcribe but invent: named flags on a hypothesis.

A guard never changes the text. `no_repeat_ngram_size` and the like would, and damage genuine repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    if ends_in_loop(text.split()):
        flags.append(LOOP)
    if mean_logprob < MIN_MEAN_LOGPROB:
        flags.append(LOW_CONFIDENCE)
    if len(text) > MAX_CHARACTERS_PER_SECOND * duration_s + EXTRA_TOKENS:
        flags.append(TOO_FAST)
    return tuple(flags)
