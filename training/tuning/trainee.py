"""The model as it is trained: encoder, prompt, answer and loss in one forward pass.

It computes what production computes: our log-mel features, the audio encoder with its corrections for padding
(`speech.encoder`), the engine's prompt. Two things only training needs: logits are made for the last K positions
alone (K: longest answer + 1), where full ones would be the largest tensors of all; and activations are computed
again in the backward pass, in the audio encoder's blocks too, which transformers' own switch leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Phi4MultimodalForCausalLM

from speech.encoder import encode_audio
from speech.features import count_audio_tokens, log_mel
from speech.prompt import PromptIds
from training.tuning.settings import Precision

AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": None}


class Trainee(nn.Module):
    """Computes the loss of a batch.

    Args:
        model: opened; `training.tuning.frozen.freeze` was applied.
        prompt_ids: what stands around the audio.
        precision: of the arithmetic. The trained weights are float32 whatever it is.
        gradient_checkpointing: keep only what enters each block of decoder and encoder.
    """

    accepts_loss_kwargs = True
    """To transformers' Trainer: the loss is per token of the whole optimizer step."""

    def __init__(
        self,
        model: Phi4MultimodalForCausalLM,
        prompt_ids: PromptIds,
        *,
        precision: Precision,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.register_buffer("before", torch.tensor(prompt_ids.before, dtype=torch.long), persistent=False)
        self.register_buffer("after", torch.tensor(prompt_ids.after, dtype=torch.long), persistent=False)
        if gradient_checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            for block in cast("nn.ModuleList", self._audio_embed.encoder.encoders):
                _checkpoint(block)

    @property
    def _audio_embed(self) -> Any:
        return self.model.model.embed_tokens_extend.audio_embed

    def forward(
        self,
        waveforms: torch.Tensor,
        n_frames: Sequence[int],
        answers: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss over the answers.

        Args:
            waveforms, n_frames, answers, labels: from `training.tuning.examples.Collator`.
            num_items_in_batch: what the sum of the tokens' losses is divided by; None: by the batch's own tokens.

        Returns:
            {"loss": scalar, float32}.
        """
        dtype = AUTOCAST[self.precision]
        with torch.no_grad():
            # outside autocast: a frame's energy is past what float16 can hold
            features = log_mel(waveforms.float(), torch.tensor(n_frames, device=waveforms.device))
        with torch.autocast(waveforms.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            embeddings, places = self._embed(features, n_frames, answers, labels)
            n_logits = labels.shape[1]
            found = self.model(
                inputs_embeds=embeddings,
                attention_mask=(places >= 0).long(),
                position_ids=places.clamp(min=0),
                use_cache=False,
                logits_to_keep=n_logits,
            )
        # a token is predicted from the position before it
        predicted = found.logits[:, :-1].float()
        loss = nn.functional.cross_entropy(
            predicted.reshape(-1, predicted.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum"
        )
        n_tokens = num_items_in_batch if num_items_in_batch is not None else labels[:, 1:].ne(-100).sum()
        return {"loss": loss / n_tokens}

    def _embed(
        self, features: torch.Tensor, n_frames: Sequence[int], answers: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts with their audio and answers, padded on the left: [batch, length, hidden], and the place of each
        token in its row, [batch, length], below 0 in the padding."""
        with torch.no_grad():
            embed = self.model.model.embed_tokens
            before, after, told = embed(self.before), embed(self.after), embed(answers)
        audio = encode_audio(self._audio_embed, features, n_frames).to(before.dtype)
        n_answer = labels[:, 1:].ne(-100).sum(1).tolist()
        rows = [
            torch.cat(
                [before, audio[row, : count_audio_tokens(n)], after, told[row, len(told[row]) - n_told :]]
            )
            for row, (n, n_told) in enumerate(zip(n_frames, n_answer, strict=True))
        ]
        longest = max(len(row) for row in rows)
        embeddings = torch.stack([nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        padding = torch.tensor([longest - len(row) for row in rows], device=features.device)
        return embeddings, torch.arange(longest, device=features.device) - padding[:, None]


def _checkpoint(block: nn.Module) -> None:
    """Keep only what enters `block`, as long as it is trained. Its tensors keep their names."""
    forward = block.forward

    def forward_checkpointed(*inputs: torch.Tensor) -> torch.Tensor:
        if not (block.training and torch.is_grad_enabled()):
            return cast("torch.Tensor", forward(*inputs))
        return cast("torch.Tensor", checkpoint(forward, *inputs, use_reentrant=False))

    block.forward = forward_checkpointed
