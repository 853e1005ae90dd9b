"""Phi-4-multimodal generation for speech: clips in, one hypothesis each out, the same in any batch.

What keeps a clip's text independent of its neighbours: the corrected encoder (`speech/encoder.py`), prompts
padded on the left with an attention mask and positions counted from each prompt's own start, and greedy choice.
`tests/speech/test_engine.py` compares every clip alone and in batches, token by token.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, Phi4MultimodalForCausalLM

from speech.encoder import encode_audio
from speech.features import SAMPLE_RATE_HZ, WINDOW_SAMPLES, count_audio_tokens, count_frames, log_mel
from speech.guards import MIN_RESPLIT_S, RESPLIT, RETRIED_FLAGS, flags_for, quietest_cut, token_limit
from speech.prompt import PromptIds, Tokenizer, prompt_of, tokenize_prompt

MAX_CLIP_S = 40.0
"""Longer clips would be cut into encoder chunks that do not see each other: refused."""

Clip = npt.NDArray[np.float32]


class ClipError(ValueError):
    """A clip that cannot be transcribed: wrong shape or type, too short, too long, not finite."""


class ScoresNotFinite(ArithmeticError):
    """The model computed NaN or infinity."""


@dataclass(frozen=True)
class DecodeSettings:
    """How text is generated. Stored with every transcript."""

    max_batch_clips: int = 16
    """Clips decoded together."""

    max_batch_frames: int = 16 * 3_000
    """Feature frames (10 ms each) encoded together, padding included."""


@dataclass(frozen=True)
class Hypothesis:
    """What the model wrote for one clip."""

    text: str
    """NFC, without the prompt and the end tokens."""
    token_ids: tuple[int, ...]
    """Generated tokens, without the end token."""
    token_logprobs: tuple[float, ...]
    """Natural log-probability of each of `token_ids`."""
    mean_logprob: float
    """Mean over `token_ids` and the end token, so that an empty text has one too."""
    flags: tuple[str, ...]
    """Guards that tripped (`speech.guards`); empty is good."""


class Phi4Engine:
    """Transcribes clips with one opened checkpoint. Not safe to share between threads.

    Args:
        model, tokenizer: from `speech.checkpoint.open_checkpoint`.
        prompt: prompt text; None takes the checkpoint's own, or the published card's.
        settings: batch sizes.

    Raises:
        speech.prompt.PromptError: the prompt has no place for the audio.
    """

    def __init__(
        self,
        model: Phi4MultimodalForCausalLM,
        tokenizer: Tokenizer,
        *,
        prompt: str | PromptIds | None = None,
        settings: DecodeSettings | None = None,
    ) -> None:
        self.model = model
        self.settings = settings or DecodeSettings()
        self.prompt = prompt if isinstance(prompt, str) else prompt_of(model.config)
        self._tokenizer = tokenizer
        self._prompt_ids = (
            prompt if isinstance(prompt, PromptIds) else tokenize_prompt(self.prompt, tokenizer)
        )
        config = model.config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        device = model.device
        self._end_ids = torch.tensor(ends, device=device)
        # placeholders of the prompt: never text
        self._suppressed_ids = torch.tensor(
            [config.audio_config.audio_token_id, config.vision_config.image_token_id], device=device
        )

    def describe(self) -> dict[str, Any]:
        """Decode settings as stored with a transcript."""
        return {
            "method": "greedy",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            **asdict(self.settings),
        }

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """One hypothesis per clip, in the clips' order.

        A clip whose text loops, overruns or comes too fast is cut in two at its quietest place and tried once
        more. Where that goes well its text is the halves' and it carries the flag `resplit`; else it keeps its
        first text and its flags.

        Args:
            clips: 1-D float32 arrays, 16 kHz mono in -1..1, 25 ms to 40 s each.

        Raises:
            ClipError: naming the clip's position and what is wrong with it. Nothing is transcribed then.
        """
        for position, clip in enumerate(clips):
            check_clip(clip, position)
        hypotheses = self._transcribe_once(clips)
        doubtful = [
            position
            for position, (clip, hypothesis) in enumerate(zip(clips, hypotheses, strict=True))
            if RETRIED_FLAGS.intersection(hypothesis.flags) and len(clip) >= MIN_RESPLIT_S * SAMPLE_RATE_HZ
        ]
        halves = [half for position in doubtful for half in _halves(clips[position])]
        retried = self._transcribe_once(halves)
        for number, position in enumerate(doubtful):
            first, second = retried[2 * number : 2 * number + 2]
            if not RETRIED_FLAGS.intersection(first.flags + second.flags):
                hypotheses[position] = _joined(first, second)
        return hypotheses

    def _transcribe_once(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """As `transcribe`, without the second try."""
        hypotheses: dict[int, Hypothesis] = {}
        for batch in self._batches(clips):
            for position, hypothesis in zip(batch, self._decode([clips[i] for i in batch]), strict=True):
                hypotheses[position] = hypothesis
        return [hypotheses[position] for position in range(len(clips))]

    def _batches(self, clips: Sequence[Clip]) -> list[list[int]]:
        """Positions grouped by similar length, longest first: what will not fit in memory fails at once."""
        order = sorted(range(len(clips)), key=lambda i: -len(clips[i]))
        batches: list[list[int]] = []
        for position in order:
            if batches:
                widest = count_frames(len(clips[batches[-1][0]]))
                room = self.settings.max_batch_frames // widest
                if len(batches[-1]) < min(self.settings.max_batch_clips, room):
                    batches[-1].append(position)
                    continue
            batches.append([position])
        return batches

    @torch.inference_mode()
    def _decode(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        embeddings, attention = self._prompt_embeddings(clips)
        limits = [token_limit(len(clip) / SAMPLE_RATE_HZ) for clip in clips]
        steps = self._generate(embeddings, attention, limits)
        return [
            self._hypothesis(clip, tokens, logprobs, ended)
            for clip, (tokens, logprobs, ended) in zip(clips, steps, strict=True)
        ]

    def _prompt_embeddings(self, clips: Sequence[Clip]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts with the audio in place: [clips, longest, hidden] padded left, and the mask [clips, longest]."""
        device = self.model.device
        waveforms = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(np.ascontiguousarray(clip)) for clip in clips], batch_first=True
        ).to(device)
        n_frames = [count_frames(len(clip)) for clip in clips]
        lengths = torch.tensor(n_frames, device=device)
        audio = encode_audio(
            self.model.model.embed_tokens_extend.audio_embed, log_mel(waveforms, lengths), lengths
        )
        embed = self.model.model.embed_tokens
        before, after = (
            embed(torch.tensor(ids, device=device, dtype=torch.long))
            for ids in (self._prompt_ids.before, self._prompt_ids.after)
        )
        rows = [
            torch.cat([before, audio[i, : count_audio_tokens(n)].to(before.dtype), after])
            for i, n in enumerate(n_frames)
        ]
        longest = max(len(row) for row in rows)
        embeddings = before.new_zeros(len(rows), longest, before.shape[1])
        attention = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        for i, row in enumerate(rows):
            embeddings[i, longest - len(row) :] = row
            attention[i, longest - len(row) :] = 1
        return embeddings, attention

    def _generate(
        self, embeddings: torch.Tensor, attention: torch.Tensor, limits: Sequence[int]
    ) -> list[tuple[list[int], list[float], bool]]:
        """Greedy decoding. Per row: tokens with the end token, their log-probabilities, whether it ended.

        A row that has ended leaves the batch, so that one long clip does not hold the others.
        """
        results: list[tuple[list[int], list[float], bool]] = [([], [], False) for _ in limits]
        alive = list(range(len(limits)))
        cache = DynamicCache(config=self.model.config)
        inputs: dict[str, torch.Tensor] = {"inputs_embeds": embeddings}
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        while True:
            logits = (
                self.model(
                    **inputs,
                    attention_mask=attention,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                .logits[:, -1]
                .float()
            )
            logits[:, self._suppressed_ids] = -torch.inf
            chosen_logits, chosen = logits.max(-1)
            logprobs = (chosen_logits - logits.logsumexp(-1)).tolist()
            is_end = torch.isin(chosen, self._end_ids).tolist()
            tokens = chosen.tolist()
            kept = []
            for row, position in enumerate(alive):
                written, scores, _ = results[position]
                written.append(tokens[row])
                scores.append(logprobs[row])
                if is_end[row]:
                    results[position] = (written, scores, True)
                elif len(written) < limits[position]:
                    kept.append(row)
            if not kept:
                return results
            if len(kept) < len(alive):
                rows = torch.tensor(kept, device=attention.device)
                cache.batch_select_indices(rows)
                attention, positions, chosen = attention[rows], positions[rows], chosen[rows]
                alive = [alive[row] for row in kept]
            attention = torch.cat([attention, attention.new_ones(len(alive), 1)], dim=-1)
            positions = positions[:, -1:] + 1
            inputs = {"input_ids": chosen[:, None]}

    def _hypothesis(self, clip: Clip, tokens: list[int], logprobs: list[float], ended: bool) -> Hypothesis:
        mean_logprob = sum(logprobs) / len(logprobs)
        if not math.isfinite(mean_logprob):
            raise ScoresNotFinite(
                f"the model's scores for a clip of {len(clip) / SAMPLE_RATE_HZ:.1f} s are not finite: its weights "
                f"may be damaged, or {self.model.dtype} too narrow for them (try FONOTECA_DTYPE=bfloat16)"
            )
        if ended:
            tokens, logprobs = tokens[:-1], logprobs[:-1]
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        # PostgreSQL's text holds no NUL, which a byte-level vocabulary can write
        text = unicodedata.normalize("NFC", text.replace("\0", "")).strip()
        return Hypothesis(
            text=text,
            token_ids=tuple(tokens),
            token_logprobs=tuple(logprobs),
            mean_logprob=mean_logprob,
            flags=flags_for(
                text,
                duration_s=len(clip) / SAMPLE_RATE_HZ,
                n_tokens=len(tokens),
                ended=ended,
                mean_logprob=mean_logprob,
            ),
        )


def _halves(clip: Clip) -> tuple[Clip, Clip]:
    cut = quietest_cut(clip)
    return clip[:cut], clip[cut:]


def _joined(first: Hypothesis, second: Hypothesis) -> Hypothesis:
    """The hypothesis of a clip whose halves these are."""
    # each half's end token counted once in its mean
    weights = len(first.token_ids) + 1, len(second.token_ids) + 1
    total = first.mean_logprob * weights[0] + second.mean_logprob * weights[1]
    flags = dict.fromkeys((*first.flags, *second.flags, RESPLIT))
    return Hypothesis(
        text=" ".join(half.text for half in (first, second) if half.text),
        token_ids=first.token_ids + second.token_ids,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        mean_logprob=total / sum(weights),
        flags=tuple(flags),
    )


def check_clip(clip: Clip, position: int = 0) -> None:
    """Raise ClipError unless `clip` can be transcribed; `position` names it in the message."""
    if clip.ndim != 1 or clip.dtype != np.float32:
        raise ClipError(f"clip {position}: shape {clip.shape} {clip.dtype}; it must be one row of float32")
    duration_s = len(clip) / SAMPLE_RATE_HZ
    if len(clip) < WINDOW_SAMPLES:
        raise ClipError(f"clip {position}: {duration_s * 1000:.1f} ms long; at least 25 ms are needed")
    if duration_s > MAX_CLIP_S:
        raise ClipError(
            f"clip {position}: {duration_s:.1f} s long; split it at pauses into {MAX_CLIP_S:.0f} s or less"
        )
    if not np.isfinite(clip).all():
        raise ClipError(f"clip {position}: holds NaN or infinite samples")
