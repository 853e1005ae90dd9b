"""One sound track's packets to 16 kHz mono in order, every hole accounted for. Who reads the container pushes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from speech.containers import MAX_CREDIBLE_S
from speech.errors import DamagedMedia
from speech.mono import SAMPLE_RATE_HZ, Run, Samples
from speech.timeline import Clock

MIN_MISSING_TAIL_S = 0.2
FLOATING = {"mp1": "mp1float", "mp2": "mp2float"}
"""Decoders that the library takes by itself and that compute in whole numbers, with those that take half their time."""


def packet_decoder(stream: AudioStream) -> Callable[[Packet[AudioStream]], list[AudioFrame]]:
    """What turns a stream's packets, from one place of it on, into frames; its errors are `av.error.FFmpegError`."""
    quick = FLOATING.get(stream.codec_context.name)
    if quick is None:
        return stream.codec_context.decode
    return cast("AudioCodecContext", AudioCodecContext.create(quick, "r")).decode


@dataclass(frozen=True)
class FailedSpan:
    """Samples [start_sample, end_sample) that could not be decoded; blocks hold zeros there."""

    start_sample: int
    end_sample: int
    reason: str
    """`decode_error` (packets were broken), `missing_audio` (the file's clock jumps), `truncated` (the end) or
    `other_format` (a second recording joined to the first, in a format of its own)."""


class TrackDecoder:
    """Push a track's packets, then finish; audio and zeros for what is lost come out in order.

    `decode` turns a packet into frames; `end_s` is where the track must end by a header that is exact, `unread_s` how
    much follows it in another format. Raises `DamagedMedia` where the track goes on for longer than can be.
    """

    def __init__(
        self,
        decode: Callable[[Packet[AudioStream]], list[AudioFrame]],
        clock: Clock,
        *,
        name: str,
        end_s: float | None = None,
        unread_s: float = 0.0,
    ) -> None:
        self.name = name
        self._decode = decode
        self._end_s = end_s
        self._unread_s = unread_s
        self._clock = clock
        self._run: Run | None = None
        self._failed: list[FailedSpan] = []
        self.n_samples = 0
        """16 kHz samples given so far."""
        self.n_decoded = 0
        """Samples of the file's own rate that were decoded; without any, `finish` gives nothing."""

    @property
    def failed(self) -> tuple[FailedSpan, ...]:
        """Holes found so far, in order, never touching one another."""
        return tuple(self._failed)

    @property
    def had_error(self) -> bool:
        """Whether anything of it could not be read."""
        return self._clock.had_error

    def note_demuxer_error(self) -> None:
        """The container could not be read at this place."""
        self._clock.had_error = True

    def push(self, packet: Packet[AudioStream]) -> Iterable[Samples]:
        """What a packet gives, with the zeros that belong before it."""
        clock, run = self._clock, self._run
        clock.met(packet)
        try:
            frames = self._decode(packet)
        except av.error.FFmpegError:
            clock.lost(packet)
            return ()
        if frames and packet.size:
            clock.decoded(packet)
        # nearly all of the 150,000 packets of an hour are one frame that follows on
        if len(frames) == 1 and run is not None:
            frame = frames[0]
            if frame.samples and run.takes(frame) and clock.follows(frame):
                self.n_decoded += frame.samples
                return self._counted(run.drain()) if run.push(frame) else ()
        return self._placed(frames)

    def _placed(self, frames: list[AudioFrame]) -> Iterator[Samples]:
        """Frames where the clock says that they belong, in a run of their own after a hole or a change of format."""
        for frame in frames:
            if not frame.samples or not frame.sample_rate:
                continue
            self.n_decoded += frame.samples
            hole_s = self._clock.hole_before(frame)
            if self._run is None or hole_s or not self._run.takes(frame):
                if self._run is not None:
                    yield from self._counted(self._run.finish())
                if hole_s:
                    yield from self._hole(self._clock.next_s + hole_s, self._clock.reason)
                self._run = Run(frame)
            self._clock.advance(frame, hole_s)
            if self._run.push(frame):
                yield from self._counted(self._run.drain())

    def finish(self) -> Iterator[Samples]:
        """The rest, and zeros for what is missing at the end."""
        if self._run is not None:
            yield from self._counted(self._run.finish())
        if not self.n_decoded:
            return
        clock = self._clock
        if self._end_s is not None and self._end_s - clock.next_s > MIN_MISSING_TAIL_S:
            yield from self._hole(self._end_s, "truncated")
        elif clock.lost_until_s > clock.next_s:
            yield from self._hole(clock.lost_until_s, "decode_error")
        if self._unread_s:
            yield from self._hole(self.n_samples / SAMPLE_RATE_HZ + self._unread_s, "other_format")

    def _counted(self, pieces: Iterator[Samples]) -> Iterator[Samples]:
        for piece in pieces:
            self.n_samples += len(piece)
            if self.n_samples > MAX_CREDIBLE_S * SAMPLE_RATE_HZ:
                raise DamagedMedia(self.name, f"it goes on for more than {MAX_CREDIBLE_S // 3600} hours")
            yield piece

    def _hole(self, until_s: float, reason: str | None) -> Iterator[Samples]:
        """Zeros up to `until_s`; a failed span unless `reason` is None (silence before a late track)."""
        start, end = self.n_samples, round(until_s * SAMPLE_RATE_HZ)
        if end <= start:
            return
        if reason is not None:
            if self._failed and self._failed[-1].end_sample == start:
                last = self._failed.pop()
                start, reason = last.start_sample, last.reason
            self._failed.append(FailedSpan(start, end, reason))
        if until_s > MAX_CREDIBLE_S:
            raise DamagedMedia(
                self.name,
                f"its timestamps claim more than {MAX_CREDIBLE_S // 3600} hours, most of them without sound",
            )
        while self.n_samples < end:
            n_zeros = min(60 * SAMPLE_RATE_HZ, end - self.n_samples)
            self.n_samples += n_zeros
            yield np.zeros(n_zeros, np.float32)
