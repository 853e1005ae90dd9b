"""How well a model reads the test sets, by the engine that production runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluation.held_out_audio import load_clip
from evaluation.score import score
from speech.checkpoint import open_checkpoint
from speech.engine import ClipFailed, Phi4Engine
from training.manifest import Manifest
from training.scratch.batches import as_float
from training.scratch.targets import Speech

Clip = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One test set."""

    n_clips: int
    wer: float | None
    """None where nothing is said in it."""
    wer_low: float | None
    wer_high: float | None
    """The 95 % interval."""
    cer: float | None
    n_invented: int
    """Clips in which nothing is said and the model wrote something."""

    def in_words(self) -> str:
        """One line for people."""
        if self.wer is None or self.wer_low is None or self.wer_high is None or self.cer is None:
            return f"{self.n_clips} clips without speech, text for {self.n_invented}"
        rates = f"WER {self.wer:.1%} ({self.wer_low:.1%} to {self.wer_high:.1%}), CER {self.cer:.1%}"
        return f"{self.n_clips} clips: {rates}"


def transcribe(engine: Phi4Engine, clips: Iterable[tuple[int, Clip]]) -> dict[int, str]:
    """Texts by key; a clip that cannot be transcribed has an empty one, and counts as all wrong."""
    return {
        key: "" if isinstance(outcome, ClipFailed) else outcome.text for key, outcome in engine.stream(clips)
    }


def measure_texts(refs: Sequence[str], hyps: Sequence[str]) -> Measured:
    """Error rates with the model card's normaliser."""
    n_invented = sum(not ref and bool(hyp.strip()) for ref, hyp in zip(refs, hyps, strict=True))
    spoken = [(ref, hyp) for ref, hyp in zip(refs, hyps, strict=True) if ref]
    if not spoken:
        return Measured(len(refs), None, None, None, None, n_invented)
    found = score([ref for ref, _ in spoken], [hyp for _, hyp in spoken])
    return Measured(len(refs), found.wer.value, found.wer.low, found.wer.high, found.cer.value, n_invented)


@dataclass(frozen=True)
class HeldOut:
    """A test set: what is said, and the clips in which it is said, read one by one."""

    texts: Sequence[str]
    clip: Callable[[int], Clip]

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> HeldOut:
        """All rows of a manifest."""
        rows = manifest.utterances
        return cls(
            [row.text for row in rows],
            lambda number: load_clip(manifest.folders[rows[number].dataset], rows[number].audio),
        )

    @classmethod
    def of_speech(cls, speech: Speech) -> HeldOut:
        """All clips of a synthetic corpus."""
        return cls([clip.text for clip in speech.clips], lambda number: as_float(speech.samples(number)))


def measure(model: Path, sets: Mapping[str, HeldOut], *, device: str = "auto") -> dict[str, Measured]:
    """Measure the checkpoint in folder `model` on each set, by its name.

    Raises:
        speech.checkpoint.CheckpointError, OSError: what cannot be read.
    """
    engine = Phi4Engine(*open_checkpoint(model, device=device))
    found = {}
    for name, held_out in sets.items():
        numbers = range(len(held_out.texts))
        texts = transcribe(engine, ((number, held_out.clip(number)) for number in numbers))
        found[name] = measure_texts(held_out.texts, [texts[number] for number in numbers])
    return found


def worse_on(new: Mapping[str, Measured], old: Mapping[str, Measured]) -> list[str]:
    """The measures on which `new` is not at least as good as `old`, in words."""
    found = []
    for name, mine in new.items():
        theirs = old[name]
        if mine.wer is not None and theirs.wer is not None and mine.wer > theirs.wer:
            found.append(f"{name}: WER {mine.wer:.2%}, before {theirs.wer:.2%}")
        if mine.n_invented > theirs.n_invented:
            found.append(
                f"{name}: text for {mine.n_invented} clips without speech, before {theirs.n_invented}"
            )
    return found
