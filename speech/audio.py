"""Any media file to 16 kHz mono float32, in blocks, at bounded memory, with every hole accounted for.

A path is opened by us and handed over as a stream, with a list of allowed containers and a refusing `io_open`: a
playlist inside a file must never make the reader open another file or address.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.packet import Packet
from av.stream import Discard

from speech.containers import (
    ALLOWED_FORMATS,
    MediaInfo,
    check_plausible,
    declared_end_s,
    is_adts,
    is_credible,
    is_plausible,
    media_info,
    mp3_declared_s,
    why_unreadable,
)
from speech.errors import (
    DamagedMedia,
    EmptyMedia,
    MediaError,
    NoAudioSamples,
    NoAudioTrack,
    NoSuchTrack,
    NotMedia,
    UnsupportedCodec,
)
from speech.mono import SAMPLE_RATE_HZ, Pcm, Samples
from speech.timeline import Clock
from speech.track_decoder import FailedSpan, TrackDecoder, packet_decoder
from speech.wav import RangesReader, wav_claim

__all__ = [
    "SAMPLE_RATE_HZ",
    "BinaryReader",
    "Block",
    "FailedSpan",
    "MediaFile",
    "MediaReader",
    "MediaSource",
    "Samples",
    "open_container",
    "open_source",
]

READ_BUFFER_BYTES = 256 * 1024
"""Per read of the source. An object store answers each with one range request."""
MAX_DEMUX_ERRORS = 100
"""In a row, without one packet between: after that the rest of the file is given up."""


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
    pcm: Pcm | None = None
    """The same in 16 bits, where that is what they were made from."""


class SourceReader:
    """What the decoder library reads from: always `bytes`, a known size, no name from which it could guess."""

    def __init__(self, raw: BinaryReader) -> None:
        self._raw = raw
        raw.seek(0, os.SEEK_END)
        self.size_bytes = raw.tell()
        raw.seek(0)

    @property
    def descriptor(self) -> int | None:
        """Of a plain file that another process could read; None for anything else."""
        if type(self._raw) in (io.FileIO, io.BufferedReader):  # no subclass, which may read otherwise
            return cast("io.FileIO", self._raw).fileno()
        return None

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


class MediaFile:
    """A media file that is open. A context manager.

    Raises a `MediaError` subclass on opening what cannot be read. Errors of the source itself (a lost connection) pass
    through untouched, here and later: they say nothing of the file.
    """

    def __init__(self, source: MediaSource, *, name: str) -> None:
        self.name = name
        self._closing = ExitStack()
        try:
            reader = open_source(source, self._closing)
            self._size_bytes = reader.size_bytes
            if self._size_bytes == 0:
                raise EmptyMedia(name)
            self._head = reader.read(4096)
            claim = wav_claim(reader)
            self._header_end_s = claim.declared_s if claim else mp3_declared_s(reader)
            self._unread_s = claim.unread_s if claim else 0.0
            options = dict[str, str]()
            if claim is None and is_adts(reader):
                # the parser hides which bytes were skipped: see Clock.met
                options = {"fflags": "+noparse"}
            reader.seek(0)
            if claim is not None and claim.ranges is not None:
                reader, options = SourceReader(RangesReader(reader, claim.ranges)), {"ignore_length": "1"}
            try:
                self.container = open_container(reader, buffer_bytes=READ_BUFFER_BYTES, options=options)
            except av.error.FFmpegError as error:
                raise why_unreadable(self._head, name) from error
            self._closing.enter_context(self.container)
            self.tracks: tuple[AudioStream, ...] = self.container.streams.audio
            if not self.tracks:
                pictures = self.container.streams.video
                what = "it has pictures but no sound" if pictures else "it has no sound track"
                raise NoAudioTrack(name, what)
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened here; a reader given stays its owner's."""
        self._closing.close()

    def track(self, number: int | None) -> AudioStream:
        """A track by number, counted from 0. None: the container's best, or the first that can be decoded at all."""
        if number is None:
            best = self.container.streams.best("audio")
            stream = best if isinstance(best, AudioStream) else self.tracks[0]
            if not _can_be_read(stream):
                stream = next(filter(_can_be_read, self.tracks), stream)
        elif 0 <= number < len(self.tracks):
            stream = self.tracks[number]
        else:
            raise NoSuchTrack(self.name, f"it has {len(self.tracks)} audio track(s), and no track {number}")
        if stream.codec_context is None:
            raise UnsupportedCodec(self.name, "there is no decoder for its sound")
        check_plausible(self.name, stream.codec_context.sample_rate, stream.codec_context.channels)
        return stream

    def decoder(self, stream: AudioStream, *, in_step: bool = False) -> TrackDecoder:
        """A decoder for one of the tracks. `in_step` where others are read with it: long gaps in one are then gaps."""
        end_s = self._header_end_s or declared_end_s(self.container, stream, self._size_bytes)
        believed_until_s = end_s
        if in_step and self.container.duration is not None:
            whole_s = self.container.duration / 1_000_000
            believed_until_s = whole_s if is_credible(whole_s, self._size_bytes) else end_s
        clock = Clock(self.container, stream, believed_until_s, in_step=in_step)
        return TrackDecoder(
            packet_decoder(stream), clock, name=self.name, end_s=end_s, unread_s=self._unread_s
        )

    def packets(
        self, streams: Sequence[AudioStream], note_error: Callable[[], None]
    ) -> Iterator[Packet[AudioStream]]:
        """Packets of `streams` to the end of the file, going on after a demuxer's error where that can be done."""
        wanted = {stream.index for stream in streams}
        for other in self.container.streams:
            if other.index not in wanted:
                other.discard = Discard.all
        n_errors = 0
        while n_errors < MAX_DEMUX_ERRORS:
            try:
                for packet in self.container.demux(*streams):
                    n_errors = 0
                    yield packet  # type: ignore[misc]
                return
            except IndexError:
                # a packet, now read, of a track that began after the file was opened: not ours
                continue
            except av.error.FFmpegError:
                n_errors += 1
                note_error()

    def why_nothing_decoded(self, *, had_error: bool) -> MediaError:
        """The error for a file of whose sound nothing could be decoded."""
        if not had_error:
            return NoAudioSamples(self.name, "its sound track holds no samples")
        judged = why_unreadable(self._head, self.name)
        if type(judged) is NotMedia:  # random bytes can pass a demuxer's guess, and then decode to nothing
            return judged
        return DamagedMedia(self.name, "none of its audio could be decoded")


def _can_be_read(stream: AudioStream) -> bool:
    context = stream.codec_context
    return context is not None and is_plausible(context.sample_rate, context.channels)


class MediaReader:
    """One audio track of one media file, read once from start to end. A context manager.

    Time 0 is where the container starts; a track that begins later than its video has silence before it.
    Raises what `MediaFile` does on opening, and a `MediaError` subclass from `blocks` where nothing was decoded.
    """

    def __init__(self, source: MediaSource, *, name: str, audio_track: int | None = None) -> None:
        """`audio_track` counts from 0 among the audio tracks; None takes the container's best."""
        self._media = MediaFile(source, name=name)
        try:
            self._stream = self._media.track(audio_track)
            self.info: MediaInfo = media_info(self._media.container, self._stream)
            self._decoder = self._media.decoder(self._stream)
        except BaseException:
            self._media.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._media.close()

    @property
    def failed(self) -> tuple[FailedSpan, ...]:
        """Holes found so far, in order, never touching one another; complete once `blocks` is exhausted."""
        return self._decoder.failed

    @property
    def n_samples(self) -> int:
        """16 kHz samples given so far; the duration once `blocks` is exhausted."""
        return self._decoder.n_samples

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

    def _pieces(self) -> Iterator[Samples]:
        decoder = self._decoder
        for packet in self._media.packets([self._stream], decoder.note_demuxer_error):
            yield from decoder.push(packet)
        yield from decoder.finish()
        if not decoder.n_decoded:
            raise self._media.why_nothing_decoded(had_error=decoder.had_error)


def _refuse_to_open(url: str, *_args: object) -> NoReturn:
    raise PermissionError(f"a media file may not open another file or address ({url!r})")
