"""Media files made on the spot for the tests of decoding and splitting."""

import io
import json
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

RATE_HZ = 16000
REPOSITORY = Path(__file__).resolve().parents[2]
DEMO_SPEECH = REPOSITORY / "tests" / "data" / "demo-speech"
SAMPLES = REPOSITORY / "samples"

Floats = npt.NDArray[np.float32]


def encoded(
    samples: Floats,
    *,
    container: str,
    codec: str,
    rate_hz: int = RATE_HZ,
    layout: str = "mono",
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    bit_rate: int | None = None,
) -> bytes:
    """`samples` (16 kHz mono, equal on every channel) as a media file."""
    with (
        tempfile.NamedTemporaryFile() as out,  # by name: moving an mp4's index to the front reopens the file
        av.open(out.name, "w", format=container, options=options or {}) as muxer,
    ):
        muxer.metadata.update(tags or {})
        stream = muxer.add_stream(codec, rate=rate_hz, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate_hz)
        frame = AudioFrame.from_ndarray(
            (samples * 32767).clip(-32768, 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            muxer.mux(stream.encode(resampled))
        muxer.mux(stream.encode(None))
        muxer.close()
        return Path(out.name).read_bytes()


def wav(samples: Floats) -> bytes:
    return encoded(samples, container="wav", codec="pcm_s16le")


def silent_video() -> bytes:
    """An mp4 with a picture and no sound track."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as muxer:
        stream = muxer.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(5):
            frame = VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), format="gray").reformat(
                format="yuv420p"
            )
            frame.pts = number
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    return out.getvalue()


def video_with_late_sound(samples: Floats, late_s: int) -> bytes:
    """A Matroska whose picture starts at 0 and whose sound starts `late_s` after it."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as muxer:
        video = muxer.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = muxer.add_stream("flac", rate=RATE_HZ, layout="mono")
        for number in range(5 * (late_s + len(samples) // RATE_HZ)):
            picture = VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), format="gray").reformat(
                format="yuv420p"
            )
            picture.pts = number
            muxer.mux(video.encode(picture))
        sound = AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        sound.sample_rate, sound.time_base, sound.pts = RATE_HZ, Fraction(1, RATE_HZ), late_s * RATE_HZ
        muxer.mux([*video.encode(None), *audio.encode(sound), *audio.encode(None)])
    return out.getvalue()


def sweep(duration_s: float, seed: int = 0) -> Floats:
    """Band-limited noise, in which every position is found again by correlation."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(int(duration_s * RATE_HZ))
    smooth = np.convolve(noise, np.ones(6) / 6, "same")
    return (smooth / np.abs(smooth).max() * 0.7).astype(np.float32)


def demo_sentence(number: int) -> Floats:
    with av.open(str(DEMO_SPEECH / f"{number:03d}.flac")) as container:
        pieces = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(pieces).astype(np.float32) / 32768


def demo_voices() -> dict[str, list[int]]:
    """File numbers by voice."""
    voices: dict[str, list[int]] = {}
    for line in (DEMO_SPEECH / "texts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        voices.setdefault(row["voice"], []).append(int(row["file"][:3]))
    return voices


def lag_samples(wanted: Floats, found: Floats) -> int:
    """By how many samples `found` is later than `wanted`, by cross-correlation."""
    size = 1 << (len(wanted) + len(found)).bit_length()
    spectrum = np.conj(np.fft.rfft(wanted, size)) * np.fft.rfft(found, size)
    peak = int(np.fft.irfft(spectrum, size).argmax())
    return peak if peak < size // 2 else peak - size


def video_file(
    tracks: Sequence[Floats],
    *,
    container: str,
    video: str = "mpeg4",
    audio: str = "pcm_s16le",
    layout: str = "mono",
    size: tuple[int, int] = (64, 64),
    rate: Fraction | int = 25,
    tags: dict[str, str] | None = None,
) -> bytes:
    """A video with black pictures and a sound track (48 kHz) for each of `tracks`, interleaved by the second."""
    with (
        tempfile.NamedTemporaryFile() as out,
        av.open(out.name, "w", format=container) as muxer,
    ):
        muxer.metadata.update(tags or {})
        picture = muxer.add_stream(video, rate=rate)
        picture.width, picture.height = size
        picture.pix_fmt = "yuv420p"
        streams = [muxer.add_stream(audio, rate=48_000, layout=layout) for _ in tracks]
        resamplers = [
            av.AudioResampler(stream.format, layout, 48_000, stream.codec_context.frame_size or 1920)
            for stream in streams
        ]
        black = VideoFrame.from_ndarray(np.zeros(size[::-1], np.uint8), format="gray").reformat(
            format="yuv420p"
        )
        black.time_base = Fraction(1) / Fraction(rate)
        shown = 0
        for second in range(len(tracks[0]) // RATE_HZ):
            while shown < (second + 1) * rate:
                black.pts = shown
                muxer.mux(picture.encode(black))
                shown += 1
            for samples, stream, resampler in zip(tracks, streams, resamplers, strict=True):
                part = samples[second * RATE_HZ : (second + 1) * RATE_HZ]
                frame = AudioFrame.from_ndarray(
                    (part * 32767).astype(np.int16)[None], format="s16", layout="mono"
                )
                frame.sample_rate, frame.time_base, frame.pts = (
                    RATE_HZ,
                    Fraction(1, RATE_HZ),
                    second * RATE_HZ,
                )
                for resampled in resampler.resample(frame):
                    muxer.mux(stream.encode(resampled))
        for stream, resampler in zip(streams, resamplers, strict=True):
            for resampled in resampler.resample(None):
                muxer.mux(stream.encode(resampled))
            muxer.mux(stream.encode(None))
        muxer.mux(picture.encode(None))
        muxer.close()
        return Path(out.name).read_bytes()
