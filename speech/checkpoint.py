"""Opening a checkpoint: any published layout becomes one native `Phi4MultimodalForCausalLM`.

No code of a checkpoint is ever run: configs are data, weights are safetensors, the tokenizer is `tokenizer.json`.
Weights go tensor by tensor from the files to the device, with the speech LoRA merged in float32, so that opening
needs little host memory beyond the model itself. The image tower is not built: speech never reaches it, and it
is 0.44 of the release's 5.6 billion parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Phi4MultimodalForCausalLM, PreTrainedTokenizerFast

from speech.layouts import Layout, Source
from speech.model import assign, empty_model, expected_tensors, finish
from speech.shards import ShardUnreadable
from speech.stored import CheckpointError, StoredCheckpoint, read_stored, tensor_problems

__all__ = [
    "CheckpointCard",
    "CheckpointError",
    "Layout",
    "load_tensor",
    "open_checkpoint",
    "open_tokenizer",
    "pick_device",
    "pick_dtype",
    "read_card",
    "whole_model",
]


@dataclass(frozen=True)
class CheckpointCard:
    """What a checkpoint is, read without opening its weights. An overlay's counts include its base's."""

    name: str
    layout: Layout
    is_demo: bool
    """Trained on synthetic speech to show the system at work; its text must be marked wherever it is shown."""
    weights_sha256: str
    """SHA-256 over the names and contents of the weight files."""
    n_tensors: int
    n_bytes: int
    """Of the weight files."""


def read_card(path: str | Path, *, base: str | Path | None = None) -> CheckpointCard:
    """What the checkpoint in folder `path` is. Reads the weight files once, for their hash.

    Args:
        base: as for `open_checkpoint`.

    Raises:
        CheckpointError: the folder holds no checkpoint that can be opened.
    """
    stored = read_stored(path, base=base)
    return CheckpointCard(
        name=stored.name,
        layout=stored.layout,
        is_demo=stored.is_demo,
        weights_sha256=stored.weights_sha256(),
        n_tensors=len(stored.all_tensors),
        n_bytes=sum(file.stat().st_size for file in stored.weight_files.values()),
    )


def pick_device(device: str = "auto") -> torch.device:
    """`auto` takes CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 on a CPU."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    if found is None:
        raise CheckpointError(f"dtype {dtype!r} is not one of auto, float32, bfloat16, float16")
    return found


def open_checkpoint(
    path: str | Path,
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> tuple[Phi4MultimodalForCausalLM, PreTrainedTokenizerFast]:
    """Open a checkpoint for speech, ready for `speech.engine.Phi4Engine`.

    Host memory beyond the model itself stays below twice its largest tensor in float32, whatever the sharding.

    Args:
        path: folder with config.json, tokenizer.json and safetensors, in either layout; or with safetensors of
            `audio_embed` alone, to be laid over `base`.
        base: whole checkpoint under an audio overlay; None takes the one that the overlay's config.json names
            under `fonoteca.base`, relative to the overlay's folder. Not looked at where `path` is whole itself.
        device: cpu, cuda, cuda:N, or auto.
        dtype: weights' type, or auto (bfloat16 on CUDA, float32 on a CPU).

    Returns:
        (model, tokenizer): a native model in evaluation mode, without image tower, speech LoRA merged.

    Raises:
        CheckpointError: with every missing, unexpected or wrongly shaped tensor in one message.
    """
    stored = read_stored(path, base=base)
    target = pick_device(device)
    weights_type = pick_dtype(dtype, target)
    tokenizer = open_tokenizer(stored.whole.folder)
    model = whole_model(stored)
    sources = stored.gathered.sources
    # in the files' own order, so that a spinning disk reads straight on
    for name in sorted(expected_tensors(model), key=lambda name: _place(sources[name])):
        assign(model, name, load_tensor(sources[name], target, weights_type))
    return finish(model, target), tokenizer


def _place(source: Source) -> tuple[Path, int]:
    return source.base.file, source.base.offset


def whole_model(stored: StoredCheckpoint) -> Phi4MultimodalForCausalLM:
    """The empty model that `stored` fills.

    Raises:
        CheckpointError: with everything that keeps it from doing so.
    """
    config = stored.native_config()
    try:
        model = empty_model(config)
    except Exception as error:  # sizes that do not go together fail deep inside torch or transformers
        raise CheckpointError(
            f"{stored.whole.folder / 'config.json'}: no model can have it: {error}"
        ) from error
    problems = tensor_problems(model, stored)
    if problems.by_kind():
        over = f", over {stored.base.folder}" if stored.base else ""
        raise CheckpointError(
            f"{stored.folder}: not a whole Phi-4-multimodal checkpoint ({stored.layout} layout{over}): {problems}"
        )
    return model


def load_tensor(source: Source, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """One native tensor, in memory of its own; a LoRA is merged in float32 and the sum rounded once.

    Raises:
        CheckpointError: the file cannot be read any more.
    """
    try:
        tensor = source.base.read(device)
        if source.lora is not None:
            a, b = (part.read(device).to(torch.float32) for part in (source.lora.a, source.lora.b))
            tensor = torch.addmm(tensor.to(torch.float32), b, a, alpha=source.lora.scale)
    except (OSError, ShardUnreadable) as error:
        raise CheckpointError(f"{source.base.file}: cannot be read: {error}") from error
    return tensor.to(dtype)


def open_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint's folder, from `tokenizer.json` alone.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    file = folder / "tokenizer.json"
    if not file.exists():
        raise CheckpointError(f"{folder}: tokenizer.json is missing; copy it from the base model")
    # the class named in tokenizer_config.json is not looked up: it might be the checkpoint's own code
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(file), clean_up_tokenization_spaces=False)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise CheckpointError(f"{file}: not a readable tokenizer ({error})") from error
