"""What a checkpoint holds and whether it can be opened, told from its config and its tensors' headers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from speech.checkpoint import CheckpointError, Layout, open_tokenizer
from speech.layouts import AUDIO_EMBED, EMBEDDING, IMAGE_TOWER, LM_HEAD
from speech.model import empty_model, expected_tensors
from speech.prompt import DEFAULT_PROMPT, PromptError, prompt_of, tokenize_prompt
from speech.shards import StoredTensor
from speech.stored import StoredCheckpoint, read_stored, tensor_problems


@dataclass(frozen=True)
class Part:
    """The tensors of one part, as they are stored."""

    name: str
    n_tensors: int
    n_parameters: int
    n_bytes: int
    dtypes: tuple[str, ...]
    is_used: bool
    """False: left out when the model is opened."""


@dataclass(frozen=True)
class SpeechLora:
    """The adapter that is merged on opening."""

    r: int
    alpha: float
    n_modules: int


@dataclass(frozen=True)
class EndToken:
    """A token that ends the text."""

    id: int
    text: str | None
    """None where the tokenizer has no such token."""


@dataclass(frozen=True)
class Inspection:
    """A checkpoint without its weights' values."""

    name: str
    layout: Layout
    base_name: str | None
    """An overlay's base."""
    base_layout: Layout | None
    is_demo: bool
    weights_sha256: str | None
    """None where it was not asked for."""
    n_files: int
    n_bytes: int
    """Of the weight files on disk, the base's included."""
    n_tensors: int
    n_parameters: int
    n_parameters_opened: int
    """Of the model that is opened: without image tower and vision LoRA, speech LoRA merged."""
    parts: tuple[Part, ...]
    speech_lora: SpeechLora | None
    prompt: str
    is_own_prompt: bool
    end_tokens: tuple[EndToken, ...]
    decoder: dict[str, int]
    audio_encoder: dict[str, int]
    problems: dict[str, list[str]]
    """Kind -> everything that keeps the checkpoint from being opened; empty is good."""


_PROJECTIONS = ("audio_projection.", "up_proj_for_", "down_proj_for_")
_PART_NAMES = {
    "decoder": True,
    "embedding": True,
    "audio encoder": True,
    "audio projection": True,
    "speech LoRA": True,
    "vision LoRA": False,
    "image tower": False,
    "output layer": False,
    "audio of the base": False,
}
"""Every part -> whether it is used."""


def inspect_checkpoint(
    path: str | Path, *, base: str | Path | None = None, with_hash: bool = True
) -> Inspection:
    """Inspect the checkpoint in folder `path`.

    Args:
        base: as for `speech.checkpoint.open_checkpoint`.
        with_hash: read the weight files once, for their hash.

    Raises:
        CheckpointError: the folder is no checkpoint at all, or its config none of Phi-4-multimodal's. What is
            wrong with the tensors, the tokenizer or the prompt is told in `problems` instead.
    """
    stored = read_stored(path, base=base)
    config = stored.native_config()
    problems: dict[str, list[str]] = {}
    n_opened = 0
    try:
        model = empty_model(config)
        problems |= tensor_problems(model, stored).by_kind()
        n_opened = sum(tensor.numel() for tensor in expected_tensors(model).values())
    except Exception as error:  # sizes that do not go together fail deep inside torch or transformers
        problems["config"] = [f"no model can have it: {error}"]
    tokenizer = None
    try:
        tokenizer = open_tokenizer(stored.whole.folder)
        tokenize_prompt(prompt_of(config), tokenizer)
    except CheckpointError as error:
        problems["tokenizer"] = [str(error)]
    except PromptError as error:
        problems["prompt"] = [str(error)]
    modules = sum(source.lora is not None for source in stored.gathered.sources.values())
    return Inspection(
        name=stored.name,
        layout=stored.layout,
        base_name=stored.base.name if stored.base else None,
        base_layout=stored.base.layout if stored.base else None,
        is_demo=stored.is_demo,
        weights_sha256=stored.weights_sha256() if with_hash else None,
        n_files=len(stored.weight_files),
        n_bytes=sum(file.stat().st_size for file in stored.weight_files.values()),
        n_tensors=len(stored.all_tensors),
        n_parameters=sum(tensor.n_elements for tensor in stored.all_tensors),
        n_parameters_opened=n_opened,
        parts=tuple(_parts(stored)),
        speech_lora=SpeechLora(stored.lora.r, stored.lora.alpha, modules) if stored.lora else None,
        prompt=prompt_of(config),
        is_own_prompt=prompt_of(config) != DEFAULT_PROMPT or "prompt" in stored.fonoteca,
        end_tokens=tuple(_end_tokens(config, tokenizer)),
        decoder={
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "heads": config.num_attention_heads,
            "key_value_heads": config.num_key_value_heads,
            "vocabulary": config.vocab_size,
        },
        audio_encoder={
            "blocks": config.audio_config.num_blocks,
            "hidden_size": config.audio_config.hidden_size,
            "intermediate_size": config.audio_config.intermediate_size,
            "heads": config.audio_config.num_attention_heads,
        },
        problems=problems,
    )


def _parts(stored: StoredCheckpoint) -> Iterable[Part]:
    members: dict[str, list[StoredTensor]] = {name: [] for name in _PART_NAMES}
    for tensor in stored.tensors:
        members[_part_of(tensor.name)].append(tensor)
    for tensor in stored.base.tensors if stored.base else ():
        part = _part_of(tensor.name)
        members["audio of the base" if part.startswith("audio") else part].append(tensor)
    for name, tensors in members.items():
        if tensors:
            yield Part(
                name=name,
                n_tensors=len(tensors),
                n_parameters=sum(tensor.n_elements for tensor in tensors),
                n_bytes=sum(tensor.n_bytes for tensor in tensors),
                dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})),
                is_used=_PART_NAMES[name],
            )


def _part_of(name: str) -> str:
    if name.startswith(IMAGE_TOWER):
        return "image tower"
    if ".lora_" in name:
        return "vision LoRA" if ".vision." in name else "speech LoRA"
    if name == LM_HEAD:
        return "output layer"
    if name == EMBEDDING:
        return "embedding"
    own = name.removeprefix(AUDIO_EMBED)
    if own.startswith("encoder."):
        return "audio encoder"
    return "audio projection" if own != name or own.startswith(_PROJECTIONS) else "decoder"


def _end_tokens(config: Any, tokenizer: PreTrainedTokenizerFast | None) -> Iterable[EndToken]:
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    for token_id in ends:
        text = None
        if tokenizer is not None and isinstance(token_id, int) and 0 <= token_id < len(tokenizer):
            text = str(tokenizer.convert_ids_to_tokens(token_id))
        yield EndToken(token_id, text)
