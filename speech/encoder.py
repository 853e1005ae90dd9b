"""Phi-4's audio encoder, run so that a clip's embeddings do not depend on what it is batched with.

transformers' own forward (5.23) adds a *boolean* mask to the encoder's float attention bias, so that padding is
weighted a little lower instead of being left out, and lets padding into the strided convolutions: a 10 s clip
beside a 30 s one comes out 37 % different. The two corrections here are (1) padded keys are excluded from the
attention, (2) every frame past a clip's end is zeroed before each stride-2 convolution, as the zero padding of a
lone clip would be. A clip alone comes out as from the original. The conformer's own convolutions look left only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalAudioEmbedding,
    Phi4MultimodalAudioNemoConvSubsampling,
)


def encode_audio(
    audio_embed: Phi4MultimodalAudioEmbedding, features: torch.Tensor, n_frames: Sequence[int]
) -> torch.Tensor:
    """Embeddings that stand in the prompt in place of the audio tokens.

    Args:
        audio_embed: the model's `model.embed_tokens_extend.audio_embed`.
        features: [batch, frames, 80] from `speech.features.log_mel`.
        n_frames: frames of each clip, known to the host; at most 4,000 (40 s), past which the positions run out.

    Returns:
        [batch, ceil(frames / 8), hidden] in the encoder's dtype. Rows past ceil(n_frames / 8) mean nothing.
    """
    encoder = audio_embed.encoder
    dtype = audio_embed.up_proj_for_speech.weight.dtype
    hidden = encoder.encoder_embedding(features.to(dtype))
    hidden, lengths = _subsample(encoder.embed, hidden, n_frames)
    mask = encoder.relative_attention_bias_layer(hidden)
    if any(length < hidden.shape[1] for length in lengths):
        ends = torch.tensor(lengths).to(hidden.device)
        is_padding = torch.arange(hidden.shape[1], device=hidden.device) >= ends[:, None]
        # The original adds True (1.0) to the bias of every key it keeps; softmax does not see a constant.
        mask = mask.masked_fill(is_padding[:, None, None, :], torch.finfo(mask.dtype).min)
    for layer in cast("nn.ModuleList", encoder.encoders):
        hidden = layer(hidden, mask)
    hidden = nn.functional.gelu(audio_embed.up_proj_for_speech(hidden))
    projected: torch.Tensor = audio_embed.down_proj_for_speech(hidden)
    return projected


def _subsample(
    embed: Phi4MultimodalAudioNemoConvSubsampling, hidden: torch.Tensor, n_frames: Sequence[int]
) -> tuple[torch.Tensor, list[int]]:
    """The strided convolutions: [batch, frames, 80] -> [batch, ceil(frames / 8), hidden] and the lengths."""
    lengths = list(n_frames)
    grid = hidden.unsqueeze(1)
    for layer in cast("nn.Sequential", embed.conv):
        if isinstance(layer, nn.Conv2d) and layer.stride[0] == 2:
            grid = _without_padding(grid, lengths)
            lengths = [(length + 1) // 2 for length in lengths]
        grid = layer(grid)
    batch, _, steps, _ = grid.shape
    return embed.out(grid.transpose(1, 2).reshape(batch, steps, -1)), lengths


def _without_padding(grid: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """`grid` [batch, channels, frames, bands] with zeros past each item's length."""
    if all(length == grid.shape[2] for length in lengths):
        return grid
    if torch.is_grad_enabled():  # autograd may need the values as they were
        ends = torch.tensor(lengths, device=grid.device)
        inside = torch.arange(grid.shape[2], device=grid.device) < ends[:, None]
        return grid * inside[:, None, :, None]
    for row, length in enumerate(lengths):
        grid[row, :, length:] = 0
    return grid
