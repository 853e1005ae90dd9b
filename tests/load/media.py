"""Recordings of one minute: a few dozen distinct files in several formats, each submitted under many names."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cli.gather import MediaFile, hash_file
from speech.audio import SAMPLE_RATE_HZ
from tests.chaos.media import Material
from tests.demo_speech import sentences
from tests.speech.media_files import encoded

DURATION_S = 60
N_FILES = 36
FORMATS: tuple[dict[str, Any], ...] = (
    {"container": "mp3", "codec": "libmp3lame", "rate_hz": 44_100},
    {"container": "wav", "codec": "pcm_s16le", "rate_hz": 44_100},
    {"container": "flac", "codec": "flac", "rate_hz": 48_000},
    {"container": "ogg", "codec": "libopus", "rate_hz": 48_000},
    {"container": "mp4", "codec": "aac", "rate_hz": 48_000},
    {"container": "mpegts", "codec": "mp2", "rate_hz": 48_000},
)
"""In turns."""


def write_material(folder: Path, n_recordings: int, *, seed: int = 0) -> list[Material]:
    """Write the files into `folder`; the recordings name them in turns."""
    lots = random.Random(seed)
    files = []
    for number in range(min(N_FILES, n_recordings)):
        form = FORMATS[number % len(FORMATS)]
        path = folder / f"{number:02d}.{form['container']}"
        path.write_bytes(encoded(_minute(lots), **form))
        files.append(path)
    digests = [_as_media(path, path.name) for path in files]
    return [
        Material(_named(digests[number % len(files)].file, number), digests[number % len(files)].sha256)
        for number in range(n_recordings)
    ]


def source_of(name: str) -> str:
    """The file that a recording is a copy of."""
    return name.partition("-")[2]


def _named(file: MediaFile, number: int) -> MediaFile:
    return MediaFile(file.path, f"{number:05d}-{file.name}", file.size_bytes, file.modified_ns)


def _as_media(path: Path, name: str) -> Material:
    status = path.stat()
    file = MediaFile(path, name, status.st_size, status.st_mtime_ns)
    return Material(file, hash_file(file, lambda _n_bytes: None))


def _minute(lots: random.Random) -> npt.NDArray[np.float32]:
    """Sentences with pauses of half a second to three, as near to a minute as they come, and quiet to its end."""
    n_samples = DURATION_S * SAMPLE_RATE_HZ
    minute = np.random.default_rng(lots.randrange(2**32)).normal(0, 1e-4, n_samples).astype(np.float32)
    at = SAMPLE_RATE_HZ // 2
    while at + len(clip := lots.choice(sentences()).clip) <= n_samples:
        minute[at : at + len(clip)] += clip
        at += len(clip) + int(lots.uniform(0.5, 3) * SAMPLE_RATE_HZ)
    return minute
