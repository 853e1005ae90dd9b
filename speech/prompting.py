"""Clips into prompts: features and audio encoder in batches of their own, apart from the decoder's.

An encoder batch takes clips of similar length; what the decoder has no slot for yet waits as embeddings (2.4 MB
for 30 s at full size). A window of clips is sorted by length and used up before the next one is looked at, so
that no short clip waits for ever behind longer ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speech.encoder import encode_audio
from speech.features import (
    HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    count_audio_tokens,
    count_frames,
    log_mel,
)
from speech.generation import Prompt
from speech.guards import token_limit
from speech.prompt import PromptIds

Clip = npt.NDArray[np.float32]

BUCKET_FRAMES = 500
"""With fixed shapes a clip is padded to a multiple of this: its shape then depends on its own length alone."""


def never() -> bool:
    return False


@dataclass(frozen=True)
class Job:
    """A clip to be decoded."""

    key: int
    clip: Clip


class Prompter:
    """Makes prompts of clips with one model.

    Args:
        model: the opened native model.
        prompt_ids: what stands around the audio.
        max_frames: feature frames (10 ms) encoded together, padding included.
        fixed_shapes: give a clip's batch a shape that depends on that clip's length alone.
    """

    def __init__(self, model: Any, prompt_ids: PromptIds, *, max_frames: int, fixed_shapes: bool) -> None:
        self.max_frames = max_frames
        self.fixed_shapes = fixed_shapes
        self._audio_embed = model.model.embed_tokens_extend.audio_embed
        self._device: torch.device = model.device
        embed = model.model.embed_tokens
        with torch.inference_mode():
            self._before, self._after = (
                embed(torch.tensor(ids, device=self._device, dtype=torch.long))
                for ids in (prompt_ids.before, prompt_ids.after)
            )

    @property
    def n_text_tokens(self) -> int:
        """Tokens of the prompt besides the audio's."""
        return len(self._before) + len(self._after)

    def batch_size(self, clip: Clip) -> int:
        """How many clips up to the length of `clip` are encoded together."""
        return max(1, self.max_frames // self._width(clip))

    def is_alike(self, longest: Clip, clip: Clip) -> bool:
        """Whether `clip` may be encoded in the batch of `longest`."""
        return not self.fixed_shapes or self._width(clip) == self._width(longest)

    def _width(self, clip: Clip) -> int:
        """Frames that a batch with `clip` as its longest has."""
        n_frames = count_frames(len(clip))
        return -(-n_frames // BUCKET_FRAMES) * BUCKET_FRAMES if self.fixed_shapes else n_frames

    @torch.inference_mode()
    def embed(self, clips: Sequence[Clip]) -> list[torch.Tensor]:
        """Prompt embeddings with the audio in place, [tokens, hidden] each."""
        width = max(self._width(clip) for clip in clips)
        n_rows = max(len(clips), self.max_frames // width) if self.fixed_shapes else len(clips)
        waveforms = torch.zeros(n_rows, (width - 1) * HOP_SAMPLES + WINDOW_SAMPLES)
        n_frames = [count_frames(len(clip)) for clip in clips]
        for row, (clip, n) in enumerate(zip(clips, n_frames, strict=True)):
            # samples after the last whole frame are in no feature
            n_samples = (n - 1) * HOP_SAMPLES + WINDOW_SAMPLES
            waveforms[row, :n_samples].numpy()[:] = clip[:n_samples]
        lengths = n_frames + [0] * (n_rows - len(clips))
        if self._device.type == "cuda":
            waveforms = waveforms.pin_memory()
        features = log_mel(
            waveforms.to(self._device, non_blocking=True), torch.tensor(lengths).to(self._device)
        )
        audio = encode_audio(self._audio_embed, features, lengths)
        return [
            torch.cat([self._before, audio[row, : count_audio_tokens(n)].to(self._before.dtype), self._after])
            for row, n in enumerate(n_frames)
        ]


class PromptQueue:
    """Clips waiting for a slot, encoded in batches as slots come free: `speech.generation.PromptSource`.

    Args:
        prompter: encodes them.
        jobs: the clips; looked at as needed, `window` at a time.
        window: clips that are sorted by length together.
        is_stopping: once true, what waits is forgotten and no more is taken.
    """

    def __init__(
        self,
        prompter: Prompter,
        jobs: Iterator[Job],
        window: int,
        is_stopping: Callable[[], bool] = never,
    ) -> None:
        self._prompter = prompter
        self._jobs = jobs
        self._window = window
        self._is_stopping = is_stopping
        self._is_exhausted = False
        self._waiting: deque[Job] = deque()
        self._ready: deque[Prompt] = deque()

    @property
    def is_empty(self) -> bool:
        if not self._waiting and not self._ready:
            self._look_ahead()
        return not self._waiting and not self._ready

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Clips to be encoded before all others."""
        self._waiting.extendleft(sorted(jobs, key=lambda job: len(job.clip)))

    def take(self, most: int) -> list[Prompt]:
        """Up to `most` prompts, the longest first.

        Raises:
            torch.OutOfMemoryError: not even one clip can be encoded.
        """
        if self._is_stopping():
            self._is_exhausted = True
            self._waiting.clear()
            self._ready.clear()
        while len(self._ready) < most:
            if not self._waiting:
                self._look_ahead()
            if not self._waiting:
                break
            self._encode()
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def _look_ahead(self) -> None:
        seen: list[Job] = []
        while not self._is_exhausted and len(seen) < self._window:
            job = next(self._jobs, None)
            if job is None:
                self._is_exhausted = True
            else:
                seen.append(job)
        # the longest first: what will not fit in memory fails at once, and short ones fill the gaps at the end
        self._waiting.extend(sorted(seen, key=lambda job: -len(job.clip)))

    def _encode(self) -> None:
        """One encoder batch of the waiting clips. Out of memory, with half as many."""
        longest = self._waiting[0].clip
        batch: list[Job] = []
        while (
            self._waiting
            and len(batch) < self._prompter.batch_size(longest)
            and len(self._waiting[0].clip) <= len(longest)
            and self._prompter.is_alike(longest, self._waiting[0].clip)
        ):
            batch.append(self._waiting.popleft())
        try:
            embeddings = self._prompter.embed([job.clip for job in batch])
        except torch.OutOfMemoryError:
            self._waiting.extendleft(reversed(batch))
            if self._prompter.batch_size(longest) == 1:
                raise
            self._prompter.max_frames //= 2
            return
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise
        for job, tokens in zip(batch, embeddings, strict=True):
            self._ready.append(Prompt(job.key, tokens, token_limit(len(job.clip) / SAMPLE_RATE_HZ)))
