"""Random checkpoints of Phi-4-multimodal, up to its exact published shape, and random models without a disk.

    python -m tests.benchmarks.random_checkpoint DIR --size tiny|small|full --layout remote|native

Weights are normal with standard deviation 0.02 and norms are 1, so that activations stay finite; the text that
comes out means nothing. `full` has the published release's shapes, both LoRA adapters and the image tower
included: 5.57 billion parameters, 11.1 GB in bfloat16. Tensors are made and written one at a time, each from a
seed of its own, so that a tensor does not depend on layout, sharding or order.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from speech.layouts import IMAGE_TOWER, LM_HEAD
from speech.model import assign, empty_model, expected_tensors, finish
from speech.shards import TensorPlan, plan_shards, write_shards

PROJECT_ROOT = Path(__file__).parents[2]
STD = 0.02
LORA_RANKS = {"full": (320, 256), "small": (32, 16), "tiny": (10, 8)}
"""Size -> rank of the speech LoRA and of the vision LoRA; alpha is twice the rank, as published."""
TINY_LORA_RANK = LORA_RANKS["tiny"][0]
LORA_MODULES = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")

NATIVE_TO_REMOTE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(audio_embed\..*feed_forward_(?:in|out))\.gate_up_proj\.", r"\1.net.0.linear."),
        (r"(audio_embed\..*feed_forward_(?:in|out))\.down_proj\.", r"\1.net.2."),
        (r"(audio_embed\..*self_attn)\.([qkv])_proj\.", r"\1.linear_\2."),
        (r"(audio_embed\..*self_attn)\.o_proj\.", r"\1.linear_out."),
        (r"(audio_embed)\.up_proj_for_speech\.", r"\1.audio_projection.speech.0."),
        (r"(audio_embed)\.down_proj_for_speech\.", r"\1.audio_projection.speech.2."),
        (r"(audio_embed)\.up_proj_for_vision_speech\.", r"\1.audio_projection.vision.0."),
        (r"(audio_embed)\.down_proj_for_vision_speech\.", r"\1.audio_projection.vision.2."),
        (r"(image_embed)\.img_projection_up\.", r"\1.img_projection.0."),
        (r"(image_embed)\.img_projection_down\.", r"\1.img_projection.2."),
        (r"(image_embed)\.global_img_feature_extensor", r"\1.glb_GN"),
        (r"(image_embed)\.sub_img_feature_extensor", r"\1.sub_GN"),
    )
]
"""Names in Microsoft's layout, from those of transformers."""


def _longrope(n_factors: int) -> dict[str, Any]:
    steps = [i / max(1, n_factors - 1) for i in range(n_factors)]
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0 + 0.5 * step for step in steps],
        "long_factor": [1.0 + 47.0 * step**2 for step in steps],
    }


def full_config() -> Phi4MultimodalConfig:
    """The published shape (its rotary factors are not: these are made up, of the same length and range)."""
    return Phi4MultimodalConfig(
        num_attention_heads=24,
        num_key_value_heads=8,
        rope_parameters=_longrope(48),
        tie_word_embeddings=True,
        eos_token_id=[200020, 199999],
        audio_config={"bias_max_distance": 500},
    )


def small_config() -> Phi4MultimodalConfig:
    """About 165 M parameters, three query heads to each key-value head; takes the demo model's tokenizer."""
    return _reduced(
        vocab_size=32_000, hidden_size=768, intermediate_size=2048, layers=12, heads=(12, 4),
        audio={"hidden_size": 512, "intermediate_size": 768, "num_blocks": 12, "num_attention_heads": 8},
        vision={"hidden_size": 64, "intermediate_size": 128},
    )  # fmt: skip


def tiny_config() -> Phi4MultimodalConfig:
    """About 0.3 M parameters; takes the demo model's tokenizer."""
    return _reduced(
        vocab_size=720, hidden_size=96, intermediate_size=128, layers=2, heads=(6, 2),
        audio={"hidden_size": 64, "intermediate_size": 96, "num_blocks": 2, "num_attention_heads": 4},
        vision={"hidden_size": 32, "intermediate_size": 32},
    )  # fmt: skip


def _reduced(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    layers: int,
    heads: tuple[int, int],
    audio: dict[str, int],
    vision: dict[str, int],
) -> Phi4MultimodalConfig:
    width = audio["hidden_size"]
    return Phi4MultimodalConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        rope_parameters=_longrope(int(hidden_size // heads[0] * 0.75) // 2),
        tie_word_embeddings=True,
        # the demo model's tokenizer
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=[0, 3],
        audio_config={
            **audio,
            "audio_token_id": 4,
            "ext_pw_out_channel": width,
            "depthwise_separable_out_channel": width,
            "nemo_conv_channels": width // 2,
            "bias_max_distance": 500,
        },
        vision_config={
            **vision, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 28, "image_size": 28,
            "image_token_id": 5,
        },
    )  # fmt: skip


CONFIGS = {"full": full_config, "small": small_config, "tiny": tiny_config}


def random_model(
    config: Phi4MultimodalConfig, device: torch.device | str, dtype: torch.dtype, seed: int = 0
) -> Phi4MultimodalForCausalLM:
    """A native model in evaluation mode, made on `device` without a checkpoint and without image tower."""
    device = torch.device(device)
    model = empty_model(config)
    generator = torch.Generator(device).manual_seed(seed)
    for name, meta in expected_tensors(model).items():
        assign(model, name, _filled(name, torch.empty(meta.shape, dtype=dtype, device=device), generator))
    return finish(model, device)


def _filled(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Norms 1, biases 0, everything else normal."""
    if name.endswith("global_invstd") or ("norm" in name and name.endswith(".weight")):
        return tensor.fill_(1.0)
    if name.endswith(("bias", "global_mean")):
        return tensor.zero_()
    return tensor.normal_(0.0, STD, generator=generator)


def native_shapes(config: Phi4MultimodalConfig) -> dict[str, tuple[int, ...]]:
    """Native name -> shape of every stored tensor, image tower included."""
    with torch.device("meta"):
        model = Phi4MultimodalForCausalLM(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != LM_HEAD}


def remote_shapes(config: Phi4MultimodalConfig, ranks: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Name -> shape in Microsoft's layout, with both LoRA adapters inside."""
    shapes: dict[str, tuple[int, ...]] = {}
    for native, shape in native_shapes(config).items():
        name = native
        for pattern, replacement in NATIVE_TO_REMOTE:
            name = pattern.sub(replacement, name)
        stem = name.removesuffix(".weight")
        if not (name.startswith("model.layers.") and stem.endswith(LORA_MODULES)):
            # the extensors' axes: [1, 1, width] and [1, 1, 1, width] in both layouts
            shapes[name] = shape
            continue
        shapes[f"{stem}.base_layer.weight"] = shape
        for adapter, rank in zip(("speech", "vision"), ranks, strict=True):
            shapes[f"{stem}.lora_A.{adapter}.weight"] = (rank, shape[1])
            shapes[f"{stem}.lora_B.{adapter}.weight"] = (shape[0], rank)
    return shapes


def remote_config(config: Phi4MultimodalConfig, ranks: tuple[int, int]) -> dict[str, Any]:
    """Microsoft's `config.json` for the same model."""
    audio, rope = config.audio_config, config.rope_parameters
    kept = (
        "attention_dropout", "embd_pdrop", "hidden_act", "hidden_size", "initializer_range",
        "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
        "num_key_value_heads", "original_max_position_embeddings", "resid_pdrop", "rms_norm_eps",
        "tie_word_embeddings", "vocab_size", "bos_token_id", "pad_token_id", "eos_token_id",
    )  # fmt: skip
    adapters = {
        f"{adapter}_lora": {"r": rank, "lora_alpha": 2 * rank, "dp": 0.0}
        for adapter, rank in zip(("speech", "vision"), ranks, strict=True)
    }
    return {
        "architectures": ["Phi4MMForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_phi4mm.Phi4MMForCausalLM"},
        "model_type": "phi4mm",
        **{name: getattr(config, name) for name in kept},
        "partial_rotary_factor": rope["partial_rotary_factor"],
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {
            "type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"],
        },
        "sliding_window": 262144,
        "audio_token_id": audio.audio_token_id,
        "image_token_id": config.vision_config.image_token_id,
        **adapters,
        "audio_processor": {
            "name": "cascades",
            "config": {
                "attention_dim": audio.hidden_size,
                "linear_units": audio.intermediate_size,
                "attention_heads": audio.num_attention_heads,
                "num_blocks": audio.num_blocks,
                "activation": audio.activation,
                "chunk_size": audio.chunk_size,
                "left_chunk": audio.left_chunk,
                "kernel_size": audio.kernel_size,
                "conv_activation": audio.conv_activation,
                "conv_glu_type": audio.conv_glu_type,
                "ext_pw_out_channel": audio.ext_pw_out_channel,
                "depthwise_seperable_out_channel": audio.depthwise_separable_out_channel,
                "depthwise_multiplier": audio.depthwise_multiplier,
                "nemo_conv_settings": {"conv_channels": audio.nemo_conv_channels},
                "time_reduction": audio.time_reduction,
                "input_size": audio.input_size,
                "relative_attention_bias_args": {
                    "type": "t5", "t5_bias_max_distance": audio.bias_max_distance,
                },
                "dropout_rate": audio.dropout_rate,
            },
        },
    }  # fmt: skip


def write_checkpoint(
    folder: Path, *, size: str, layout: str, shards: int = 1, seed: int = 0, dtype: torch.dtype | None = None
) -> Path:
    """Write a random checkpoint into `folder`, one tensor in memory at a time.

    Args:
        size: tiny, small or full.
        layout: remote (Microsoft's) or native (transformers' own, without LoRA).
        shards: number of files wanted, of about equal size; tensors are not cut, so it may be one more.
        dtype: weights' type; None takes bfloat16 for full, else float32.
    """
    config = CONFIGS[size]()
    dtype = dtype or (torch.bfloat16 if size == "full" else torch.float32)
    remote = layout == "remote"
    shapes = remote_shapes(config, LORA_RANKS[size]) if remote else native_shapes(config)
    plans = [TensorPlan(name, dtype, shape) for name, shape in _scattered(shapes, shards)]
    n_bytes = sum(plan.n_bytes for plan in plans)
    largest = max(plan.n_bytes for plan in plans)
    max_bytes = n_bytes if shards == 1 else max(largest, math.ceil(n_bytes / shards * 1.02))

    def produce(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        return _filled(name, torch.empty(shapes[name], dtype=dtype), generator)

    folder.mkdir(parents=True, exist_ok=True)
    write_shards(folder, plan_shards(plans, max_bytes=max_bytes), produce)
    content = remote_config(config, LORA_RANKS[size]) if remote else config.to_dict()
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copy(PROJECT_ROOT / "models" / "demo" / "tokenizer.json", folder / "tokenizer.json")
    return folder


def _scattered(shapes: dict[str, tuple[int, ...]], shards: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """In several shards, LoRA tensors come last: they lie in other files than their base, the harder case."""
    if shards == 1:
        yield from shapes.items()
        return
    yield from ((name, shape) for name, shape in shapes.items() if ".lora_" not in name)
    yield from ((name, shape) for name, shape in shapes.items() if ".lora_" in name)


def count_parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Parameters by part: decoder, embedding, audio_embed, image_tower, speech_lora, vision_lora, total."""
    parts = dict.fromkeys(
        ("decoder", "embedding", "audio_embed", "image_tower", "speech_lora", "vision_lora", "total"), 0
    )
    for name, shape in shapes.items():
        if name.startswith(IMAGE_TOWER):
            part = "image_tower"
        elif ".audio_embed." in name:
            part = "audio_embed"
        elif ".lora_" in name:
            part = "speech_lora" if ".speech." in name else "vision_lora"
        else:
            part = "embedding" if name == "model.embed_tokens.weight" else "decoder"
        parts[part] += math.prod(shape)
        parts["total"] += math.prod(shape)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a random Phi-4-multimodal checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(CONFIGS), default="tiny")
    parser.add_argument("--layout", choices=("remote", "native"), default="remote")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_checkpoint(
        arguments.folder,
        size=arguments.size,
        layout=arguments.layout,
        shards=arguments.shards,
        seed=arguments.seed,
    )
    config = CONFIGS[arguments.size]()
    remote = arguments.layout == "remote"
    shapes = remote_shapes(config, LORA_RANKS[arguments.size]) if remote else native_shapes(config)
    for part, count in count_parameters(shapes).items():
        print(f"{part:12} {count / 1e6:10.3f} M")


if __name__ == "__main__":
    main()
