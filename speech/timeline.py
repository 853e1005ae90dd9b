"""Where decoded audio belongs in time: the file's timestamps, believed as far as they deserve it.

A packet that fails leaves a hole of its own length. Raw streams (mp3, aac, ac3) have no timestamps and the demuxer
counts packets instead, so there a broken packet's bytes tell how long it was.
"""

from __future__ import annotations

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.packet import Packet

from speech.containers import COUNTED_FORMATS

JITTER_S = 0.08
"""A timestamp off by less than this is the container's rounding, not a hole."""
JITTER_AFTER_ERROR_S = 0.004
"""After a packet that failed, one lost frame (20-26 ms) must show."""
SKIPPING_FORMATS = frozenset({"aac"})
"""Counted formats whose demuxer leaves out what it cannot parse without a packet for it: only positions tell."""
MAX_GAP_S = 60.0
"""A forward jump beyond this, that the header does not confirm, is a spliced stream and not lost audio."""


class Clock:
    """Where the next sample belongs, in seconds from the container's start, judged by the file's timestamps."""

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        believed_until_s: float | None,
        *,
        in_step: bool = False,
    ) -> None:
        """Jumps of more than `MAX_GAP_S` are believed up to `believed_until_s`; of a track that is read in step with
        others, its first too."""
        self.next_s = 0.0
        self.had_error = False
        self.reason: str | None = None
        self._counted = container.format.name in COUNTED_FORMATS
        self._skips = container.format.name in SKIPPING_FORMATS
        self._next_byte: int | None = None
        self._believed_until_s = believed_until_s
        self._in_step = in_step
        self._started = False
        self._error_pending = False
        self._lost_s = 0.0
        self._shift_s = 0.0
        self._good_bytes = self._good_ticks = 0
        self._tick_s = float(stream.time_base or 0)
        self._origin_s = container.start_time / 1_000_000 if container.start_time is not None else None

    @property
    def lost_until_s(self) -> float:
        return self.next_s + self._lost_s if self._error_pending else self.next_s

    def met(self, packet: Packet[AudioStream]) -> None:
        """Note a packet before it is decoded: what lies between it and the one before was skipped."""
        if not self._skips or packet.pos is None or packet.pos < 0 or not packet.size:
            return
        if self._next_byte is not None and self._good_bytes and self._good_ticks:
            skipped_s = (packet.pos - self._next_byte) * self._good_s_per_byte
            if skipped_s > (packet.duration or 0) * self._tick_s / 2:  # less is a tag, or padding
                self.had_error = self._error_pending = True
                self._shift_s += skipped_s
                self._lost_s += skipped_s
        self._next_byte = packet.pos + packet.size

    def decoded(self, packet: Packet[AudioStream]) -> None:
        """Learn the bytes per second from a good packet."""
        self._good_bytes += packet.size
        self._good_ticks += packet.duration or 0

    def lost(self, packet: Packet[AudioStream]) -> None:
        """Note a packet that did not decode. Where time is only counted, its size tells how long it was."""
        self.had_error = self._error_pending = True
        duration_s = (packet.duration or 0) * self._tick_s
        if self._counted and self._good_bytes:
            by_size_s = packet.size * self._good_s_per_byte
            if by_size_s > 2 * duration_s:
                self._shift_s += by_size_s - duration_s
                duration_s = by_size_s
        self._lost_s += duration_s

    def follows(self, frame: AudioFrame) -> bool:
        """Count `frame` if it follows on the one before, nothing lost between them, as nearly all do. Where it does
        not, nothing is changed: see `hole_before`."""
        pts = frame.pts
        if pts is None or self._origin_s is None or self._error_pending or not self._started:
            return False
        gap_s = pts * self._tick_s - self._origin_s + self._shift_s - self.next_s
        if not -JITTER_S <= gap_s <= JITTER_S:
            return False
        self.next_s += frame.samples / frame.sample_rate
        return True

    def hole_before(self, frame: AudioFrame) -> float:
        """Seconds of zeros that belong before `frame`; 0.0 if it follows on. `reason` says what they are."""
        if frame.pts is None or not self._tick_s:
            at_s = self.next_s + self._lost_s
        else:
            # in the stream's own ticks, as a float: exact fractions per frame take as long as decoding it
            raw_s = frame.pts * self._tick_s
            if self._origin_s is None:
                self._origin_s = raw_s
            at_s = raw_s - self._origin_s + self._shift_s
        gap_s = at_s - self.next_s
        jitter_s = JITTER_AFTER_ERROR_S if self._error_pending else JITTER_S
        self.reason = "decode_error" if self._error_pending else "missing_audio"
        if not self._started and not self._error_pending:
            self.reason = None
        if not self._believes(at_s, gap_s):
            lost_s = min(self._lost_s, MAX_GAP_S)
            self._shift_s -= gap_s - lost_s
            gap_s = lost_s
        return gap_s if gap_s > jitter_s else 0.0

    def advance(self, frame: AudioFrame, hole_s: float) -> None:
        """Count `frame` as placed after `hole_s` of zeros."""
        self.next_s += hole_s + frame.samples / frame.sample_rate
        self._started = True
        self._error_pending = False
        self._lost_s = 0.0

    @property
    def _good_s_per_byte(self) -> float:
        """Of the packets that were decoded."""
        return self._good_ticks * self._tick_s / self._good_bytes

    def _believes(self, at_s: float, gap_s: float) -> bool:
        """Whether the file's clock can be believed; where not, the stream was spliced and goes on from here."""
        if gap_s < -JITTER_S:
            return False
        confirmed = self._believed_until_s is not None and at_s <= self._believed_until_s + 1
        return gap_s <= MAX_GAP_S or (confirmed and (self._started or self._in_step))
