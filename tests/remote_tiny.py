"""The tiny checkpoint in Microsoft's layout: its folder as a checkpoint, and what the original code computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

DATA = Path(__file__).parent / "data" / "phi4mm-remote-tiny"
PALETTE_ROWS = 509
VOCABULARY = 200_064
N_CLIPS = 4


def write_checkpoint(folder: Path, *, shards: int = 1) -> Path:
    """Write the recorded tensors as a checkpoint folder in the remote layout, in one file or several."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(DATA / "tensors.safetensors")
    palette = tensors.pop("embed_palette")
    tensors["model.embed_tokens.weight"] = palette[torch.arange(VOCABULARY) % PALETTE_ROWS].clone()
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        weight_map = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
            # neighbours land in different files, so that a LoRA pair and its base do too
            part = {name: tensors[name] for name in names[shard::shards]}
            save_file(part, folder / file)
            weight_map |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shutil.copy(DATA / "config.json", folder / "config.json")
    shutil.copy(DATA.parents[2] / "models" / "demo" / "tokenizer.json", folder / "tokenizer.json")
    return folder


def expected() -> dict[str, torch.Tensor]:
    """Microsoft's outputs, one clip at a time in float32: features{k}, input_ids{k}, logits{k}, greedy{k}."""
    return load_file(DATA / "expected.safetensors")


def clips() -> list[np.ndarray]:
    """The four clips, float32."""
    import wave

    loaded = []
    for k in range(N_CLIPS):
        with wave.open(str(DATA / f"clip{k}.wav")) as file:
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        loaded.append(pcm.astype(np.float32) / 32768)
    return loaded
