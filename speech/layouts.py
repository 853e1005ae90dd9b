"""The two layouts in which Phi-4-multimodal checkpoints are published, told apart by their tensors' names.

*native*: transformers' own `phi4_multimodal`. *remote*: Microsoft's original code (`phi4mm`), in which the
release and its fine-tunes are published, with the speech and vision LoRA inside. The remote names map onto the
native model; a remote checkpoint's config is translated, and its own code is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from transformers import Phi4MultimodalConfig

LM_HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
IMAGE_TOWER = "model.embed_tokens_extend.image_embed."
_RELEASE_END_IDS = (200020, 199999)


class Layout(StrEnum):
    NATIVE = "native"
    NATIVE_WITH_LORA = "native+speech-lora"
    REMOTE = "remote"


@dataclass(frozen=True)
class Source:
    """Where one native tensor comes from: a stored tensor and, where there is one, the LoRA laid over it."""

    base: str
    lora_a: str | None = None
    lora_b: str | None = None


_REMOTE_MARKS = (".lora_A.speech.", ".self_attn.linear_q.", ".audio_projection.", ".base_layer.")
_NATIVE_MARKS = (".up_proj_for_speech.",)

_REMOTE_TO_NATIVE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(feed_forward_(?:in|out))\.net\.0\.linear\.", r"\1.gate_up_proj."),
        (r"(feed_forward_(?:in|out))\.net\.2\.", r"\1.down_proj."),
        (r"self_attn\.linear_([qkv])\.", r"self_attn.\1_proj."),
        (r"self_attn\.linear_out\.", "self_attn.o_proj."),
        (r"audio_projection\.speech\.0\.", "up_proj_for_speech."),
        (r"audio_projection\.speech\.2\.", "down_proj_for_speech."),
        (r"audio_projection\.vision\.0\.", "up_proj_for_vision_speech."),
        (r"audio_projection\.vision\.2\.", "down_proj_for_vision_speech."),
    )
]


class LayoutUnknown(Exception):
    """The tensors' names are neither layout's."""


def detect_layout(names: Iterable[str]) -> Layout:
    """The layout of a checkpoint with these tensors.

    Raises:
        LayoutUnknown: neither layout's marks, or both.
    """
    listed = list(names)
    remote = any(mark in name for name in listed for mark in _REMOTE_MARKS)
    native = any(mark in name for name in listed for mark in _NATIVE_MARKS)
    if remote == native:
        raise LayoutUnknown(
            f"its {len(listed)} tensors are not named as a Phi-4-multimodal checkpoint's "
            f"(for example {', '.join(sorted(listed)[:3]) or 'none at all'})"
        )
    return Layout.REMOTE if remote else Layout.NATIVE


def remote_sources(names: Iterable[str]) -> dict[str, Source]:
    """For a remote checkpoint: native name -> where it comes from. Vision LoRA and image tower are left out."""
    stored = set(names)
    sources: dict[str, Source] = {}
    for name in stored:
        if name.startswith(IMAGE_TOWER) or ".lora_" in name:
            continue
        native = name.replace(".base_layer.", ".")
        for pattern, replacement in _REMOTE_TO_NATIVE:
            native = pattern.sub(replacement, native)
        stem = name.removesuffix(".base_layer.weight")
        lora_a, lora_b = f"{stem}.lora_A.speech.weight", f"{stem}.lora_B.speech.weight"
        has_lora = stem != name and lora_a in stored and lora_b in stored
        sources[native] = Source(name, lora_a, lora_b) if has_lora else Source(name)
    return sources


def native_sources(names: Iterable[str]) -> dict[str, Source]:
    """For a native checkpoint: native name -> the tensor of the same name; the image tower is left out."""
    return {name: Source(name) for name in names if not name.startswith(IMAGE_TOWER)}


def native_config(stored: dict[str, Any], layout: Layout) -> Phi4MultimodalConfig:
    """The native config of a checkpoint whose `config.json` is `stored`.

    The sliding window is dropped: at 262,144 positions it never slides, and only selects a slower cache.
    """
    if layout is not Layout.REMOTE:
        return Phi4MultimodalConfig(**{**stored, "sliding_window": None})
    kept = {
        name: stored[name]
        for name in (
            "attention_dropout", "embd_pdrop", "fonoteca", "hidden_act", "hidden_size", "initializer_range",
            "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
            "num_key_value_heads", "original_max_position_embeddings", "partial_rotary_factor", "resid_pdrop",
            "rms_norm_eps", "rope_scaling", "rope_theta", "tie_word_embeddings", "vocab_size",
            "bos_token_id", "pad_token_id",
        )
        if name in stored
    }  # fmt: skip
    audio = stored["audio_processor"]["config"]
    # The release's config names 199999 alone; its generation config and its training end with 200020.
    has_release_ids = stored.get("vocab_size", _RELEASE_END_IDS[0] + 1) > _RELEASE_END_IDS[0]
    return Phi4MultimodalConfig(
        **kept,
        eos_token_id=list(_RELEASE_END_IDS) if has_release_ids else stored.get("eos_token_id"),
        sliding_window=None,
        # constants of Microsoft's code; a config names them where its vocabulary is another
        vision_config={"image_token_id": stored.get("image_token_id", 200010)},
        audio_config={
            "audio_token_id": stored.get("audio_token_id", 200011),
            "hidden_size": audio["attention_dim"],
            "intermediate_size": audio["linear_units"],
            "num_blocks": audio["num_blocks"],
            "num_attention_heads": audio["attention_heads"],
            "activation": audio["activation"],
            "chunk_size": audio["chunk_size"],
            "left_chunk": audio["left_chunk"],
            "kernel_size": audio["kernel_size"],
            "conv_activation": audio["conv_activation"],
            "conv_glu_type": audio["conv_glu_type"],
            "ext_pw_out_channel": audio["ext_pw_out_channel"],
            # Microsoft's spelling
            "depthwise_separable_out_channel": audio["depthwise_seperable_out_channel"],
            "depthwise_multiplier": audio["depthwise_multiplier"],
            "nemo_conv_channels": audio["nemo_conv_settings"]["conv_channels"],
            "time_reduction": audio["time_reduction"],
            "input_size": audio["input_size"],
            "bias_max_distance": audio["relative_attention_bias_args"]["t5_bias_max_distance"],
            "dropout_rate": audio["dropout_rate"],
        },
    )
