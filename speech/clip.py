"""Clips for people: a span of sound cut, levelled and faded by pydub, encoded to MP3 or Opus by PyAV.

pydub works on the samples alone here, so its ffmpeg program is not needed. Free of torch: the API makes clips too.
"""

import io
import warnings
from enum import StrEnum
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from speech.audio import SAMPLE_RATE_HZ, MediaSource, Samples
from speech.mono import to_int16
from speech.working_copy import read_span

with warnings.catch_warnings():
    # pydub imports the deprecated audioop, has regular expressions with unknown escapes, and misses an ffmpeg
    # program that is not needed here.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

LEVEL_DBFS = -20.0
"""Mean level (RMS) that clips are brought to, so that nobody reaches for the volume."""
HEADROOM_DB = 1.0
"""The loudest sample stays so far below full scale, though the clip be quieter than the others for it."""
MAX_GAIN_DB = 30.0
"""Silence is not blown up to noise."""
FADE_IN_MS, FADE_OUT_MS, CUT_FADE_MS = 10, 20, 300


class ClipFormat(StrEnum):
    """What a clip is encoded as; the value is the file's ending."""

    MP3 = "mp3"
    OPUS = "opus"
    """In Ogg."""


# Nothing but sound: no tags, no name of the encoder's version, no random number. The same bytes for the same sound.
_MUXERS = {
    ClipFormat.MP3: ("mp3", {"fflags": "+bitexact", "write_xing": "0", "id3v2_version": "0"}),
    ClipFormat.OPUS: ("ogg", {"fflags": "+bitexact"}),
}
_ENCODERS = {ClipFormat.MP3: "libmp3lame", ClipFormat.OPUS: "libopus"}
BIT_RATES = {ClipFormat.MP3: 64_000, ClipFormat.OPUS: 32_000}
"""Bits per second at which 16 kHz mono, music beneath speech included, loses nothing that one would miss."""


def make_clip(source: MediaSource, start_sample: int, end_sample: int, form: ClipFormat) -> bytes:
    """Samples [start_sample, end_sample) of a working copy as a file; of the copy no more than they need is read.

    Raises:
        ValueError: the span is not within the copy.
        DamagedMedia: the copy cannot be read.
    """
    return encode(prepare(read_span(source, start_sample, end_sample)), form)


def prepare(samples: Samples, *, max_s: float | None = None) -> AudioSegment:
    """The clip as it is to be heard: levelled, without clicks at its ends, and with `max_s` at most so long.

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
    is_cut = max_s is not None and len(sound) > max_s * 1000
    if max_s is not None:
        sound = sound[: int(max_s * 1000)]
    if sound.max > 0:
        gain = min(LEVEL_DBFS - sound.dBFS, -HEADROOM_DB - sound.max_dBFS, MAX_GAIN_DB)
        sound = sound.apply_gain(gain)
    if len(sound) < 2:
        return sound  # in milliseconds, pydub's own unit: too short to be faded
    fade_out = CUT_FADE_MS if is_cut else FADE_OUT_MS
    return sound.fade_in(min(FADE_IN_MS, len(sound) // 2)).fade_out(min(fade_out, len(sound) // 2))


def encode(sound: AudioSegment, form: ClipFormat = ClipFormat.MP3, *, bit_rate: int | None = None) -> bytes:
    """A file of the sound, mono, at `bit_rate` or that of `BIT_RATES`; the same bytes for the same sound."""
    buffer = io.BytesIO()
    samples = np.frombuffer(sound.raw_data, np.int16)
    muxer, options = _MUXERS[form]
    with av.open(buffer, "w", format=muxer, options=options) as container:
        stream = container.add_stream(_ENCODERS[form], rate=SAMPLE_RATE_HZ, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.bit_rate = bit_rate or BIT_RATES[form]
        stream.codec_context.open()  # says how many samples a frame has
        resampler = av.AudioResampler(
            format=stream.format,
            layout="mono",
            rate=SAMPLE_RATE_HZ,
            frame_size=stream.codec_context.frame_size,
        )
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
