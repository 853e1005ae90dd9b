"""What a build of the demo model is a function of: sizes, phases, seed. Not of the machine's speed.

A build is counted in steps, not in minutes, so that the same settings and seed give the same model wherever and
however interrupted it is made. `STEPS_PER_MINUTE` says what two cores do in a minute of their own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

N_SHARDS = 2
"""Each step's items come in this many parts: one for each process, or all for one process on a GPU."""

STEPS_PER_MINUTE = 110
"""Steps of training in one minute of two cores with nothing else to do (bfloat16 on an AMD EPYC with avx512_bf16)."""

SPEECH_SHARE, EVALUATION_SHARE = 0.10, 0.05
"""Of a build's minutes: for making the speech, and for measuring at the end."""

HOURS_PER_MINUTE = 0.3
"""Hours of speech made for each minute of a build: 30 h for 100 minutes."""


@dataclass(frozen=True)
class Sizes:
    """Of the network. With the defaults 11.2 M parameters: 22 MB in 16 bits."""

    audio_hidden: int = 256
    audio_blocks: int = 6
    audio_heads: int = 4
    audio_feed_forward: int = 512
    audio_kernel: int = 5
    conv_channels: int = 48
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    vocabulary: int = 800
    """Most pieces of the tokenizer, the special ones included."""


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    text: float
    """Cross-entropy of the answer: the model's own loss."""
    ctc: float
    """CTC of characters and of pieces on the encoder's output."""
    phonemes: float
    """Cross-entropy of the phoneme that sounds in each 20 ms."""
    guide: float
    """How far the decoder's attention lies from where the words are said."""

    def towards(self, other: Weights, share: float) -> Weights:
        """Between these and `other`; `share` 0 to 1."""
        mine, theirs = asdict(self), asdict(other)
        return Weights(**{name: mine[name] + share * (theirs[name] - mine[name]) for name in mine})


@dataclass(frozen=True)
class Phase:
    """A stretch of the training. The weights move evenly from `first` to `last`."""

    name: str
    share: float
    """Of all steps."""
    max_item_s: float
    """Longest item; clips are joined up to it."""
    joined: float
    """Share of the items that are made of several clips."""
    first: Weights
    last: Weights


PHASES = (
    Phase("phonemes", 0.12, 8.0, 0.0, Weights(0.0, 0.3, 1.0, 0.0), Weights(0.0, 0.6, 1.0, 0.0)),
    Phase("short", 0.45, 10.0, 0.15, Weights(1.0, 0.6, 0.6, 0.5), Weights(1.0, 0.4, 0.3, 0.3)),
    Phase("longer", 0.25, 18.0, 0.35, Weights(1.0, 0.4, 0.3, 0.3), Weights(1.0, 0.3, 0.15, 0.15)),
    Phase("longest", 0.18, 28.0, 0.45, Weights(1.0, 0.3, 0.15, 0.15), Weights(1.0, 0.2, 0.1, 0.1)),
)


@dataclass(frozen=True)
class Settings:
    """Of one build."""

    seed: int = 1
    n_steps: int = 9_350
    sizes: Sizes = field(default_factory=Sizes)
    phases: tuple[Phase, ...] = PHASES
    step_audio_s: float = 50.0
    """Audio of one step, over all shards, padding included."""
    peak_rate: float = 1.2e-3
    final_rate: float = 2e-5
    warm_up_share: float = 0.03
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    max_norm: float = 1.0
    average: float = 0.998
    """The exported weights are an exponential moving average; earlier, of fewer steps."""
    label_smoothing: float = 0.05
    random_inputs: float = 0.10
    """Share of the answer's tokens that the decoder is shown another token for."""
    n_checkpoints: int = 20
    """Spread over the steps; a killed build goes on from the newest."""
    n_looks: int = 5
    """How often the validation clips are transcribed on the way, to be watched."""
    shortened: tuple[int, int] | None = None
    """(first, end): from step `first` on what is left of the schedule is run through by step `end`, for a machine that
    is slower than was planned."""

    def __post_init__(self) -> None:
        if self.shortened and not 0 <= self.shortened[0] < self.shortened[1] <= self.n_steps:
            raise ValueError(
                f"a training of {self.n_steps} steps cannot be shortened from step {self.shortened[0]} on to "
                f"{self.shortened[1]}: give FIRST:END with 0 <= FIRST < END <= {self.n_steps}"
            )

    @property
    def end(self) -> int:
        """Steps that are done in all."""
        return self.shortened[1] if self.shortened else self.n_steps

    def place(self, step: int) -> float:
        """Where in the schedule of `n_steps` a step (from 0) stands."""
        if self.shortened is None or step < self.shortened[0]:
            return step
        first, end = self.shortened
        return first + (step - first) * (self.n_steps - first) / (end - first)

    @classmethod
    def of_minutes(cls, minutes: float, *, seed: int = 1) -> Settings:
        """For a build of about `minutes` on two cores.

        Raises:
            ValueError: too few minutes for anything to be learned.
        """
        n_steps = round(minutes * (1 - SPEECH_SHARE - EVALUATION_SHARE) * STEPS_PER_MINUTE)
        if n_steps < 20:
            raise ValueError(f"{minutes} minutes are {n_steps} steps of training: give at least 1 minute")
        return cls(seed=seed, n_steps=n_steps)

    def phase_at(self, step: int) -> tuple[int, float]:
        """Which phase `step` (from 0) lies in, and how far into it, 0 to 1."""
        place = self.place(step)
        bounds = self._planned_bounds()
        for number, (start, end) in enumerate(bounds):
            if place < end:
                return number, (place - start) / (end - start)
        return len(bounds) - 1, 1.0

    def phase_bounds(self) -> list[tuple[int, int]]:
        """First step of each phase, and the one after its last."""
        return [(self._step_at(start), self._step_at(end)) for start, end in self._planned_bounds()]

    def _planned_bounds(self) -> list[tuple[int, int]]:
        """The same in the schedule of `n_steps`; none is empty."""
        total = sum(phase.share for phase in self.phases)
        bounds, start, done = [], 0, 0.0
        for phase in self.phases:
            done += phase.share
            end = max(start + 1, round(self.n_steps * done / total))
            bounds.append((start, end))
            start = end
        return bounds

    def _step_at(self, place: int) -> int:
        """The first step that stands at `place` or later."""
        if self.shortened is None or place <= self.shortened[0]:
            return place
        first, end = self.shortened
        return first - (-(place - first) * (end - first) // (self.n_steps - first))

    def as_json(self) -> dict[str, Any]:
        """For a file; what is not shortened does not say so."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.shortened is None:
            del found["shortened"]
        return found

    def digest(self) -> str:
        """SHA-256 of all settings: a checkpoint of other settings is not gone on from."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()
