"""The prompt: fixed text around the place where the audio stands.

The text must be the one a checkpoint was trained with, to the space. The published card's is the default; a
checkpoint may carry its own in `config.json` under `fonoteca.prompt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

AUDIO_PLACE = "<|audio|>"
DEFAULT_PROMPT = f"<|user|>{AUDIO_PLACE} Transcribe the audio clip into Galician text.<|end|><|assistant|>"
"""The published model card's prompt; its `<|audio_1|>` stands here as `<|audio|>`."""


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


class PromptError(ValueError):
    """The prompt has no place for the audio, or more than one."""


@dataclass(frozen=True)
class PromptIds:
    """Token ids before and after the audio."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def prompt_of(config: Any) -> str:
    """The prompt that a checkpoint's config names, or the default."""
    own = getattr(config, "fonoteca", None) or {}
    return str(own.get("prompt", DEFAULT_PROMPT))


def tokenize_prompt(prompt: str, tokenizer: Tokenizer) -> PromptIds:
    """Token ids of the two halves of `prompt`.

    Raises:
        PromptError: `prompt` does not hold `<|audio|>` exactly once.
    """
    halves = prompt.split(AUDIO_PLACE)
    if len(halves) != 2:
        raise PromptError(f"the prompt must hold {AUDIO_PLACE} exactly once: {prompt!r}")
    before, after = (tuple(tokenizer.encode(half, add_special_tokens=False)) for half in halves)
    return PromptIds(before, after)
