"""Whether a clip's text depends on what it is decoded with: the demo model on one device, in each type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speech.checkpoint import open_checkpoint
from speech.engine import Clip, DecodeSettings, Phi4Engine

DEMO = Path(__file__).parents[2] / "models" / "demo"


def demo_exactness(device: torch.device, n_clips: int = 24) -> dict[str, Any]:
    """The demo model in each type, with shapes that follow the load and with fixed ones."""
    found = {}
    clips = _clips(n_clips)
    for dtype in (torch.float32, torch.bfloat16):
        for fixed in (False, True):
            engine = Phi4Engine(
                *open_checkpoint(DEMO, device=str(device), dtype=dtype),
                settings=DecodeSettings(max_slots=8, max_encoder_frames=4_000, fixed_shapes=fixed),
            )
            name = f"{str(dtype).removeprefix('torch.')}, {'fixed' if fixed else 'free'} shapes"
            found[name] = alone_and_together(engine, clips)
    return found


def alone_and_together(engine: Phi4Engine, clips: Sequence[Clip]) -> dict[str, int]:
    """Clips with the same tokens alone and in batches, and with the same log-probabilities to the bit."""
    alone = [engine.transcribe([clip])[0] for clip in clips]
    together = engine.transcribe(clips[::-1])[::-1]
    pairs = list(zip(alone, together, strict=True))
    return {
        "clips": len(clips),
        "same_tokens": sum(a.token_ids == b.token_ids for a, b in pairs),
        "same_bits": sum(a.token_logprobs == b.token_logprobs for a, b in pairs),
    }


def _clips(n: int) -> Sequence[Clip]:
    try:
        from tests.demo_speech import sentences
    except ImportError:  # without PyAV: babble, which the model answers with some text too
        rng = np.random.default_rng(1)
        return [_babble(rng, float(s)) for s in rng.uniform(2, 12, n)]
    return [sentence.clip for sentence in sentences()[:n]]


def _babble(rng: np.random.Generator, duration_s: float) -> Clip:
    """Voiced bursts: harmonics of a wandering pitch under syllable-like swells."""
    time = np.arange(int(duration_s * 16_000)) / 16_000
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    weights = rng.uniform(0.1, 1, 24) / np.arange(1, 25)
    voice = sum(weight * np.sin(k * phase) for k, weight in enumerate(weights, 1))
    swell = np.clip(np.sin(2 * np.pi * 4 * time + rng.uniform(0, 6)), 0, None)
    return (0.1 * voice * swell + rng.normal(0, 1e-3, len(time))).astype(np.float32)
