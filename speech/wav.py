"""What a wav's chunks claim, held against the file: sizes that lie, sound behind the end, several files in one.

The decoder library believes the header: it cuts a claim that is too long to the file, so that a broken copy passes for
whole, and stops at one that is too short, so that the sound behind is lost without a word. Recorders that crashed and
files joined with `cat` are both in archives. Layouts: RIFF (1991) and EBU Tech 3306 (RF64).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from speech.containers import SizedReader, is_credible

MIN_UNCLAIMED_S = 0.1
"""Less than this behind the last chunk is padding or a tag."""
MAX_PARTS = 1000
"""Wavs joined in one file; what is behind them is left unread."""
MAX_CHUNKS = 64
_LINEAR_TAGS = {1, 3, 6, 7, 0xFFFE}
"""PCM, float, A-law, mu-law and the extensible form: bytes per second follow from rate, channels and bits."""


@dataclass(frozen=True)
class WavClaim:
    """What to make of a wav's header."""

    declared_s: float | None
    """Seconds of sound that must be there; None where the header says nothing, or nothing credible."""
    ranges: tuple[tuple[int, int], ...] | None
    """Byte ranges [start, end) to be read as one wav without regard to its sizes; None to read the file as it is."""
    unread_s: float
    """Seconds of joined wavs of another format, which are not read."""


@dataclass(frozen=True)
class _Part:
    format_body: bytes
    byte_rate: float
    data_start: int
    data_bytes: int | None
    """As declared; None where live encoders leave 0 or 0xFFFFFFFF."""
    is_long: bool

    def end(self, size_bytes: int) -> int:
        return size_bytes if self.data_bytes is None else min(self.data_start + self.data_bytes, size_bytes)

    def seconds(self, size_bytes: int) -> float:
        return (self.end(size_bytes) - self.data_start) / self.byte_rate if self.byte_rate else 0.0


def wav_claim(reader: SizedReader) -> WavClaim | None:
    """Read the chunks of a wav, BWF or RF64; None if it is none. The reader is left anywhere."""
    size = reader.size_bytes
    first = _part_at(reader, 0)
    if first is None:
        return None
    if first.data_bytes is None:
        return WavClaim(None, ((0, size),) if first.is_long else None, 0.0)
    declared_s = first.data_bytes / first.byte_rate if first.byte_rate else None
    parts = [first]
    behind = _skip_chunks(reader, first.end(size) + first.data_bytes % 2)
    while behind < size and len(parts) < MAX_PARTS:
        follower = _part_at(reader, behind)
        if follower is None:
            break
        parts.append(follower)
        behind = _skip_chunks(reader, follower.end(size) + (follower.data_bytes or 0) % 2)
    if any(part.format_body != first.format_body for part in parts):
        return WavClaim(declared_s, None, sum(part.seconds(size) for part in parts[1:]))
    if len(parts) > 1:
        spans = [(part.data_start, part.end(size)) for part in parts]
        return WavClaim(None, ((0, spans[0][1]), *spans[1:]), 0.0)
    if first.byte_rate and size - behind > MIN_UNCLAIMED_S * first.byte_rate:
        return WavClaim(None, ((0, size),), 0.0)
    return WavClaim(declared_s if declared_s and is_credible(declared_s, size) else None, None, 0.0)


def _part_at(reader: SizedReader, position: int) -> _Part | None:
    reader.seek(position)
    head = reader.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    is_long = head[:4] == b"RF64"
    position += 12
    format_body, byte_rate, long_bytes, fact_samples = b"", 0.0, 0, 0
    for _ in range(MAX_CHUNKS):
        reader.seek(position)
        header = reader.read(8)
        if len(header) < 8:
            return None
        kind, n_bytes = header[:4], struct.unpack("<I", header[4:])[0]
        if kind == b"data":
            if n_bytes == 0xFFFFFFFF:
                n_bytes = long_bytes
            if not byte_rate and fact_samples and format_body:
                rate_hz = struct.unpack("<I", format_body[4:8])[0]
                byte_rate = n_bytes * rate_hz / fact_samples
            return _Part(format_body, byte_rate, position + 8, n_bytes or None, is_long)
        body = reader.read(16)
        if kind == b"ds64" and len(body) == 16:
            long_bytes = struct.unpack("<Q", body[8:16])[0]
        elif kind == b"fact" and len(body) >= 4:
            fact_samples = struct.unpack("<I", body[:4])[0]
        elif kind == b"fmt " and len(body) == 16:
            format_body, byte_rate = body, _byte_rate(body)
        position += 8 + n_bytes + n_bytes % 2
    return None


def _byte_rate(format_body: bytes) -> float:
    tag, channels, rate_hz, byte_rate, _, bits = struct.unpack("<HHIIHH", format_body)
    return float(rate_hz * channels * bits / 8) if tag in _LINEAR_TAGS and bits else float(byte_rate)


def _skip_chunks(reader: SizedReader, position: int) -> int:
    """Where, from `position` on, chunks and tags end; the file's size where they fill it."""
    size = reader.size_bytes
    for _ in range(MAX_CHUNKS):
        reader.seek(position)
        header = reader.read(8)
        if len(header) < 8 or header[:3] in (b"ID3", b"TAG"):
            return size
        kind, n_bytes = header[:4], struct.unpack("<I", header[4:])[0]
        is_chunk = all(32 <= byte < 127 for byte in kind) and kind not in (b"RIFF", b"RF64")
        if not is_chunk or position + 8 + n_bytes > size:
            return position
        position = min(size, position + 8 + n_bytes + n_bytes % 2)
    return position


class RangesReader:
    """Byte ranges of a reader, one after the other, as one seekable file."""

    def __init__(self, reader: SizedReader, ranges: tuple[tuple[int, int], ...]) -> None:
        self._reader = reader
        self._ranges = ranges
        self._at = 0
        self._size = sum(end - start for start, end in ranges)

    def read(self, n_bytes: int, /) -> bytes:
        """Up to `n_bytes`, fewer at the end of a range."""
        before = 0
        for start, end in self._ranges:
            if self._at < before + end - start:
                offset = self._at - before
                self._reader.seek(start + offset)
                content = self._reader.read(min(n_bytes, end - start - offset))
                self._at += len(content)
                return content
            before += end - start
        return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at
