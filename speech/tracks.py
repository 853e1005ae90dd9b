"""Files with several sound tracks: excerpts of each to choose by, and all of them mixed into one.

MXF and broadcast video often hold every channel as a track of its own: programme sound on some, international sound,
a commentary or nothing on others. Both ways read the file through one container, however many tracks it has: its index
is in memory once, and its bytes are fetched once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Literal, Protocol, Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.packet import Packet
from av.stream import Discard

from speech.audio import (
    READ_BUFFER_BYTES,
    Block,
    FailedSpan,
    MediaFile,
    MediaReader,
    MediaSource,
    open_container,
    open_source,
)
from speech.containers import MediaInfo, is_plausible, media_info
from speech.errors import TracksApart, UnsupportedCodec
from speech.mono import SAMPLE_RATE_HZ, Run, Samples, mix_channels
from speech.track_decoder import TrackDecoder, packet_decoder

MICROSECONDS = 1_000_000
"""In a second: the unit of a container's own times."""

EXCERPTS = 16
EXCERPT_S = 8
"""Every track is judged by so many excerpts of so many seconds, spread over the recording."""
MAX_EXCERPT_PACKETS = 100_000
"""Read for one excerpt at most, of all tracks together: where packets have no time, it ends."""

MAX_WAITING_SAMPLES = 16_000_000
"""Of all tracks together (64 MB), decoded and waiting for a track that has given nothing yet: 17 minutes of one track,
1 of 16. Containers hold what is heard together within a second or two, so a track that is further behind is silent
there, or has ended."""
SILENT_RMS = 1e-3
"""-60 dB: a track counts in the mix's level from the first block that is louder."""


class DecodedMedia(Protocol):
    """One recording's audio, read once from start to end. A context manager; see `MediaReader` for each."""

    info: MediaInfo

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    @property
    def failed(self) -> tuple[FailedSpan, ...]: ...
    @property
    def n_samples(self) -> int: ...
    def blocks(self) -> Iterator[Block]: ...


def open_reader(source: MediaSource, *, name: str, audio_track: int | Literal["mix"] | None) -> DecodedMedia:
    """A reader of one track, of all mixed, or (None) of the container's best. Raises what `MediaReader` does."""
    if audio_track == "mix":
        return MixedReader(source, name=name)
    return MediaReader(source, name=name, audio_track=audio_track)


class MixedReader:
    """All tracks of one file that can be decoded, mixed. A context manager with what `MediaReader` has.

    The mix is the sum over the number of tracks that have been heard so far, so that silent ones cost no level. As with
    channels (`speech.mono`), where tracks cancel each other out it is the loudest alone. A span has failed where every
    track has failed or ended; where one of them could be decoded, it is heard. `blocks` raises, beside what
    `MediaReader` does, `TracksApart` for a file whose tracks lie behind one another.
    """

    def __init__(self, source: MediaSource, *, name: str) -> None:
        self._media = MediaFile(source, name=name)
        try:
            # figures may be 0 where a track begins late: its frames will tell
            self._lanes = {
                stream.index: _Lane(self._media.decoder(stream, in_step=True), number)
                for number, stream in enumerate(self._media.tracks)
                if (context := stream.codec_context) is not None
                and is_plausible(context.sample_rate or SAMPLE_RATE_HZ, context.channels or 1)
            }
            if not self._lanes:
                raise UnsupportedCodec(name, "there is no decoder for its sound")
            self._streams = [stream for stream in self._media.tracks if stream.index in self._lanes]
            self.info = replace(
                media_info(self._media.container, self._streams[0]),
                audio_track=None,
                tracks_mixed=tuple(lane.number for lane in self._lanes.values()),
            )
        except BaseException:
            self._media.close()
            raise
        self._n_samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._media.close()

    @property
    def n_samples(self) -> int:
        """See `MediaReader`."""
        return self._n_samples

    @property
    def failed(self) -> tuple[FailedSpan, ...]:
        """See `MediaReader`. Known once `blocks` is exhausted."""
        decoders = [lane.decoder for lane in self._lanes.values() if lane.decoder.n_decoded]
        common: Sequence[FailedSpan] = [FailedSpan(0, self._n_samples, "decode_error")]
        for decoder in sorted(decoders, key=lambda decoder: decoder.n_samples):
            end = FailedSpan(decoder.n_samples, self._n_samples, "truncated")
            common = _overlap(common, [*decoder.failed, end])
        return tuple(common)

    def blocks(self, block_samples: int = 4 * SAMPLE_RATE_HZ) -> Iterator[Block]:
        """See `MediaReader`."""
        lanes = list(self._lanes.values())
        patience_samples = max(block_samples, MAX_WAITING_SAMPLES // len(lanes))

        def note_error() -> None:
            for lane in lanes:
                lane.decoder.note_demuxer_error()

        for packet in self._media.packets(self._streams, note_error):
            lane = self._lanes[packet.stream.index]
            for piece in lane.decoder.push(packet):
                lane.put(piece)
                yield from self._ready(lanes, block_samples, patience_samples)
        for lane in lanes:
            for piece in lane.decoder.finish():
                lane.put(piece)
                yield from self._ready(lanes, block_samples, patience_samples)
        while n_left := max(lane.n_waiting for lane in lanes):
            yield self._mixed(lanes, min(block_samples, n_left))
        if not any(lane.decoder.n_decoded for lane in lanes):
            raise self._media.why_nothing_decoded(had_error=any(lane.decoder.had_error for lane in lanes))

    def _ready(self, lanes: Sequence[_Lane], block_samples: int, patience_samples: int) -> Iterator[Block]:
        """Whole blocks of which every track has its part, or must be taken to have none."""
        while (
            min(lane.n_waiting for lane in lanes) >= block_samples
            or max(lane.n_waiting for lane in lanes) > patience_samples
        ):
            yield self._mixed(lanes, block_samples)

    def _mixed(self, lanes: Sequence[_Lane], n_samples: int) -> Block:
        parts = [lane.take(n_samples) for lane in lanes]
        n_heard = max(1, sum(lane.is_heard for lane in lanes))
        block = Block(self._n_samples, mix_channels(parts, [1 / n_heard] * len(lanes), planar=True))
        self._n_samples += n_samples
        return block


class _Lane:
    """One track on its way into the mix: what is decoded and not mixed yet."""

    def __init__(self, decoder: TrackDecoder, number: int) -> None:
        self.decoder = decoder
        self.number = number
        """Counted from 0 among the audio tracks."""
        self.n_waiting = 0
        self.is_heard = False
        self._pieces: deque[Samples] = deque()
        self._n_passed_over = 0

    def put(self, piece: Samples) -> None:
        """Append decoded samples. Those that were taken to be silence must be."""
        late, piece = piece[: self._n_passed_over], piece[self._n_passed_over :]
        if late.any():
            raise TracksApart(
                self.decoder.name,
                f"its sound tracks lie behind one another in the file (track {self.number} far from the others), so "
                "that they cannot be mixed",
            )
        self._n_passed_over -= len(late)
        if len(piece):
            self._pieces.append(piece)
            self.n_waiting += len(piece)

    def take(self, n_samples: int) -> Samples:
        """The next samples, shape (n_samples,): silence where there are none."""
        taken: Samples = np.zeros(n_samples, np.float32)
        n_have = 0
        while self._pieces and n_have < n_samples:
            piece = self._pieces.popleft()
            part, rest = piece[: n_samples - n_have], piece[n_samples - n_have :]
            taken[n_have : n_have + len(part)] = part
            n_have += len(part)
            if len(rest):
                self._pieces.appendleft(rest)
        self.n_waiting -= n_have
        self._n_passed_over += n_samples - n_have
        self.is_heard = self.is_heard or float(np.dot(taken, taken)) > SILENT_RMS**2 * n_samples
        return taken


def _overlap(first: Sequence[FailedSpan], second: Sequence[FailedSpan]) -> list[FailedSpan]:
    """Where spans of both lie, with the second's reasons; each is in order."""
    common: list[FailedSpan] = []
    mine, others = deque(first), deque(second)
    while mine and others:
        one, other = mine[0], others[0]
        start, end = max(one.start_sample, other.start_sample), min(one.end_sample, other.end_sample)
        if start < end:
            if common and common[-1].end_sample == start:
                start = common.pop().start_sample
            common.append(FailedSpan(start, end, other.reason))
        (mine if one.end_sample <= other.end_sample else others).popleft()
    return common


def probe_tracks(source: MediaSource, *, name: str) -> Iterator[tuple[int, Samples]]:
    """Excerpts of every audio track that can be decoded: (track, counted from 0; 16 kHz mono samples).

    They lie spread over the recording where it can be sought in, else at its beginning. What is damaged is left out.
    """
    with ExitStack() as closing:
        reader = open_source(source, closing)
        try:
            container = closing.enter_context(open_container(reader, buffer_bytes=READ_BUFFER_BYTES))
        except av.error.FFmpegError:
            return
        tracks = {
            stream.index: number
            for number, stream in enumerate(container.streams.audio)
            if stream.codec_context is not None
        }
        for stream in container.streams:
            if stream.index not in tracks:
                stream.discard = Discard.all
        streams = [stream for stream in container.streams.audio if stream.index in tracks]
        if not streams:
            return
        duration_s = (container.duration or 0) / MICROSECONDS
        places_s = [(number + 0.5) / EXCERPTS * duration_s for number in range(EXCERPTS)]
        length_s = EXCERPT_S
        if duration_s < 2 * EXCERPTS * EXCERPT_S:
            places_s, length_s = [0.0], 2 * EXCERPTS * EXCERPT_S
        for place_s in places_s:
            try:
                if place_s:
                    container.seek(int(place_s * MICROSECONDS) + (container.start_time or 0))
            except av.error.FFmpegError:
                continue
            n_samples = 0
            for index, samples in _excerpt(container, streams, length_s):
                n_samples += len(samples)
                yield tracks[index], samples
            if not n_samples:  # nor will there be elsewhere, at the same price
                return


def _excerpt(
    container: InputContainer, streams: list[AudioStream], length_s: int
) -> Iterator[tuple[int, Samples]]:
    """The next seconds of each stream: (index in the container, samples)."""
    decoders = {stream.index: packet_decoder(stream) for stream in streams}
    runs: dict[int, Run] = {}
    heard_s = dict.fromkeys((stream.index for stream in streams), 0.0)
    begun_s: float | None = None
    try:
        for packet in islice(container.demux(streams), MAX_EXCERPT_PACKETS):
            if packet.dts is not None and packet.time_base is not None:
                at_s = float(packet.dts * packet.time_base)
                begun_s = at_s if begun_s is None else begun_s
                if at_s - begun_s > 2 * length_s:
                    break  # a track without packets here must not make this read the whole file
            index = packet.stream.index
            if index not in decoders:
                continue  # of a track that began after the file was opened
            try:
                frames = decoders[index](cast("Packet[AudioStream]", packet))
            except av.error.FFmpegError:
                continue
            for frame in frames:
                if not frame.samples or not frame.sample_rate or heard_s[index] >= length_s:
                    continue
                if index not in runs or not runs[index].takes(frame):
                    if index in runs:
                        yield from ((index, samples) for samples in runs[index].finish())
                    runs[index] = Run(frame)
                heard_s[index] += frame.samples / frame.sample_rate
                if runs[index].push(frame):
                    yield from ((index, samples) for samples in runs[index].drain())
            if min(heard_s.values()) >= length_s:
                break
    except (av.error.FFmpegError, IndexError):  # the second: see `MediaFile.packets`
        pass
    for index, run in runs.items():
        for samples in run.finish():
            yield index, samples
