"""Utterances into batches: audio, prompt, answer, and the order in which they come.

An answer is the text, then `<|end|><|endoftext|>` as the card's targets end. The prompt is the fixed one that the
engine uses (`speech.prompt`). Labels cover the answer alone; everything else is -100, padding too, so that no pad
ever enters the loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from evaluation.held_out_audio import load_clip
from evaluation.manifests import HeldOutError
from speech.errors import MediaError
from speech.features import HOP_SAMPLES, WINDOW_SAMPLES, count_frames
from speech.prompt import Tokenizer
from training.manifest import Manifest, Utterance
from training.tuning.errors import FinetuneError

ANSWER_END = "<|end|><|endoftext|>"
IGNORED = -100
"""Label of what the loss does not see."""
GROUP_STEPS = 50
"""Utterances of so many optimizer steps are sorted by length together: batches of like lengths, in a random order."""

Clip = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One utterance as it is learnt from."""

    clip: Clip
    """float32, 16 kHz."""
    answer: tuple[int, ...]
    """Token ids of text and end."""


@dataclass(frozen=True)
class AnswerTokenizer:
    """Texts into the token ids that are to be learnt."""

    tokenizer: Tokenizer

    def __call__(self, text: str) -> tuple[int, ...]:
        # apart: the text's last letters must not merge with the end
        text_ids = self.tokenizer.encode(text, add_special_tokens=False)
        return tuple(text_ids + self.tokenizer.encode(ANSWER_END, add_special_tokens=False))

    def check(self, end_ids: Sequence[int]) -> None:
        """Whether the end is what generation stops at.

        Raises:
            FinetuneError: the tokenizer knows no such tokens.
        """
        ids = self.tokenizer.encode(ANSWER_END, add_special_tokens=False)
        if len(ids) != 2 or not set(ids) <= set(end_ids):
            raise FinetuneError(
                f"the base's tokenizer gives {ids} for {ANSWER_END}, and its config ends texts with {list(end_ids)}: "
                f"the model could not learn to stop; take tokenizer.json and config.json of the same checkpoint"
            )


class Examples(Dataset[Example]):
    """Utterances of a manifest, decoded when they are asked for. Its length is known without reading audio."""

    def __init__(self, manifest: Manifest, to_answer: AnswerTokenizer) -> None:
        self.utterances = manifest.utterances
        self._folders = dict(manifest.folders)
        self._to_answer = to_answer

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Example:
        utterance = self.utterances[index]
        return Example(read_clip(self._folders, utterance), self._to_answer(utterance.text))


def read_clip(folders: Mapping[str, Path], utterance: Utterance) -> Clip:
    """Samples of an utterance.

    Raises:
        FinetuneError: its audio is gone or changed since the manifest was made, or cannot be decoded.
    """
    try:
        clip = load_clip(folders[utterance.dataset], utterance.audio, sha256=utterance.sha256)
    except (OSError, HeldOutError, MediaError) as error:
        raise FinetuneError(
            f"{utterance.id}: {error}: make the manifest again with `fonoteca train prepare`, "
            f"or say under data.folders where {utterance.dataset} lies"
        ) from error
    if len(clip) < WINDOW_SAMPLES:
        raise FinetuneError(f"{utterance.id}: holds only {len(clip)} samples; make the manifest again")
    return clip


class Collator:
    """Examples into one batch of tensors: what `training.tuning.trainee.Trainee.forward` takes.

    It gives `waveforms` [batch, samples] float32; `n_frames`, a list; `answers` [batch, K - 1] and `labels`
    [batch, K], both filled from the right, K being one more than the longest answer.
    """

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor | list[int]]:
        n_frames = [count_frames(len(example.clip)) for example in examples]
        longest = max(len(example.answer) for example in examples)
        waveforms = torch.zeros(len(examples), (max(n_frames) - 1) * HOP_SAMPLES + WINDOW_SAMPLES)
        answers = torch.zeros(len(examples), longest, dtype=torch.long)
        labels = torch.full((len(examples), longest + 1), IGNORED, dtype=torch.long)
        for row, (example, n) in enumerate(zip(examples, n_frames, strict=True)):
            n_samples = (n - 1) * HOP_SAMPLES + WINDOW_SAMPLES
            waveforms[row, :n_samples].numpy()[:] = example.clip[:n_samples]
            answer = torch.tensor(example.answer)
            answers[row, longest - len(answer) :] = answer
            labels[row, longest + 1 - len(answer) :] = answer
        return {"waveforms": waveforms, "n_frames": n_frames, "answers": answers, "labels": labels}


class GroupedBatches:
    """Batches of like lengths in a random order that depends on seed and epoch alone, for one of several processes.

    All processes see equally many: at an epoch's end its first batches come once more where they do not divide. What
    is computed together is of like length across processes and within an optimizer step, so that nobody waits; and
    the longest utterance comes in the very first batch, so that memory that does not suffice shows at once.

    Args:
        lengths: of each utterance, in any unit.
        batch_size: utterances in a batch.
        accumulation: batches in an optimizer step, of each process.
        seed: of the order.
        rank, world_size: which process this is, of how many.
    """

    def __init__(
        self, lengths: Sequence[float], *, batch_size: int, accumulation: int, seed: int, rank: int = 0,
        world_size: int = 1,
    ) -> None:  # fmt: skip
        self._lengths = lengths
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch's order comes next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        n_batches = -(-len(self._lengths) // self._batch_size)
        return -(-n_batches // self._world_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._order()
        short = -len(batches) % self._world_size
        batches += (batches * short)[:short]
        return iter(batches[self._rank :: self._world_size])

    def _order(self) -> list[list[int]]:
        """All processes' batches, in the order in which they are dealt out."""
        rng = random.Random(f"{self._seed}-{self.epoch}")  # noqa: S311 - an order, not a secret
        indices = list(range(len(self._lengths)))
        rng.shuffle(indices)
        group = self._batch_size * self._accumulation * self._world_size * GROUP_STEPS
        batches: list[list[int]] = []
        for start in range(0, len(indices), group):
            ordered = sorted(indices[start : start + group], key=lambda index: -self._lengths[index])
            batches += [
                ordered[at : at + self._batch_size] for at in range(0, len(ordered), self._batch_size)
            ]
        # what makes an optimizer step stays together; the epoch's last one may be smaller, and stays last
        step = self._accumulation * self._world_size
        steps = [batches[at : at + step] for at in range(0, len(batches), step)]
        rest = [steps.pop()] if len(steps[-1]) < step else []
        rng.shuffle(steps)
        steps += rest
        longest = max(range(len(indices)), key=lambda index: self._lengths[index])
        steps.sort(key=lambda step: not any(longest in batch for batch in step))
        batches = [batch for step in steps for batch in step]
        first = next(number for number, batch in enumerate(batches) if longest in batch)
        batches.insert(0, batches.pop(first))
        return batches
