"""What fine-tuning may change, and the proof that it changed nothing else.

Trained are the tensors whose name holds `audio_embed`, as the model card says, but for the `*_vision_speech` ones:
speech alone never reaches them, so they would get no gradient. The rest must come out bit for bit as it went in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speech.checkpoint import load_tensor, whole_model
from speech.layouts import AUDIO_EMBED
from speech.model import expected_tensors
from speech.stored import CheckpointError, read_stored
from training.tuning.errors import FinetuneError

TRAINED_MARK = "audio_embed"
UNUSED_MARK = "_vision_speech"
"""The projections for audio beside pictures."""


def is_trained(name: str) -> bool:
    """Whether fine-tuning changes the parameter of this name. Buffers are never changed."""
    return TRAINED_MARK in name and UNUSED_MARK not in name


def trained_names(model: nn.Module) -> set[str]:
    """Names of the parameters that fine-tuning changes."""
    return {name for name, _ in model.named_parameters() if is_trained(name)}


def constants_of(base: Path) -> dict[str, torch.Tensor]:
    """What `audio_embed` holds besides: means and variances of the features, by native name, as they are stored.

    Raises:
        CheckpointError: the base cannot be opened.
    """
    stored = read_stored(base)
    trained = trained_names(whole_model(stored))
    return {
        name: load_tensor(source, torch.device("cpu"), source.base.dtype)
        for name, source in stored.gathered.sources.items()
        if name.startswith(AUDIO_EMBED) and name not in trained and UNUSED_MARK not in name
    }


def freeze(model: nn.Module) -> dict[str, nn.Parameter]:
    """Let only `audio_embed` learn, as float32 masters; its parameters by name.

    Raises:
        FinetuneError: the model has no such parameters.
    """
    trained = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))
        if is_trained(name):
            # 16-bit weights are too coarse for steps of this size: many would never move (docs/training.md)
            parameter.data = parameter.data.float()
            trained[name] = parameter
    if not trained:
        raise FinetuneError(
            "the model has no parameter named audio_embed: it is no Phi-4-multimodal for speech"
        )
    return trained


def tensor_sha256(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{content.dtype} {tuple(content.shape)}".encode())
    if content.numel():
        bits: Any = content.reshape(-1).view(torch.uint8).numpy()
        digest.update(memoryview(bits))
    return digest.hexdigest()


def fingerprints(model: nn.Module) -> dict[str, str]:
    """SHA-256 of each tensor that must not change, by name. Reads the whole model once."""
    trained = trained_names(model)
    return {name: tensor_sha256(tensor) for name, tensor in model.state_dict().items() if name not in trained}


def check_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Compare fingerprints taken before and after training.

    Raises:
        FinetuneError: naming the tensors that changed, came or went.
    """
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise FinetuneError(
            f"{len(changed)} frozen tensors are not what they were before training: {', '.join(changed[:5])}{more}. "
            f"This is a fault of the training code or of the machine's memory: the weights must not be used"
        )


def check_written(result: Path, base: Path) -> int:
    """Compare a written checkpoint with its base, tensor by tensor; the number of frozen tensors found equal.

    A speech LoRA in the base counts as merged, in the type that the base stores its weights in.

    Raises:
        FinetuneError: a frozen tensor differs from the base's.
        CheckpointError: one of them cannot be opened.
    """
    written, below = read_stored(result), read_stored(base)
    device = torch.device("cpu")
    different = []
    n_equal = 0
    model = whole_model(written)
    for name in expected_tensors(model).keys() - trained_names(model):
        new, old = written.gathered.sources.get(name), below.gathered.sources.get(name)
        if new is None or old is None:
            raise CheckpointError(f"{result if new is None else base}: lacks {name}")
        n_equal += 1
        dtype = old.base.dtype
        if new.base.dtype != dtype or not torch.equal(
            _bits(load_tensor(new, device, dtype)), _bits(load_tensor(old, device, dtype))
        ):
            different.append(name)
    if different:
        raise FinetuneError(
            f"{result}: {len(different)} frozen tensors differ from the base's: {', '.join(sorted(different)[:5])}. "
            f"Its disk may be damaged; the run's last checkpoint can be written again with --resume"
        )
    return n_equal


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
