"""Recordings as an archive has them, for `tests.benchmarks.media`: speech with pauses in several containers.

The speech is the fixture clips of tests/data/demo-speech in a seeded order, at changing levels and places between
left and right, with pauses between them and a faint hiss over the whole band throughout. Everything is encoded by
PyAV; the same seed and minutes give the same sound in every format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from scipy.signal import resample_poly

from tests.speech.media_files import RATE_HZ, demo_sentence, demo_voices

SOURCE_RATE_HZ = 48_000
PICTURES_PER_S = 25
HISS_DBFS = -66.0

Stereo = npt.NDArray[np.int16]
"""Shape (2, n), at 48 kHz."""


@dataclass(frozen=True)
class Format:
    """One container with one codec in it, as the decoder library names them."""

    name: str
    suffix: str
    container: str
    codec: str
    about: str
    decoder: str
    """What ffmpeg calls the codec's decoder."""
    rate_hz: int = SOURCE_RATE_HZ
    bit_rate: int | None = None
    n_mono_tracks: int = 0
    """So many tracks of one channel each (left, right, then silent ones); 0 is one stereo track."""
    has_picture: bool = False
    encoder_options: tuple[tuple[str, str], ...] = ()


FORMATS = (
    Format("mp3", "mp3", "mp3", "libmp3lame", "MP3, 128 kbit/s, 44.1 kHz stereo", "mp3", 44_100, 128_000),
    Format(
        "m4a", "m4a", "ipod", "aac", "AAC, 128 kbit/s, 44.1 kHz stereo", "aac", 44_100, 128_000,
        encoder_options=(("aac_coder", "fast"),),
    ),
    Format("wav", "wav", "wav", "pcm_s16le", "PCM, 16 bits, 48 kHz stereo", "pcm_s16le"),
    Format("ts", "ts", "mpegts", "mp2", "MP2, 192 kbit/s, 48 kHz stereo, a small picture", "mp2", bit_rate=192_000,
           has_picture=True),
    Format("mxf", "mxf", "mxf", "pcm_s16le", "four tracks of PCM, 16 bits, 48 kHz mono, a small picture", "pcm_s16le",
           n_mono_tracks=4, has_picture=True),
)  # fmt: skip


def by_name(name: str) -> Format:
    return next(candidate for candidate in FORMATS if candidate.name == name)


def seconds_of_speech(minutes: float, seed: int) -> Iterator[Stereo]:
    """The recording, a second at a time."""
    rng = np.random.default_rng(seed)
    hiss = np.float32(10 ** (HISS_DBFS / 20) * 32767)
    pieces = _clips_and_pauses(rng)
    held = np.empty((2, 0), np.float32)
    for _ in range(max(1, round(minutes * 60))):
        while held.shape[1] < SOURCE_RATE_HZ:
            held = np.concatenate([held, next(pieces)], axis=1)
        second, held = held[:, :SOURCE_RATE_HZ], held[:, SOURCE_RATE_HZ:]
        noisy = second + rng.standard_normal(second.shape, np.float32) * hiss
        yield noisy.clip(-32768, 32767).astype(np.int16)


def _clips_and_pauses(rng: np.random.Generator) -> Iterator[npt.NDArray[np.float32]]:
    """Speech and pauses by turns, for ever, (2, n) in units of 16 bits."""
    numbers = sorted(number for voice in demo_voices().values() for number in voice)
    clips = [
        resample_poly(demo_sentence(number), SOURCE_RATE_HZ // RATE_HZ, 1).astype(np.float32)
        for number in numbers
    ]
    while True:
        for index in rng.permutation(len(clips)):
            clip = clips[index]
            level = 10 ** (rng.uniform(-26, -14) / 20) * 32767 / (float(np.sqrt(np.mean(clip**2))) + 1e-9)
            sides = np.array([[rng.uniform(0.7, 1.0)], [rng.uniform(0.7, 1.0)]], np.float32)
            yield (clip[None] * sides * np.float32(level)).clip(-32768, 32767)
            # within a text, and now and then between two
            pause_s = rng.uniform(2.0, 6.0) if rng.random() < 0.15 else min(3.0, rng.lognormal(-0.5, 0.5))
            yield np.zeros((2, int(pause_s * SOURCE_RATE_HZ)), np.float32)


def write_recording(path: Path, wanted: Format, minutes: float, seed: int) -> None:
    """Encode `seconds_of_speech` as a file, which appears only when it is whole."""
    partial = path.with_name(path.name + ".part")
    with av.open(str(partial), "w", format=wanted.container) as muxer:
        picture = (
            _add_picture(muxer.add_stream("mpeg2video", rate=PICTURES_PER_S)) if wanted.has_picture else None
        )
        tracks = [_add_track(muxer, wanted) for _ in range(wanted.n_mono_tracks or 1)]
        black = VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), format="gray").reformat(
            format="yuv420p"
        )
        black.time_base = Fraction(1, PICTURES_PER_S)
        pictures = count()
        frame_samples = (
            SOURCE_RATE_HZ // PICTURES_PER_S if picture else SOURCE_RATE_HZ
        )  # MXF wants the picture's
        for second, sound in enumerate(seconds_of_speech(minutes, seed)):
            for at in range(0, SOURCE_RATE_HZ, frame_samples):
                if picture:
                    black.pts = next(pictures)
                    muxer.mux(picture.encode(black))
                part = sound[:, at : at + frame_samples]
                for number, track in enumerate(tracks):
                    muxer.mux(track.encode(_frame(part, second * SOURCE_RATE_HZ + at, wanted, number)))
        for track in tracks:
            muxer.mux(track.encode(None))
        if picture:
            muxer.mux(picture.encode(None))
    partial.replace(path)


def _add_picture(stream: VideoStream) -> VideoStream:
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    return stream


def _add_track(muxer: av.container.OutputContainer, wanted: Format) -> AudioStream:
    layout = "mono" if wanted.n_mono_tracks else "stereo"
    options = dict(wanted.encoder_options)
    stream = muxer.add_stream(wanted.codec, rate=wanted.rate_hz, layout=layout, options=options)
    assert isinstance(stream, AudioStream)
    if wanted.bit_rate:
        stream.bit_rate = wanted.bit_rate
    return stream


def _frame(sound: Stereo, at_sample: int, wanted: Format, track: int) -> AudioFrame:
    if wanted.n_mono_tracks:
        heard = sound[track] if track < len(sound) else np.zeros_like(sound[0])
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(heard[None]), format="s16", layout="mono")
    else:
        packed = np.ascontiguousarray(sound.T).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="s16", layout="stereo")
    frame.sample_rate, frame.time_base, frame.pts = SOURCE_RATE_HZ, Fraction(1, SOURCE_RATE_HZ), at_sample
    return frame


def write_repeated(path: Path, source: Path, wanted: Format, hours: float) -> None:
    """A file of at least `hours` from the packets of `source`, over and over: none is decoded or encoded."""
    partial = path.with_name(path.name + ".part")
    with av.open(str(source)) as demuxer, av.open(str(partial), "w", format=wanted.container) as muxer:
        heard = demuxer.streams.audio[0]
        written = muxer.add_stream_from_template(heard)
        assert heard.time_base is not None
        packets = [
            (bytes(packet), packet.duration or 0) for packet in demuxer.demux(heard) if packet.dts is not None
        ]
        n_wanted = round(hours * 3600 / heard.time_base)
        for content, at in _repeated(packets, n_wanted):
            packet = Packet(content)
            packet.pts = packet.dts = at
            packet.time_base, packet.stream, packet.is_keyframe = heard.time_base, written, True
            muxer.mux(packet)
    partial.replace(path)


def _repeated(packets: Iterable[tuple[bytes, int]], n_wanted: int) -> Iterator[tuple[bytes, int]]:
    """Each packet's bytes with the time at which it begins, in its stream's time base."""
    kept = list(packets)
    at = 0
    while at < n_wanted:
        for content, duration in kept:
            yield content, at
            at += duration


def made_recording(folder: Path, name: str, minutes: float, seed: int) -> Path:
    """The recording in the format of this name, from `folder` where an earlier run left it."""
    wanted = by_name(name)
    path = folder / f"{minutes:g}min-seed{seed}.{wanted.suffix}"
    if not path.exists():
        write_recording(path, wanted, minutes, seed)
    return path


def made_long_recording(folder: Path, name: str, minutes: float, seed: int, hours: float) -> Path:
    """`made_recording` over and over until `hours` are full."""
    source = made_recording(folder, name, minutes, seed)
    path = folder / f"{hours:g}h-of-{source.name}"
    if not path.exists():
        write_repeated(path, source, by_name(name), hours)
    return path
