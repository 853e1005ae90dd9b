"""The two layouts in which Phi-4-multimodal checkpoints are published, told apart by their tensors' names.

*native*: transformers' own `phi4_multimodal`. *remote*: Microsoft's original code (`phi4mm`), in which the
release and its fine-tunes are published, with the speech and vision LoRA inside. The remote names map onto the
native model; a remote checkpoint's config is translated, and its own code is never run.

Audio fine-tuning changes `audio_embed` alone, so a folder may hold just that, in either naming: an overlay.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from transformers import Phi4MultimodalConfig

from speech.shards import StoredTensor

# It advises whoever writes a config; the published ones are as they are, and it comes with every opening.
logging.getLogger("transformers.modeling_rope_utils").setLevel(logging.ERROR)

LM_HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
IMAGE_TOWER = "model.embed_tokens_extend.image_embed."
AUDIO_EMBED = "model.embed_tokens_extend.audio_embed."
_RELEASE_END_IDS = (200020, 199999)


class Layout(StrEnum):
    NATIVE = "native"
    NATIVE_WITH_LORA = "native+speech-lora"
    REMOTE = "remote"
    AUDIO_OVERLAY = "audio-overlay"
    """Only `audio_embed`, in either naming, to be laid over a whole checkpoint: what audio fine-tuning changes."""


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA adapter's rank and alpha."""

    r: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.r


@dataclass(frozen=True)
class LoraPair:
    """What is added to a base tensor: `scale * b @ a`."""

    a: StoredTensor
    b: StoredTensor
    scale: float


@dataclass(frozen=True)
class Source:
    """Where one native tensor comes from: a stored tensor and, where there is one, the LoRA laid over it."""

    base: StoredTensor
    lora: LoraPair | None = None


@dataclass
class Gathered:
    """The native model's tensors as far as a folder has them, and what its names alone show to be wrong."""

    sources: dict[str, Source] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    """Stored names that have no place in the model."""
    lora_faults: list[str] = field(default_factory=list)
    """One sentence each."""

    def add(self, native: str, source: Source) -> None:
        """Take `source` for `native`; a second one has no place."""
        if native in self.sources:
            self.unexpected.append(f"{source.base.name} (a second {native})")
        else:
            self.sources[native] = source


_REMOTE_MARKS = (".lora_A.speech.", ".self_attn.linear_q.", ".audio_projection.", ".base_layer.")
_NATIVE_MARKS = (".up_proj_for_speech.",)
_DECODER = re.compile(r"model\.(layers|embed_tokens|norm)\.")
_AUDIO_ALONE = re.compile(
    rf"(?:{re.escape(AUDIO_EMBED)}|audio_projection\.|(?:up|down)_proj_for_(?:vision_)?speech\."
    r"|encoder\.(?:encoder_embedding|embed|encoders|relative_attention_bias_layer)\.)"
)
_WRAPPED = ".base_layer.weight"
_REMOTE_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.(?P<adapter>speech|vision)\.weight")
_PEFT_LORA = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

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
    if not any(_DECODER.match(name) for name in listed) and any(_AUDIO_ALONE.match(name) for name in listed):
        return Layout.AUDIO_OVERLAY
    remote = any(mark in name for name in listed for mark in _REMOTE_MARKS)
    native = any(mark in name for name in listed for mark in _NATIVE_MARKS)
    if remote == native:
        what = "in both layouts' ways" if remote else "as a Phi-4-multimodal checkpoint's"
        raise LayoutUnknown(
            f"its {len(listed)} tensors are {'' if remote else 'not '}named {what} "
            f"(for example {', '.join(sorted(listed)[:3]) or 'none at all'})"
        )
    return Layout.REMOTE if remote else Layout.NATIVE


def native_name(stored: str) -> str:
    """The native name of a tensor of the remote layout; native names stay as they are."""
    native = stored.replace(".base_layer.", ".")
    for pattern, replacement in _REMOTE_TO_NATIVE:
        native = pattern.sub(replacement, native)
    return native


def remote_sources(tensors: Mapping[str, StoredTensor], lora: LoraSettings | None) -> Gathered:
    """A remote checkpoint's tensors. Vision LoRA and image tower are left out; `lora` is the speech LoRA's."""
    gathered = Gathered()
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        if part := _REMOTE_LORA.fullmatch(name):
            if part["adapter"] == "speech":
                pairs.setdefault(part["module"], {})[part["half"]] = tensor
        elif ".lora_" in name:
            gathered.unexpected.append(name)
        elif not name.startswith(IMAGE_TOWER):
            gathered.add(native_name(name), Source(tensor))
    wrapped = {name.removesuffix(_WRAPPED) for name in tensors if name.endswith(_WRAPPED)}
    if lora is None and pairs:
        gathered.lora_faults.append(
            "the speech LoRA's scale is unknown: config.json names no speech_lora with r and lora_alpha above 0"
        )
    if lora is not None:
        gathered.lora_faults += [
            f"{module} has no speech LoRA, and config.json names one"
            for module in sorted(wrapped - pairs.keys())
        ]
    _lay_over(gathered, pairs, lora)
    return gathered


def native_sources(tensors: Mapping[str, StoredTensor]) -> Gathered:
    """A native checkpoint's tensors; the image tower is left out."""
    gathered = Gathered()
    for name, tensor in tensors.items():
        if not name.startswith(IMAGE_TOWER):
            gathered.add(name, Source(tensor))
    return gathered


def lay_peft_adapter(gathered: Gathered, tensors: Mapping[str, StoredTensor], lora: LoraSettings) -> None:
    """Lay a PEFT adapter's pairs (`base_model.model.<module>.lora_A.weight`) over their base tensors."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        if part := _PEFT_LORA.fullmatch(name):
            pairs.setdefault(part["module"], {})[part["half"]] = tensor
        else:
            gathered.unexpected.append(name)
    _lay_over(gathered, pairs, lora)


def overlay_sources(tensors: Mapping[str, StoredTensor]) -> Gathered:
    """An audio overlay's tensors, under their full native names, whichever naming and prefix they came with."""
    gathered = Gathered()
    for name, tensor in tensors.items():
        if name.startswith(IMAGE_TOWER):
            continue
        if _AUDIO_ALONE.match(name):
            # the mapping looks at the end of a name only
            gathered.add(native_name(AUDIO_EMBED + name.removeprefix(AUDIO_EMBED)), Source(tensor))
        else:
            gathered.unexpected.append(name)
    return gathered


def _lay_over(
    gathered: Gathered, pairs: Mapping[str, Mapping[str, StoredTensor]], lora: LoraSettings | None
) -> None:
    """Attach LoRA pairs to the sources of their modules, and note every pair that does not fit."""
    for module, pair in sorted(pairs.items()):
        source = gathered.sources.get(f"{module}.weight")
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None:
            gathered.lora_faults.append(f"{module} has lora_{'A' if b is None else 'B'} alone")
        elif source is None:
            gathered.lora_faults.append(f"{module} has a LoRA, but no weight that it belongs to")
        elif lora is not None:
            out_in = source.base.shape
            wanted = (lora.r, *out_in[1:]), (*out_in[:1], lora.r)
            if (a.shape, b.shape) != wanted:
                gathered.lora_faults.append(
                    f"{module}: lora_A is {list(a.shape)} and lora_B {list(b.shape)}, not "
                    f"{list(wanted[0])} and {list(wanted[1])} (r = {lora.r})"
                )
            else:
                gathered.sources[f"{module}.weight"] = Source(source.base, LoraPair(a, b, lora.scale))


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
