"""The sound of the worst utterances, to hear in the report: cut, levelled and faded by pydub, encoded to MP3 by PyAV.

pydub works on the samples alone here, so its ffmpeg program is not needed. All clips of a report together stay below
4 MB: 20 clips of 30 s at 32 kbit/s are 2.4 MB, a third more as text inside a page.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import structlog
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from evaluation.held_out import HeldOutError, load_clip
from evaluation.report.document import Clip, WorstUtterance
from speech.audio import SAMPLE_RATE_HZ, Samples
from speech.errors import MediaError
from speech.working_copy import to_int16

with warnings.catch_warnings():
    # pydub imports the deprecated audioop, has regular expressions with unknown escapes, and misses an ffmpeg
    # program that is not needed here.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

MAX_CLIP_S = 30.0
BIT_RATE = 32_000
MP3_OPTIONS = {"fflags": "+bitexact", "write_xing": "0", "id3v2_version": "0"}
"""Nothing but sound: no tags, no name of the encoder's version."""
MAX_TOTAL_BYTES = 2_900_000
"""Of all clips, as files: in a page base64 makes 3.9 MB of them."""
LEVEL_DBFS = -20.0
"""Mean level that clips are brought to, so that nobody reaches for the volume."""
HEADROOM_DB = 1.0
MAX_GAIN_DB = 30.0
"""Silence is not blown up to noise."""
FADE_IN_MS, FADE_OUT_MS, CUT_FADE_MS = 10, 20, 300

log = structlog.get_logger()


def make_clips(
    utterances: Sequence[WorstUtterance], datasets: Path | None
) -> tuple[tuple[WorstUtterance, ...], dict[str, bytes]]:
    """The utterances with their clips, and the MP3 files by name. What cannot be read says so."""
    found: list[WorstUtterance] = []
    files: dict[str, bytes] = {}
    total = 0
    for number, utterance in enumerate(utterances, start=1):
        name = f"{number:02d}.mp3"
        failure: str | None = None
        duration_s = min(utterance.duration_s, MAX_CLIP_S)
        is_cut = utterance.duration_s > MAX_CLIP_S
        try:
            if datasets is None:
                raise FileNotFoundError("FONOTECA_DATASETS is not set")
            samples = load_clip(datasets, utterance.audio)
            content = encode(prepare(samples))
            duration_s = min(len(samples) / SAMPLE_RATE_HZ, MAX_CLIP_S)
            is_cut = len(samples) > MAX_CLIP_S * SAMPLE_RATE_HZ
            if total + len(content) > MAX_TOTAL_BYTES:
                failure = "the clips before it fill the room that there is in a report"
            else:
                total += len(content)
                files[name] = content
        except (OSError, HeldOutError, MediaError, av.error.FFmpegError, ValueError) as error:
            failure = _reason(error)
            log.warning("report_clip_unreadable", audio=utterance.audio, error=str(error))
        found.append(replace(utterance, clip=Clip(name, duration_s, is_cut, failure)))
    return tuple(found), files


def _reason(error: Exception) -> str:
    """Without the folders of this machine: a report travels."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def prepare(samples: Samples) -> AudioSegment:
    """The clip as it is to be heard: at most `MAX_CLIP_S` long, levelled, without clicks at its ends.

    Raises:
        ValueError: there are no samples.
    """
    if not len(samples):
        raise ValueError("its audio is empty")
    sound = AudioSegment(
        to_int16(np.asarray(samples, dtype=np.float32)).tobytes(),
        sample_width=2,
        frame_rate=SAMPLE_RATE_HZ,
        channels=1,
    )
    is_cut = len(sound) > MAX_CLIP_S * 1000
    sound = sound[: int(MAX_CLIP_S * 1000)]
    if sound.max > 0:
        gain = min(LEVEL_DBFS - sound.dBFS, -HEADROOM_DB - sound.max_dBFS, MAX_GAIN_DB)
        sound = sound.apply_gain(gain)
    fade_out = CUT_FADE_MS if is_cut else FADE_OUT_MS
    return sound.fade_in(min(FADE_IN_MS, len(sound) // 2)).fade_out(min(fade_out, len(sound) // 2))


def encode(sound: AudioSegment) -> bytes:
    """MP3, mono, 16 kHz; the same bytes for the same sound."""
    buffer = io.BytesIO()
    samples = np.frombuffer(sound.raw_data, np.int16)
    with av.open(buffer, "w", format="mp3", options=MP3_OPTIONS) as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.bit_rate = BIT_RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=SAMPLE_RATE_HZ)
        for at in range(0, len(samples), SAMPLE_RATE_HZ):
            frame = AudioFrame.from_ndarray(
                samples[None, at : at + SAMPLE_RATE_HZ], format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ), at
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        for resampled in resampler.resample(None):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return buffer.getvalue()
