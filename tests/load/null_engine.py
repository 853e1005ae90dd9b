"""An engine that has a text for each clip at once, and hears nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from speech.engine import ClipFailed, Hypothesis
from speech.prompting import Clip, never
from tests.demo_speech import FOLDER

Key = TypeVar("Key", bound=Hashable)

N_SLOTS = 32
"""As many as the engine has on a CPU: claims are as large."""
LOGPROB = -0.05


@cache
def texts() -> tuple[str, ...]:
    """What the engine has to say."""
    lines = (FOLDER / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines)


def text_of(n_samples: int) -> str:
    """The text of each clip of this length."""
    return texts()[n_samples % len(texts())]


class NullEngine:
    """Has a text for a clip as soon as it gets it, the same for clips of the same length.

    What `workers.transcribe` uses of `speech.engine.Phi4Engine`, with its order of events: a clip is taken when there
    is room, and nothing is taken once the worker stops.
    """

    prompt = "no model reads it"
    n_slots = N_SLOTS

    def describe(self) -> dict[str, Any]:
        """As stored with a transcript."""
        return {"method": "null"}

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """One hypothesis per clip."""
        return [_hypothesis(clip) for clip in clips]

    def stream(
        self,
        clips: Iterable[tuple[Key, Clip]],
        *,
        window: int | None = None,
        is_stopping: Callable[[], bool] = never,
    ) -> Generator[tuple[Key, Hypothesis | ClipFailed]]:
        """As many clips as there is room for, then the text of each."""
        coming = iter(clips)
        while not is_stopping():
            held = list(islice(coming, window or self.n_slots))
            if not held:
                return
            for key, clip in held:
                yield key, _hypothesis(clip)


def _hypothesis(clip: Clip) -> Hypothesis:
    text = text_of(len(clip))
    # a token for each four letters, as speech has them: what is stored is as large as in earnest
    tokens = tuple(range(1, 2 + len(text) // 4))
    return Hypothesis(text, tokens, (LOGPROB,) * len(tokens), LOGPROB, ())
