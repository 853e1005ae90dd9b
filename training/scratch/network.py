"""The demo model's network: the native class, small, with heads beside it that help it learn and are then dropped.

The forward is transformers' own layer by layer, over `speech.encoder.encode_audio`, so that what is trained is what
the engine runs. A row holds the prompt, its audio and its answer side by side and is padded on the right: attention
is causal, so that no token sees padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import apply_rotary_pos_emb

from speech.encoder import encode_audio
from speech.features import count_audio_tokens
from speech.prompt import DEFAULT_PROMPT, PromptIds
from training.scratch.settings import Sizes
from training.scratch.vocabulary import AUDIO, END, END_OF_TEXT, IMAGE

PHONEMES_PER_TOKEN = 4
"""Framewise phonemes are told for each 20 ms, a quarter of an audio token."""
CHARACTERS_PER_TOKEN = 2
"""The character CTC has a place for each 40 ms: fast speech has more than 12.5 letters a second."""
GUIDED_LAYERS = (1, 2)
"""Decoder layers whose attention is guided (those that the model has), in the first half of their heads."""

GUIDE_TOKENS = 3.0
"""How far from its word attention may lie, in audio tokens (80 ms): one standard deviation."""

NAME = "fonoteca-demo"


def native_config(sizes: Sizes, vocabulary: int) -> Phi4MultimodalConfig:
    """The config of the native class, as small as `sizes` says; the image tower as small as it goes."""
    config = Phi4MultimodalConfig(
        vocab_size=vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        initializer_range=0.04,
        max_position_embeddings=2048,
        original_max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=END_OF_TEXT,
        eos_token_id=[END_OF_TEXT, END],
        pad_token_id=END_OF_TEXT,
        audio_config={
            "hidden_size": sizes.audio_hidden,
            "intermediate_size": sizes.audio_feed_forward,
            "num_blocks": sizes.audio_blocks,
            "num_attention_heads": sizes.audio_heads,
            "kernel_size": sizes.audio_kernel,
            "ext_pw_out_channel": sizes.audio_hidden,
            "depthwise_separable_out_channel": sizes.audio_hidden,
            "nemo_conv_channels": sizes.conv_channels,
            "bias_max_distance": 500,
            "dropout_rate": 0.0,
            "initializer_range": 0.04,
            "audio_token_id": AUDIO,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_attention_heads": 1,
            "num_hidden_layers": 2,
            "crop_size": 28,
            "image_size": 28,
            "image_token_id": IMAGE,
        },
    )
    config.fonoteca = {"is_demo": True, "name": NAME, "prompt": DEFAULT_PROMPT}
    return config


def new_model(config: Phi4MultimodalConfig, seed: int) -> Phi4MultimodalForCausalLM:
    """Random weights of `seed`."""
    torch.manual_seed(seed)
    model = Phi4MultimodalForCausalLM(config)
    # on a CPU the decoder's short rows cost a quarter of the time in eager attention that sdpa takes in 16 bits
    model.set_attn_implementation({"": "eager", "audio_config": "sdpa"})
    audio = model.model.embed_tokens_extend.audio_embed
    convolutions = audio.encoder.embed.conv
    for number, module in enumerate(convolutions):
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            convolutions[number] = _WideDepthwise.of(module)
    # the class draws every weight with one spread, far too small for convolutions of 9 inputs
    for module in audio.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for last in _last_of_branches(model):
        nn.init.zeros_(last.weight)
    return model.train()


class _WideDepthwise(nn.Conv2d):
    """A depthwise convolution that computes in float32 and channel by channel, whatever its weights are.

    Its backward in bfloat16 takes six times as long on a CPU: 170 of the 540 ms of 50 s of audio.
    """

    @classmethod
    def of(cls, narrow: nn.Conv2d) -> _WideDepthwise:
        """The same weights."""
        wide = cls(
            narrow.in_channels,
            narrow.out_channels,
            (narrow.kernel_size[0], narrow.kernel_size[1]),
            (narrow.stride[0], narrow.stride[1]),
            (int(narrow.padding[0]), int(narrow.padding[1])),
            groups=narrow.groups,
            bias=narrow.bias is not None,
        )
        wide.weight, wide.bias = narrow.weight, narrow.bias
        return wide

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (the name of the class above)
        bias = self.bias.float() if self.bias is not None else None
        wide_input = input.float().contiguous(memory_format=torch.channels_last)
        wide: torch.Tensor = self._conv_forward(wide_input, self.weight.float(), bias)
        return wide.to(input.dtype)


def _last_of_branches(model: Phi4MultimodalForCausalLM) -> Iterator[nn.Linear | nn.Conv1d]:
    """The layer by which each branch beside a residual path ends.

    At 0 they let what the convolutions hear through as it is (SkipInit: De and Smith 2020, arXiv:2002.10444). With
    random ones six blocks smear it beyond recognition: after 120 steps of clean speech the heads knew 15 % of the
    phonemes, with zeros 81 %.
    """
    for block in model.model.embed_tokens_extend.audio_embed.encoder.encoders:
        yield from (block.feed_forward_in.down_proj, block.feed_forward_out.down_proj)
        yield from (block.self_attn.o_proj, block.conv.ext_pw_conv_1d)
    for layer in model.model.layers:
        yield from (layer.self_attn.o_proj, layer.mlp.down_proj)


@dataclass(frozen=True)
class Batch:
    """What a step is computed from."""

    features: torch.Tensor
    """[items, frames, 80]."""
    n_frames: tuple[int, ...]
    phonemes: torch.Tensor
    """[items, audio tokens, 4]: the phoneme in each 20 ms; -100 where none is told."""
    characters: tuple[tuple[int, ...], ...]
    """Of each item; 0 is CTC's blank."""
    answers: tuple[tuple[int, ...], ...]
    """Token ids of each item's text, without its end."""
    shown: tuple[tuple[int, ...], ...]
    """The same, as the decoder sees them: some replaced."""
    places: tuple[tuple[float, ...], ...]
    """For each of `answers`, the audio token (a fraction) in which its middle is said."""

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return replace(self, features=self.features.to(device), phonemes=self.phonemes.to(device))


@dataclass(frozen=True)
class Outputs:
    """Of one forward."""

    text: torch.Tensor
    """[answers' tokens with their ends, vocabulary], items one after another."""
    text_labels: torch.Tensor
    phonemes: torch.Tensor
    """[items, audio tokens, 4, phonemes]."""
    characters: torch.Tensor
    """[items, audio tokens * 2, characters]."""
    pieces: torch.Tensor
    """[items, audio tokens, vocabulary]: CTC of the answer's tokens, told by the audio's place in the prompt itself;
    END_OF_TEXT is the blank."""
    n_audio: tuple[int, ...]
    guide: torch.Tensor
    """Mean penalty on attention away from where the words are said (`Network`); 0 where there are none."""


class Network(nn.Module):
    """The model and its training heads.

    Args:
        model: from `new_model`.
        prompt: what stands around the audio.
        n_phonemes, n_characters: classes of the heads; the characters' include the blank.
    """

    def __init__(
        self, model: Phi4MultimodalForCausalLM, prompt: PromptIds, n_phonemes: int, n_characters: int
    ) -> None:
        super().__init__()
        self.model = model
        self.prompt = prompt
        width = model.config.audio_config.hidden_size
        self.phoneme_head = nn.Linear(width, PHONEMES_PER_TOKEN * n_phonemes)
        self.character_head = nn.Linear(width, CHARACTERS_PER_TOKEN * n_characters)
        self._kept: dict[str, torch.Tensor] = {}
        self._keep("encoded", model.model.embed_tokens_extend.audio_embed.encoder.encoders[-1])
        self.guided = [layer for layer in GUIDED_LAYERS if layer < len(model.model.layers)]
        for layer in self.guided:
            self._keep(f"qkv{layer}", model.model.layers[layer].self_attn.qkv_proj)

    def _keep(self, name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            self._kept[name] = output

        module.register_forward_hook(hook)

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Everything that speech reaches: not the image tower, nor the projection of speech beside pictures."""
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if "image_embed" not in name and "vision_speech" not in name
        ]

    def forward(self, batch: Batch, *, with_text: bool = True) -> Outputs:
        """All that the losses need; without text only the encoder's part, the rest empty."""
        embeddings = encode_audio(
            self.model.model.embed_tokens_extend.audio_embed, batch.features, batch.n_frames
        )
        n_audio = tuple(count_audio_tokens(n) for n in batch.n_frames)
        encoded = self._kept.pop("encoded")
        items, tokens, _ = encoded.shape
        none = encoded.new_zeros(())
        text, labels, guide = encoded.new_zeros(0, 1), torch.zeros(0, dtype=torch.long), none
        if with_text:
            text, labels, guide = self._decode(embeddings, n_audio, batch)
        return Outputs(
            text=text,
            text_labels=labels,
            phonemes=self.phoneme_head(encoded).view(items, tokens, PHONEMES_PER_TOKEN, -1),
            characters=self.character_head(encoded).view(items, tokens * CHARACTERS_PER_TOKEN, -1),
            pieces=self._pieces(embeddings),
            n_audio=n_audio,
            guide=guide,
        )

    def _pieces(self, embeddings: torch.Tensor) -> torch.Tensor:
        """CTC scores of the tokenizer's pieces, by the decoder's own norm and output layer.

        What stands in the prompt for the audio is so drawn towards the embeddings of the pieces that are said, and
        the decoder has to learn where to look, not what it sees.
        """
        scores: torch.Tensor = self.model.lm_head(self.model.model.norm(embeddings))
        return scores

    def _decode(
        self, audio: torch.Tensor, n_audio: Sequence[int], batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of the answers [tokens, vocabulary], their labels, and the guide's penalty."""
        device = audio.device
        before, after = self.prompt.before, self.prompt.after
        starts = [len(before) + n + len(after) for n in n_audio]  # of the answers
        rows = [
            [*before, *[AUDIO] * n, *after, *shown, END]
            for n, shown in zip(n_audio, batch.shown, strict=True)
        ]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[END_OF_TEXT] * (width - len(row))] for row in rows], device=device)
        is_audio = torch.zeros(ids.shape, dtype=torch.bool)
        is_valid = torch.zeros(audio.shape[:2], dtype=torch.bool)
        for row, n in enumerate(n_audio):
            is_audio[row, len(before) : len(before) + n] = True
            is_valid[row, :n] = True
        model = self.model.model
        hidden = model.embed_tokens(ids)
        where = is_audio.to(device).nonzero(as_tuple=True)
        hidden = hidden.index_put(where, audio[is_valid.to(device)].to(hidden.dtype))
        rotary = model.rotary_emb(hidden, position_ids=torch.arange(width, device=device)[None])
        later = torch.full((width, width), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=device)
        mask = later.triu(1)[None, None]
        for layer in model.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        # the token before each of the answer's tells it: the prompt's last one, then the answer's own
        asked, labels = [], []
        for row, (start, answer) in enumerate(zip(starts, batch.answers, strict=True)):
            asked += [row * width + start - 1 + at for at in range(len(answer) + 2)]
            labels += [*answer, END, END_OF_TEXT]
        picked = model.norm(hidden.flatten(0, 1)[torch.tensor(asked, device=device)])
        guide = self._guide(rotary, starts, n_audio, batch)
        return self.model.lm_head(picked), torch.tensor(labels, device=device), guide

    def _guide(
        self,
        rotary: tuple[torch.Tensor, torch.Tensor],
        starts: Sequence[int],
        n_audio: Sequence[int],
        batch: Batch,
    ) -> torch.Tensor:
        """How unlikely the guided heads' attention is to fall on the word that they tell, in natural logarithms.

        0 where all of it lies there. The place is the synthesiser's, with a spread of `GUIDE_TOKENS`, where Tachibana
        et al. 2018 (arXiv:1710.08969, section 4.2) have a diagonal; and the logarithm, where they have a mean penalty,
        moves attention that lies far away as well.
        """
        config = self.model.config
        n_heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        longest = max(map(len, batch.answers))
        kept = [self._kept.pop(f"qkv{layer}") for layer in self.guided]
        if not kept or not longest:
            return rotary[0].new_zeros(())
        device, width = kept[0].device, kept[0].shape[1]
        first, half = len(self.prompt.before), max(1, n_heads // 2)
        told, place = torch.zeros(len(starts), longest), torch.zeros(len(starts), longest)
        for row, places in enumerate(batch.places):
            told[row, : len(places)] = 1.0
            place[row, : len(places)] = torch.tensor(places) + first
        told, place = told.to(device), place.to(device)
        # queries: the places that tell each token of the answer; those past its end are told 0
        asked = torch.tensor([start - 1 for start in starts], device=device)[:, None]
        rows = (asked + torch.arange(longest, device=device)).clamp(max=width - 1)
        keys_at = torch.arange(width, device=device)
        ends = torch.tensor(n_audio, device=device)[:, None] + first
        is_audio = ((keys_at >= first) & (keys_at < ends))[:, None]
        near = torch.exp(-0.5 * ((keys_at - place[..., None]) / GUIDE_TOKENS).square())
        near = near * is_audio
        is_later = keys_at > rows[..., None]
        cos, sin = (part[0].float() for part in rotary)
        total = torch.zeros((), device=device)
        for qkv in kept:
            query = qkv[..., : half * size].gather(1, rows[..., None].expand(-1, -1, half * size))
            query = query.view(*query.shape[:2], half, size).transpose(1, 2).float()
            key = qkv[..., n_heads * size : (n_heads + half) * size]
            key = key.reshape(*key.shape[:2], half, size).transpose(1, 2).float()
            query, _ = apply_rotary_pos_emb(query, query, cos[rows], sin[rows])
            key, _ = apply_rotary_pos_emb(key, key, cos[None], sin[None])
            scores = query @ key.transpose(2, 3) * size**-0.5
            share = scores.masked_fill(is_later[:, None], -torch.inf).softmax(-1)
            # the heads together: one may lie elsewhere where another is right
            mass = (share.mean(1) * near).sum(-1)
            total = total - ((mass + 1e-4).log() * told).sum()
        mean: torch.Tensor = total / (len(kept) * told.sum()).clamp(min=1.0)
        return mean


def text_loss(outputs: Outputs, smoothing: float) -> torch.Tensor:
    """Cross-entropy of the answers."""
    return functional.cross_entropy(outputs.text.float(), outputs.text_labels, label_smoothing=smoothing)


def phoneme_loss(outputs: Outputs, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the phoneme in each 20 ms."""
    labels = batch.phonemes.flatten()
    if not (labels >= 0).any():
        return outputs.phonemes.sum() * 0.0
    return functional.cross_entropy(outputs.phonemes.flatten(0, 2).float(), labels, ignore_index=-100)


def ctc_loss(outputs: Outputs, batch: Batch) -> torch.Tensor:
    """CTC of characters and of pieces, per target, halved between them. Items that are too fast for it count 0."""
    lengths = torch.tensor(outputs.n_audio)
    by_character = _ctc(outputs.characters, lengths * CHARACTERS_PER_TOKEN, batch.characters, blank=0)
    by_piece = _ctc(outputs.pieces, lengths, batch.answers, blank=END_OF_TEXT)
    return 0.5 * (by_character + by_piece)


def _ctc(
    scores: torch.Tensor, lengths: torch.Tensor, targets: Sequence[Sequence[int]], *, blank: int
) -> torch.Tensor:
    """Negative log-likelihood per target; of an empty text, per frame."""
    device = scores.device
    n_targets = torch.tensor([len(target) for target in targets])
    flat = torch.tensor([one for target in targets for one in target], dtype=torch.long, device=device)
    losses = functional.ctc_loss(
        scores.float().log_softmax(-1).transpose(0, 1),
        flat,
        lengths.to(device),
        n_targets.to(device),
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    per = torch.where(n_targets > 0, n_targets, lengths).to(device)
    return (losses / per).mean()
