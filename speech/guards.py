"""Signs that a generative model did not transcribe but invent: named flags on a hypothesis.

A guard never changes the text. `no_repeat_ngram_size` and the like would, and damage genuine repeats. What trips one
is tried again in two halves (`speech/engine.py`); what then still trips is kept as doubtful. `docs/guards.md` says
what each flag means to a reader.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from speech.cut import Span, SplitSettings, weakest_sample
from speech.presence import SAMPLE_RATE_HZ, frame_energies, hears_speech, looks_unlike_speech

TOKEN_LIMIT = "token_limit"  # noqa: S105 - a flag's name
LOOP = "loop"
LOW_CONFIDENCE = "low_confidence"
TOO_FAST = "too_fast"
NO_SPEECH = "no_speech"
RESPLIT = "resplit"
"""Not an alarm: the clip tripped a guard, and its halves, transcribed apart, did not. The text is theirs."""

ALARMS = frozenset({TOKEN_LIMIT, LOOP, LOW_CONFIDENCE, TOO_FAST, NO_SPEECH})
"""Flags that make a clip worth a second try in two halves, and its text doubtful if that trips too."""
_ORDER = (TOKEN_LIMIT, LOOP, LOW_CONFIDENCE, TOO_FAST, NO_SPEECH, RESPLIT)

MAX_TOKENS_PER_SECOND = 25.0
"""Fast speech is about 20 characters a second; even a tokenizer of small pieces writes that in fewer tokens. The demo
model, whose vocabulary is of 720 pieces, writes 9.7 a second at most on its test sentences, noisy ones included."""
EXTRA_TOKENS = 16
"""Tokens allowed on top, for very short clips."""
MAX_CHARACTERS_PER_SECOND = 30.0
"""Half as much again as fast speech. The test sentences have up to 18.1, the demo model's texts for them up to 18.6."""
EXTRA_CHARACTERS = 16
"""Characters allowed on top, for very short clips."""
MAX_CHARACTERS_PER_SPEECH_SECOND = 60.0
"""Against the seconds that silero hears: twice the above, for what it misses. The test sentences have up to 24 (5 dB
of music under them)."""
MIN_SPEECH_S = 0.096
"""A text needs this much speech, as a segment does (`speech.cut.SplitSettings.min_speech_ms`)."""
FEW_WORDS_PER_SECOND = 0.5
"""A clip with fewer words is listened to. Slow speech has 1.5."""
MIN_MEAN_LOGPROB = -1.0
"""Whisper's threshold for a second try (Radford et al. 2022, section 4.5), a confidence of 0.37. On 560 texts of the
demo model (test sentences, clean and at 20 to 0 dB SNR) it flags 56 of the 113 with half their words wrong or more,
and none of the 380 with under 30 %; -0.7 would flag 85 and 3."""

LOOP_REPEATS = 4
"""The same phrase so often in a row is a loop."""
LOOP_WORD_REPEATS = 5
"""A single word needs one more: people do say "ha ha ha ha"."""
LOOP_MAX_WORDS = 8
PHRASE_WORDS = 4
PHRASE_REPEATS = 3
PHRASE_SHARE = 0.85
"""A phrase of so many words that comes so often in one clip is taken for a loop too, if little stands between: a
model often stumbles at the seam and starts again. Lists have more between ("por cento dos votos" after each party
and figure). A speaker may repeat himself as well: then the halves of the clip, tried apart, say so."""
_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|\w+")
"""A score (2-2), an amount (1.000.000) and a time are one word each: their digits repeat by nature."""
_STUTTER = re.compile(r"([^\s\d])\1{5}|(\d)\2{11}|([^\s\d]\S{1,11}?)\3{5}")
"""Within a word: a character 6 times (a digit 12 times: amounts have zeros), or 2 to 12 characters 6 times."""

MIN_RESPLIT_S = 4.0
"""Shorter clips are not cut again."""
_MIN_CLIP_SAMPLES = 400
"""The engine takes clips from 25 ms."""
_PAUSES = SplitSettings()

Clip = npt.NDArray[np.float32]


def flags_for(
    text: str, *, clip: Clip, n_tokens: int, ended: bool, mean_logprob: float, limit: int
) -> tuple[str, ...]:
    """The guards that this hypothesis trips, always in the same order.

    Args:
        text: what was generated.
        clip: what it was generated for: (n,) float32, 16 kHz, finite, 25 ms or more.
        n_tokens: how many tokens it took, without the end token.
        ended: whether the model ended it by itself.
        mean_logprob: mean natural log-probability of its tokens, the end included.
        limit: most tokens that it was allowed (`token_limit`).
    """
    duration_s = len(clip) / SAMPLE_RATE_HZ
    overran = not ended or n_tokens > limit
    words = _words(text)
    loops = repeats_in_a_row(words) or repeats_a_phrase(words) or stutters(text)
    unsure = not mean_logprob >= MIN_MEAN_LOGPROB  # NaN is unsure too
    fast = len(text) > MAX_CHARACTERS_PER_SECOND * duration_s + EXTRA_CHARACTERS
    tripped_flags = {
        flag
        for flag, trips in ((TOKEN_LIMIT, overran), (LOOP, loops), (LOW_CONFIDENCE, unsure), (TOO_FAST, fast))
        if trips
    }
    if text.strip() and (
        tripped_flags or len(words) < FEW_WORDS_PER_SECOND * duration_s or looks_unlike_speech(clip)
    ):
        # the length of a text that ran away says nothing about the speech that it began with
        n_characters = 0 if overran or loops or fast else len(text)
        wanted_s = (n_characters - EXTRA_CHARACTERS) / MAX_CHARACTERS_PER_SPEECH_SECOND
        if not hears_speech(clip, max(MIN_SPEECH_S, wanted_s)):
            tripped_flags.add(NO_SPEECH)
    return _in_order(tripped_flags)


def tripped(flags: Iterable[str]) -> bool:
    """Whether any of them is an alarm."""
    return not ALARMS.isdisjoint(flags)


def keep_doubtful(flags: Iterable[str]) -> tuple[str, ...]:
    """The flags of a text that is kept though its second try tripped too, or was not possible.

    LOW_CONFIDENCE is added to any alarm, so that one condition finds every doubtful text.
    """
    kept = set(flags)
    return _in_order(kept | {LOW_CONFIDENCE} if tripped(kept) else kept)


def token_limit(duration_s: float) -> int:
    """Most tokens that a clip of this length may bring forth."""
    return int(duration_s * MAX_TOKENS_PER_SECOND) + EXTRA_TOKENS


def repeats_in_a_row(words: Sequence[str]) -> bool:
    """Whether a phrase of up to LOOP_MAX_WORDS words comes LOOP_REPEATS times running, anywhere.

    A single word needs LOOP_WORD_REPEATS.
    """
    for length in range(1, LOOP_MAX_WORDS + 1):
        repeats = LOOP_WORD_REPEATS if length == 1 else LOOP_REPEATS
        needed = length * (repeats - 1)
        same = 0
        for at in range(length, len(words)):
            same = same + 1 if words[at] == words[at - length] else 0
            if same == needed:
                return True
    return False


def repeats_a_phrase(words: Sequence[str]) -> bool:
    """Whether PHRASE_WORDS words come PHRASE_REPEATS times, with hardly more than repeats from first to last."""
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at in range(len(words) - PHRASE_WORDS + 1):
        places[tuple(words[at : at + PHRASE_WORDS])].append(at)
    repeated = [starts for starts in places.values() if len(starts) >= PHRASE_REPEATS]
    if not repeated:
        return False
    covered = np.zeros(len(words) + 1, np.int64)
    for starts in repeated:
        for at in starts:
            covered[at + 1 : at + 1 + PHRASE_WORDS] = 1
    sums = covered.cumsum()
    for starts in repeated:
        # any so many in a row of its places: elsewhere the phrase may stand alone
        for first, last in zip(starts, starts[PHRASE_REPEATS - 1 :], strict=False):
            end = last + PHRASE_WORDS
            if sums[end] - sums[first] >= PHRASE_SHARE * (end - first):
                return True
    return False


def stutters(text: str) -> bool:
    """Whether a character or a few come 6 times running with no space between, as in "aaaaaa" (a digit 12 times)."""
    # only where characters repeat at all: the search is slow
    return any(len(set(run)) <= len(run) - 5 and _STUTTER.search(run) is not None for run in text.split())


def quietest_cut(clip: Clip) -> int:
    """Sample at which to cut `clip` in two: the weakest place of its middle half, as the splitter finds it.

    The weakest 300 ms win, which is a pause if there is one and not a stop between two sounds; in digital silence
    the middle of the longest. Both sides have a quarter of the clip or more.

    Raises:
        ValueError: the halves would be shorter than a clip can be (25 ms).
    """
    quarter = len(clip) // 4
    if quarter < _MIN_CLIP_SAMPLES:
        raise ValueError(f"a clip of {len(clip)} samples is too short to be cut in two")
    middle = Span(quarter, len(clip) - quarter)
    return weakest_sample(middle, np.zeros(1, np.float32), frame_energies(clip), _PAUSES)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _in_order(flags: Iterable[str]) -> tuple[str, ...]:
    given = set(flags)
    return (*(flag for flag in _ORDER if flag in given), *sorted(given.difference(_ORDER)))
