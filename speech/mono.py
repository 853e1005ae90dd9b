"""Decoded frames to 16 kHz mono float32.

Frames are collected in an `AudioFifo` and mixed and resampled a second at a time: one call per 26 ms frame spends
more in Python than in the decoder. Channels are mixed by us: the resampler's own stereo matrix adds 3 dB and clips,
and it refuses tracks without a known layout, of which archives have many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

SAMPLE_RATE_HZ = 16000
"""Of everything after this stage: what the VAD, the features and the model are made for."""

CANCELLED = 0.1
"""A mix below this share (-20 dB) of its loudest channel is none: opposite phases, or one channel of many in use."""
INT16_SCALE = 32768.0
MAX_OVERDRIVE = 8.0
"""Float samples beyond this many times full scale are clipped there: no recorder writes them, damage does."""
_SHARES = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_OTHER_SHARE = 0.5

Samples = npt.NDArray[np.float32]
Pcm = npt.NDArray[np.int16]


class Run:
    """Frames of one sample format that follow on one another, mixed to mono and resampled a second at a time."""

    def __init__(self, first: AudioFrame) -> None:
        self._rate_hz, self._format, self._layout = first.sample_rate, first.format.name, first.layout
        self._planar = first.format.is_planar
        self._shares = channel_shares([channel.name for channel in first.layout.channels])
        self._fifo = av.AudioFifo()
        self._resampler: av.AudioResampler | None = None
        if self._rate_hz != SAMPLE_RATE_HZ:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        self._n_in = self._n_out = 0

    def takes(self, frame: AudioFrame) -> bool:
        """Whether a frame is of the same sample format, layout and rate."""
        return (
            frame.sample_rate == self._rate_hz
            and frame.layout == self._layout
            and frame.format.name == self._format
        )

    def push(self, frame: AudioFrame) -> bool:
        """Append a frame. Whether so much is together now that `drain` should be called."""
        frame.pts = None  # the fifo has a clock of its own and refuses frames that jitter; ours is in Clock
        self._fifo.write(frame)
        self._n_in += frame.samples
        return self._fifo.samples >= self._rate_hz

    def finish(self) -> Iterator[Samples]:
        """The rest, so that the run is exactly its length at 16 kHz: the resampler keeps or adds a few samples."""
        wanted = round(self._n_in * SAMPLE_RATE_HZ / self._rate_hz)
        pieces = list(self.drain())
        if self._resampler is not None:
            tail = [frame.to_ndarray()[0] for frame in self._resampler.resample(None)]
            self._n_out += sum(len(piece) for piece in tail)
            pieces += tail
        rest = np.concatenate([*pieces, np.zeros(max(0, wanted - self._n_out), np.float32)])
        yield rest[: len(rest) - max(0, self._n_out - wanted)]

    def drain(self) -> Iterator[Samples]:
        """What is together, mixed and resampled."""
        if not self._fifo.samples:
            return
        joined = self._fifo.read()
        if joined is None:
            return
        mono = mix_channels(_values(joined), self._shares, planar=self._planar)
        if self._resampler is None:
            self._n_out += len(mono)
            yield mono
            return
        frame = AudioFrame.from_ndarray(mono[None], format="flt", layout="mono")
        frame.sample_rate = self._rate_hz
        for out in self._resampler.resample(frame):
            samples: Samples = out.to_ndarray()[0]
            self._n_out += len(samples)
            yield samples


def _values(frame: AudioFrame) -> Sequence[npt.NDArray[Any]]:
    """The samples of each plane. Those of the usual decoders are not copied."""
    if frame.format.name == "fltp":
        return [np.frombuffer(memoryview(plane), np.float32, frame.samples) for plane in frame.planes]
    return list(frame.to_ndarray())


def channel_shares(names: list[str]) -> list[float]:
    """Each channel's share of the mix; they sum to 1.

    With a centre (5.1, 7.1) it is that of ITU-R BS.775: dialogue is there, and the mean would bury it. Otherwise all
    are equal.
    """
    if "FC" in names and len(names) > 1:
        shares = [_SHARES.get(name, _OTHER_SHARE) for name in names]
        return [share / sum(shares) for share in shares]
    return [1 / len(names)] * len(names)


def mix_channels(values: Sequence[npt.NDArray[Any]], shares: list[float], *, planar: bool) -> Samples:
    """The channels in their shares, full scale = 1. `values` is (channels, n) if planar, else (1, n * channels).

    Where channels cancel each other out (wired in opposite phase) or all but one of many are empty, it is the loudest
    channel alone.
    """
    by_channel = values if planar else values[0].reshape(-1, len(shares)).T
    channels = [_in_full_scale(channel) for channel in by_channel]
    mixed: Samples = channels[0] * np.float32(shares[0])
    if len(shares) == 1:
        return mixed
    for channel, share in zip(channels[1:], shares[1:], strict=True):
        mixed += channel * np.float32(share)
    powers = [_power(channel) for channel in channels]
    if _power(mixed) < CANCELLED**2 * max(powers):
        return channels[int(np.argmax(powers))].copy()
    return mixed


def _power(samples: Samples) -> float:
    """Of some thousand samples, evenly taken: so few that a product of BLAS starts no threads for them."""
    some = samples[:: max(1, len(samples) // 4096)]
    return float(np.dot(some, some))


def _in_full_scale(channel: npt.NDArray[Any]) -> Samples:
    """One channel of any sample format as float32, (n,)."""
    if np.issubdtype(channel.dtype, np.floating):
        with np.errstate(over="ignore", invalid="ignore"):  # of 64 bits, beyond what 32 can say
            samples: Samples = np.ascontiguousarray(channel, np.float32)
        # damaged floats are anything up to infinity; to look first costs a tenth of clipping all
        if not (samples.size and samples.min() >= -MAX_OVERDRIVE and samples.max() <= MAX_OVERDRIVE):
            samples = np.nan_to_num(samples, nan=0.0).clip(-MAX_OVERDRIVE, MAX_OVERDRIVE)
        return samples
    samples = channel.astype(np.float32, order="C")
    if channel.dtype == np.uint8:
        samples *= np.float32(1 / 128)
        samples -= np.float32(1)
    else:
        samples *= np.float32(1 / (float(np.iinfo(channel.dtype).max) + 1))
    return samples


def to_int16(samples: Samples) -> Pcm:
    """Full scale 1.0 to 16 bits, rounded and clipped."""
    rounded: Samples = samples * np.float32(INT16_SCALE)
    np.rint(rounded, out=rounded)
    np.clip(rounded, -INT16_SCALE, INT16_SCALE - 1, out=rounded)
    return rounded.astype(np.int16)


def as_int16(samples: Samples | Pcm) -> Pcm:
    """`to_int16`, of what is not in 16 bits yet."""
    return cast("Pcm", samples) if samples.dtype == np.int16 else to_int16(cast("Samples", samples))


def from_int16(samples: Pcm) -> Samples:
    """16 bits to full scale 1.0: `to_int16` of it is `samples` again."""
    scaled = samples.astype(np.float32)
    scaled *= np.float32(1 / INT16_SCALE)
    return scaled
