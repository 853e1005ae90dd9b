"""The 112 test sentences of synthetic Galician broadcast speech that the demo model has not seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np

FOLDER = Path(__file__).parent / "data" / "demo-speech"
EDGE_SAMPLES = 3_200
"""Near-silence added at both ends, as a splitter's padding would leave it."""


@dataclass(frozen=True)
class Sentence:
    text: str
    voice: str
    clip: np.ndarray
    """float32, 16 kHz."""


def read_flac(path: Path) -> np.ndarray:
    """Samples of a mono 16-bit file, float32."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768


@cache
def sentences() -> tuple[Sentence, ...]:
    """All of them, with 0.2 s of near-silence at both ends."""
    rows = [json.loads(line) for line in (FOLDER / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    hiss = np.random.default_rng(0).normal(0, 1e-4, EDGE_SAMPLES).astype(np.float32)
    return tuple(
        Sentence(row["text"], row["voice"], np.concatenate([hiss, read_flac(FOLDER / row["file"]), hiss]))
        for row in rows
    )
