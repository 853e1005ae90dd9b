"""Any media file to 16 kHz mono float32, in blocks, at bounded memory, with every hole accounted for.

Three choices look odd until measured:
- Frames are collected in an `AudioFifo` and mixed and resampled a second at a time: one call per 26 ms frame
  spends more in Python than in the decoder.
- Channels are averaged by us: the resampler's own stereo matrix adds 3 dB and clips, and it refuses
  tracks without a known layout, of which archives have many.
- A path is opened by us and handed over as a stream, with a list of allowed containers and a refusing `io_open`:
  a playlist inside a file must never make the reader open another file or address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.packet import Packet
from av.stream import Discard

from speech.containers import (
    ALLOWED_FORMATS,
    MAX_CREDIBLE_S,
    MediaInfo,
    check_plausible,
    declared_end_s,
    is_adts,
    media_info,
    mp3_declared_s,
    why_unreadable,
)
from speech.errors import (
    DamagedMedia,
    EmptyMedia,
    NoAudioSamples,
    NoAudioTrack,
    NoSuchTrack,
    NotMedia,
    UnsupportedCodec,
)
from speech.timeline import Clock
from speech.wav import RangesReader, wav_claim

SAMPLE_RATE_HZ = 16000
"""Of everything after this stage: what the VAD, the features and the model are made for."""

READ_BUFFER_BYTES = 256 * 1024
"""Per read of the source. An object store answers each with one range request."""
MIN_MISSING_TAIL_S = 0.2
MAX_DEMUX_ERRORS = 100
"""In a row, without one packet between: after that the rest of the file is given up."""

MAX_OVERDRIVE = 8.0
"""Float samples beyond this many times full scale are clipped there: no recorder writes them, damage does."""

Samples = npt.NDArray[np.float32]


class BinaryReader(Protocol):
    """A seekable binary file: an open file, `BytesIO`, or an object store's reader (any buffer from `read`)."""

    def read(self, n_bytes: int, /) -> Any: ...
    def seek(self, offset: int, whence: int = 0, /) -> Any: ...
    def tell(self) -> int: ...


MediaSource = str | os.PathLike[str] | BinaryReader


@dataclass(frozen=True)
class Block:
    """Consecutive 16 kHz mono samples, shape (n_samples,), within [-1, 1] but for what the file itself overdrives."""

    start_sample: int
    samples: Samples


@dataclass(frozen=True)
class FailedSpan:
    """Samples [start_sample, end_sample) that could not be decoded; blocks hold zeros there."""

    start_sample: int
    end_sample: int
    reason: str
    """`decode_error` (packets were broken), `missing_audio` (the file's clock jumps), `truncated` (the end) or
    `other_format` (a second recording joined to the first, in a format of its own)."""


class SourceReader:
    """What the decoder library reads from: always `bytes`, a known size, no name from which it could guess."""

    def __init__(self, raw: BinaryReader) -> None:
        self._raw = raw
        raw.seek(0, os.SEEK_END)
        self.size_bytes = raw.tell()
        raw.seek(0)

    def read(self, n_bytes: int, /) -> bytes:
        return bytes(self._raw.read(n_bytes))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._raw.seek(offset, whence)
        return self._raw.tell()

    def tell(self) -> int:
        return self._raw.tell()


def open_container(
    reader: SourceReader,
    *,
    format_name: str | None = None,
    buffer_bytes: int,
    options: dict[str, str] | None = None,
) -> InputContainer:
    """Open a container that can reach nothing but `reader`, with a demuxer's `options`.

    Raises `av.error.FFmpegError`.
    """
    return av.open(
        reader,
        "r",
        format=format_name,
        options={
            **(options or {}),
            "format_whitelist": ",".join(ALLOWED_FORMATS),
            "protocol_whitelist": "none",  # what io_open does not see
        },
        metadata_errors="replace",
        buffer_size=buffer_bytes,
        io_open=_refuse_to_open,
    )


def open_source(source: MediaSource, closing: ExitStack) -> SourceReader:
    """A reader of `source`. A path is opened and closed with `closing`; a reader given stays its owner's."""
    if isinstance(source, (str, os.PathLike)):
        return SourceReader(closing.enter_context(Path(source).open("rb")))
    return SourceReader(source)


class MediaReader:
    """One audio track of one media file, read once from start to end. A context manager.

    Time 0 is where the container starts; a track that begins later than its video has silence before it.
    Raises a `MediaError` subclass on opening what cannot be read, and from `blocks` where nothing was decoded.
    Errors of the source itself (a lost connection) pass through untouched: they say nothing of the file.
    """

    def __init__(self, source: MediaSource, *, name: str, audio_track: int | None = None) -> None:
        """`audio_track` counts from 0 among the audio tracks; None takes the container's best."""
        self._name = name
        self._closing = ExitStack()
        self._failed: list[FailedSpan] = []
        self._n_samples = 0
        try:
            self._reader = open_source(source, self._closing)
            if self._reader.size_bytes == 0:
                raise EmptyMedia(name)
            self._head = self._reader.read(4096)
            claim = wav_claim(self._reader)
            self._header_end_s = claim.declared_s if claim else mp3_declared_s(self._reader)
            self._unread_s = claim.unread_s if claim else 0.0
            reader, options = self._reader, dict[str, str]()
            if claim is None and is_adts(
                self._reader
            ):  # the parser hides which bytes were skipped: see Clock.met
                options = {"fflags": "+noparse"}
            self._reader.seek(0)
            if claim is not None and claim.ranges is not None:
                reader, options = SourceReader(RangesReader(reader, claim.ranges)), {"ignore_length": "1"}
            try:
                self._container = open_container(reader, buffer_bytes=READ_BUFFER_BYTES, options=options)
            except av.error.FFmpegError as error:
                raise why_unreadable(self._head, name) from error
            self._closing.enter_context(self._container)
            self._stream = self._choose(audio_track)
            self.info: MediaInfo = media_info(self._container, self._stream)
            check_plausible(name, self.info.sample_rate_hz, self.info.channels)
            self._end_s = self._header_end_s or declared_end_s(
                self._container, self._stream, self._reader.size_bytes
            )
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    @property
    def failed(self) -> tuple[FailedSpan, ...]:
        """Holes found so far, in order, never touching one another; complete once `blocks` is exhausted."""
        return tuple(self._failed)

    @property
    def n_samples(self) -> int:
        """16 kHz samples given so far; the duration once `blocks` is exhausted."""
        return self._n_samples

    def blocks(self, block_samples: int = 4 * SAMPLE_RATE_HZ) -> Iterator[Block]:
        """Decode to blocks of exactly `block_samples`, the last one shorter. May be called once."""
        pending: list[Samples] = []
        n_pending = start = 0
        for piece in self._pieces():
            pending.append(piece)
            n_pending += len(piece)
            if n_pending < block_samples:
                continue
            joined = np.concatenate(pending)
            n_whole = n_pending - n_pending % block_samples
            for at in range(0, n_whole, block_samples):
                yield Block(start + at, joined[at : at + block_samples])
            pending, n_pending, start = [joined[n_whole:]], n_pending - n_whole, start + n_whole
        if n_pending:
            yield Block(start, np.concatenate(pending))

    def _choose(self, audio_track: int | None) -> AudioStream:
        tracks = self._container.streams.audio
        if not tracks:
            what = (
                "it has pictures but no sound" if self._container.streams.video else "it has no sound track"
            )
            raise NoAudioTrack(self._name, what)
        if audio_track is None:
            best = self._container.streams.best("audio")
            stream = best if isinstance(best, AudioStream) else tracks[0]
        elif 0 <= audio_track < len(tracks):
            stream = tracks[audio_track]
        else:
            raise NoSuchTrack(self._name, f"it has {len(tracks)} audio track(s), and no track {audio_track}")
        if stream.codec_context is None:
            raise UnsupportedCodec(self._name, "there is no decoder for its sound")
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        return stream

    def _pieces(self) -> Iterator[Samples]:
        """Audio and zeros in order, counted in `_n_samples`."""
        clock = Clock(self._container, self._stream, self._end_s)
        run: _Run | None = None
        n_decoded = 0
        for packet in self._packets(clock):
            clock.met(packet)
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                clock.lost(packet)
                continue
            if frames and packet.size:
                clock.decoded(packet)
            for frame in frames:
                if not frame.samples or not frame.sample_rate:
                    continue
                n_decoded += frame.samples
                hole_s = clock.hole_before(frame)
                if run is None or hole_s or not run.takes(frame):
                    if run is not None:
                        yield from self._counted(run.finish())
                    if hole_s:
                        yield from self._hole(clock.next_s + hole_s, clock.reason)
                    run = _Run(frame)
                clock.advance(frame, hole_s)
                yield from self._counted(run.push(frame))
        if run is not None:
            yield from self._counted(run.finish())
        if n_decoded == 0:
            raise self._nothing_decoded(clock)
        if self._end_s is not None and self._end_s - clock.next_s > MIN_MISSING_TAIL_S:
            yield from self._hole(self._end_s, "truncated")
        elif clock.lost_until_s > clock.next_s:
            yield from self._hole(clock.lost_until_s, "decode_error")
        if self._unread_s:
            yield from self._hole(self._n_samples / SAMPLE_RATE_HZ + self._unread_s, "other_format")

    def _packets(self, clock: Clock) -> Iterator[Packet[AudioStream]]:
        """Packets to the end of the file, going on after a demuxer's error where it can be gone on from."""
        n_errors = 0
        while n_errors < MAX_DEMUX_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    n_errors = 0
                    yield packet
                return
            except (
                IndexError
            ):  # a packet, now read, of a track that began after the file was opened: not ours
                continue
            except av.error.FFmpegError:
                n_errors += 1
                clock.had_error = True

    def _counted(self, pieces: Iterator[Samples]) -> Iterator[Samples]:
        for piece in pieces:
            self._n_samples += len(piece)
            if self._n_samples > MAX_CREDIBLE_S * SAMPLE_RATE_HZ:
                raise DamagedMedia(self._name, f"it goes on for more than {MAX_CREDIBLE_S // 3600} hours")
            yield piece

    def _hole(self, until_s: float, reason: str | None) -> Iterator[Samples]:
        """Zeros up to `until_s`; a failed span unless `reason` is None (silence before a late track)."""
        start, end = self._n_samples, round(until_s * SAMPLE_RATE_HZ)
        if end <= start:
            return
        if reason is not None:
            if self._failed and self._failed[-1].end_sample == start:
                last = self._failed.pop()
                start, reason = last.start_sample, last.reason
            self._failed.append(FailedSpan(start, end, reason))
        if until_s > MAX_CREDIBLE_S:
            raise DamagedMedia(
                self._name,
                f"its timestamps claim more than {MAX_CREDIBLE_S // 3600} hours, most of them without sound",
            )
        while self._n_samples < end:
            n_zeros = min(60 * SAMPLE_RATE_HZ, end - self._n_samples)
            self._n_samples += n_zeros
            yield np.zeros(n_zeros, np.float32)

    def _nothing_decoded(self, clock: Clock) -> Exception:
        if not clock.had_error:
            return NoAudioSamples(self._name, "its sound track holds no samples")
        judged = why_unreadable(self._head, self._name)
        if type(judged) is NotMedia:  # random bytes can pass a demuxer's guess, and then decode to nothing
            return judged
        return DamagedMedia(self._name, "none of its audio could be decoded")


class _Run:
    """Frames of one sample format that follow on one another, mixed to mono and resampled a second at a time."""

    def __init__(self, first: AudioFrame) -> None:
        self._key = _format_key(first)
        self._rate_hz = first.sample_rate
        self._planar = first.format.is_planar
        self._channels = first.layout.nb_channels
        self._fifo = av.AudioFifo()
        self._resampler: av.AudioResampler | None = None
        if self._rate_hz != SAMPLE_RATE_HZ:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        self._n_in = self._n_out = 0

    def takes(self, frame: AudioFrame) -> bool:
        return _format_key(frame) == self._key

    def push(self, frame: AudioFrame) -> Iterator[Samples]:
        frame.pts = None  # the fifo has a clock of its own and refuses frames that jitter; ours is in Clock
        self._fifo.write(frame)
        self._n_in += frame.samples
        if self._fifo.samples >= self._rate_hz:
            yield from self._drain()

    def finish(self) -> Iterator[Samples]:
        """The rest, so that the run is exactly its length at 16 kHz: the resampler keeps or adds a few samples."""
        wanted = round(self._n_in * SAMPLE_RATE_HZ / self._rate_hz)
        pieces = list(self._drain())
        if self._resampler is not None:
            tail = [frame.to_ndarray()[0] for frame in self._resampler.resample(None)]
            self._n_out += sum(len(piece) for piece in tail)
            pieces += tail
        rest = np.concatenate([*pieces, np.zeros(max(0, wanted - self._n_out), np.float32)])
        yield rest[: len(rest) - max(0, self._n_out - wanted)]

    def _drain(self) -> Iterator[Samples]:
        if not self._fifo.samples:
            return
        joined = self._fifo.read()
        if joined is None:
            return
        mono = _mono(joined.to_ndarray(), planar=self._planar, channels=self._channels)
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


def _format_key(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def _mono(values: npt.NDArray[Any], *, planar: bool, channels: int) -> Samples:
    """The mean of the channels, full scale = 1. `values` is (channels, n) if planar, else (1, n * channels)."""
    by_channel = values if planar else values.reshape(-1, channels).T
    if np.issubdtype(values.dtype, np.floating):  # damaged floats are anything up to infinity
        by_channel = np.nan_to_num(by_channel, nan=0.0).clip(-MAX_OVERDRIVE, MAX_OVERDRIVE)
    mixed: Samples = by_channel[0].astype(np.float32)
    for channel in by_channel[1:]:
        mixed += channel
    scale, offset = 1.0, 0.0
    if values.dtype == np.uint8:
        scale, offset = 1 / 128, -1.0
    elif np.issubdtype(values.dtype, np.integer):
        scale = 1 / (float(np.iinfo(values.dtype).max) + 1)
    mixed *= np.float32(scale / channels)
    if offset:
        mixed += np.float32(offset)
    return mixed


def _refuse_to_open(url: str, *_args: object) -> NoReturn:
    raise PermissionError(f"a media file may not open another file or address ({url!r})")
