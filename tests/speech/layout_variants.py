"""Small random checkpoints in every form that can be opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from speech.layouts import AUDIO_EMBED
from tests.benchmarks.random_checkpoint import (
    LORA_MODULES,
    NATIVE_TO_REMOTE,
    TINY_LORA_RANK,
    write_checkpoint,
)


def write_remote(folder: Path, *, shards: int = 3) -> Path:
    """Microsoft's layout; LoRA pairs lie in other shards than their base."""
    return write_checkpoint(folder, size="tiny", layout="remote", shards=shards)


def write_native(folder: Path, *, seed: int = 0, shards: int = 1) -> Path:
    return write_checkpoint(folder, size="tiny", layout="native", shards=shards, seed=seed)


def write_native_with_lora(folder: Path) -> Path:
    """transformers' layout with a PEFT adapter beside it."""
    write_native(folder)
    generator = torch.Generator().manual_seed(7)
    pairs = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if name.startswith("model.layers.") and module.endswith(LORA_MODULES):
            for half, shape in (
                ("A", (TINY_LORA_RANK, tensor.shape[1])),
                ("B", (tensor.shape[0], TINY_LORA_RANK)),
            ):
                pairs[f"base_model.model.{module}.lora_{half}.weight"] = 0.1 * torch.randn(
                    shape, generator=generator
                )
    (folder / "speech-lora").mkdir()
    save_file(pairs, folder / "speech-lora" / "adapter_model.safetensors")
    adapter = {"r": TINY_LORA_RANK, "lora_alpha": 2 * TINY_LORA_RANK, "use_rslora": False}
    (folder / "speech-lora" / "adapter_config.json").write_text(json.dumps(adapter))
    return folder


def audio_tensors(scratch: Path, *, seed: int = 5) -> dict[str, torch.Tensor]:
    """`audio_embed` of another model, under full native names."""
    native = write_native(scratch, seed=seed)
    tensors = load_file(native / "model.safetensors")
    shutil.rmtree(scratch)
    return {name: tensor for name, tensor in tensors.items() if name.startswith(AUDIO_EMBED)}


def remote_name(name: str) -> str:
    for pattern, replacement in NATIVE_TO_REMOTE:
        name = pattern.sub(replacement, name)
    return name


NAMINGS: dict[str, Callable[[str], str]] = {
    "native": lambda name: name,
    "remote": remote_name,
    "native, no prefix": lambda name: name.removeprefix(AUDIO_EMBED),
    "remote, no prefix": lambda name: remote_name(name).removeprefix(AUDIO_EMBED),
}


def write_overlay(
    folder: Path, tensors: dict[str, torch.Tensor], *, naming: str, config: dict[str, object] | None = None
) -> Path:
    """A folder with `tensors` alone, in one of `NAMINGS`, and a config.json where one is given."""
    folder.mkdir(parents=True)
    save_file(
        {NAMINGS[naming](name): tensor for name, tensor in tensors.items()}, folder / "audio.safetensors"
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder
