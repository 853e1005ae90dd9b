"""The trained network as a checkpoint folder like any other: the native layout, 16 bits, without the heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, Phi4MultimodalFeatureExtractor, Phi4MultimodalForCausalLM

from training.scratch.vocabulary import END, END_OF_TEXT

MAX_BYTES = 25_000_000
"""Of the weights: they lie in the repository."""
_MODEL = "model."


class ExportError(ValueError):
    """The model cannot be written. Says why and what to do."""


def export(model: Phi4MultimodalForCausalLM, trained: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write config, weights, generation config and preprocessor into `folder`, beside the tokenizer.

    Args:
        model: for its config, and for what is not trained (the image tower).
        trained: name -> value, by the names of `training.scratch.network.Network`; the heads are left out.

    Raises:
        ExportError: a weight is not finite in 16 bits, or all are too large together.
    """
    tensors: dict[str, torch.Tensor] = {
        name: tensor.detach().to("cpu", torch.float16).clone()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    for name, tensor in trained.items():
        bare = name.removeprefix(_MODEL)
        if name.startswith(_MODEL) and bare in tensors:
            tensors[bare] = tensor.detach().to("cpu", torch.float16).contiguous()
    bad = sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all())
    if bad:
        raise ExportError(f"not finite in 16 bits: {', '.join(bad)}: train anew with another seed")
    n_bytes = sum(tensor.numel() * 2 for tensor in tensors.values())
    if n_bytes > MAX_BYTES:
        raise ExportError(f"the weights are {n_bytes:,} bytes, more than {MAX_BYTES:,}: choose smaller sizes")
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = model.config.to_diff_dict() | {
        "architectures": ["Phi4MultimodalForCausalLM"],
        "dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it for its owner alone
    GenerationConfig(
        bos_token_id=END_OF_TEXT,
        eos_token_id=[END_OF_TEXT, END],
        pad_token_id=END_OF_TEXT,
        do_sample=False,
        max_new_tokens=256,
    ).save_pretrained(folder)
    Phi4MultimodalFeatureExtractor().save_pretrained(folder)
