"""The two ways that `tests.benchmarks.media` compares, each run in a process of its own.

    python -m tests.benchmarks.media_ways ours|pydub FILE [--minutes 10] [--decoder mp3] [--ffmpeg PROGRAM]

The last line of output is JSON: seconds of computing by this process and by those it started, wall seconds, this
process's peak of memory, segments, seconds of audio. Importing is not counted: a worker imports once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.watched_process import peak_bytes_of

BELOW_MEAN_DB = 16
"""Sound so far below the recording's own mean is silence to the pydub way, as its users set it."""


@dataclass(frozen=True)
class Done:
    """What a way did, and what it took."""

    audio_s: float
    n_segments: int
    cpu_self_s: float
    cpu_children_s: float
    wall_s: float
    peak_bytes: int
    """VmHWM of this process."""


class _Clock:
    """Seconds of computing (user and system) and of the wall since it was made."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        own, children = (usage.ru_utime + usage.ru_stime for usage in spent)
        return own, children, time.monotonic()

    def done(self, *, audio_s: float, n_segments: int) -> Done:
        own, children, wall = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return Done(audio_s, n_segments, own, children, wall, peak_bytes_of())


def split_ours(path: Path) -> Done:
    """As the workers do it: decoding in a process of its own, speech, cuts, working copy and peaks."""
    from speech.split import DecodeLimits, split_media

    with tempfile.TemporaryDirectory() as folder:
        clock = _Clock()
        found = split_media(
            path,
            name=path.name,
            working_copy=Path(folder) / "working.flac",
            peaks=Path(folder) / "peaks.dat",
            limits=DecodeLimits(),
        )
        return clock.done(audio_s=found.duration_samples / 16_000, n_segments=len(found.segments))


def ffmpeg_program() -> str | None:
    """The system's ffmpeg, or the one in the package imageio-ffmpeg, or None."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        found = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def split_by_pydub(path: Path, *, minutes: float | None, decoder: str, ffmpeg: str | None) -> Done:
    """As a user of pydub does it, on the first `minutes` or all: from_file, 16 kHz mono, split_on_silence."""
    with warnings.catch_warnings():
        # pydub imports the deprecated audioop, has regular expressions with unknown escapes, and misses an ffmpeg
        warnings.simplefilter("ignore")
        from pydub import AudioSegment
        from pydub.silence import split_on_silence
    AudioSegment.converter = ffmpeg or "ffmpeg"
    # it asks ffprobe which decoder to take, which imageio-ffmpeg has not
    codec = None if shutil.which("ffprobe") else decoder
    clock = _Clock()
    sound = AudioSegment.from_file(str(path), codec=codec, duration=minutes and minutes * 60)
    sound = sound.set_frame_rate(16_000).set_channels(1)
    pieces = split_on_silence(sound, silence_thresh=sound.dBFS - BELOW_MEAN_DB)
    return clock.done(audio_s=len(sound) / 1000, n_segments=len(pieces))


def measured_environment() -> dict[str, str]:
    """One thread for matrices, as the workers set it."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("way", choices=("ours", "pydub"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--decoder", default="")
    parser.add_argument("--ffmpeg", help="the program that pydub decodes with")
    arguments = parser.parse_args()
    if arguments.way == "ours":
        done = split_ours(arguments.file)
    else:
        done = split_by_pydub(
            arguments.file,
            minutes=arguments.minutes,
            decoder=arguments.decoder,
            ffmpeg=arguments.ffmpeg,
        )
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main()
