"""Short recordings in several formats, the same for every run, and some that must fail."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cli.gather import MediaFile, hash_file
from speech.audio import SAMPLE_RATE_HZ
from tests.demo_speech import sentences
from tests.speech.media_files import encoded

PAUSE_S = 2.5
"""Between two sentences: longer than the splitter joins across."""
NOT_MEDIA_EVERY = 40
"""One recording of so many is no media at all, and must fail with that reason."""
SILENT_EVERY = 50
"""One of so many is silence: completed, without a text."""

FORMATS = (
    # of some hundred kilobytes: several reads of the API for one recording
    {"container": "wav", "codec": "pcm_s16le", "rate_hz": 44_100},
    {"container": "mp3", "codec": "libmp3lame", "rate_hz": 44_100},
    {"container": "flac", "codec": "flac", "rate_hz": 48_000},
    {"container": "ogg", "codec": "libopus", "rate_hz": 48_000},
)


@dataclass(frozen=True)
class Material:
    """One recording to submit."""

    file: MediaFile
    sha256: str


def write_material(folder: Path, n_recordings: int, *, seed: int = 0) -> list[Material]:
    """Write the recordings into `folder`: one to four sentences each, in turns over FORMATS."""
    lots = random.Random(seed)
    material = []
    for number in range(n_recordings):
        form = FORMATS[number % len(FORMATS)]
        path = folder / f"recording-{number:03d}.{form['container']}"
        if number % NOT_MEDIA_EVERY == NOT_MEDIA_EVERY // 2:
            path.write_text("this is a letter, and somebody gave it the name of a recording\n" * 50)
        elif number % SILENT_EVERY == SILENT_EVERY // 2:
            path.write_bytes(encoded(np.zeros(3 * SAMPLE_RATE_HZ, np.float32), **form))  # type: ignore[arg-type]
        else:
            path.write_bytes(encoded(_spoken(lots, lots.choice((1, 1, 2, 4))), **form))  # type: ignore[arg-type]
        status = path.stat()
        file = MediaFile(path, path.name, status.st_size, status.st_mtime_ns)
        material.append(Material(file, hash_file(file, lambda _n_bytes: None)))
    return material


def _spoken(lots: random.Random, n_sentences: int) -> npt.NDArray[np.float32]:
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE_HZ), np.float32)
    parts = [pause[: SAMPLE_RATE_HZ // 2]]
    for sentence in lots.sample(sentences(), n_sentences):
        parts += [sentence.clip, pause]
    return np.concatenate(parts)
