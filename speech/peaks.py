"""Peaks: what a player draws of a recording's sound before any of it is fetched. BBC audiowaveform's `.dat`, version 2.

A header of 24 bytes, then for every 20 ms the smallest and the greatest sample as two signed bytes. peaks.js reads it
as it is, and so does anything built on the BBC's `waveform-data`. Values of 16 bits are divided by 256 towards zero, as
audiowaveform does, so that silence is a line. docs/decisions/0029 says why this form.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speech.audio import SAMPLE_RATE_HZ, Samples
from speech.mono import Pcm, as_int16
from speech.partial_file import PartialFile

PEAK_SAMPLES = 320
"""Samples that each pair stands for: 50 pairs a second, 352 KiB an hour."""
HEADER = struct.Struct("<iIiiIi")
"""Version, flags, samples per second, samples per pair, pairs, channels."""
VERSION, FLAG_8_BITS = 2, 1


class PeaksWriter(PartialFile):
    """Writes peaks block by block, at the memory of a block. A context manager: the file appears at `path` only when
    all went well."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = self._partial.open("wb")
        self._file.write(bytes(HEADER.size))
        self._rest = np.empty(0, np.int16)
        self.n_pairs = 0

    def write(self, samples: Samples | Pcm) -> None:
        """Append 16 kHz mono samples, shape (n,); beyond [-1, 1) they are clipped, as in the working copy."""
        joined = np.concatenate([self._rest, as_int16(samples)])
        n_whole = len(joined) - len(joined) % PEAK_SAMPLES
        self._append(joined[:n_whole].reshape(-1, PEAK_SAMPLES))
        self._rest = joined[n_whole:].copy()

    def _finish(self) -> None:
        """The last pair may stand for fewer samples."""
        if len(self._rest):
            self._append(self._rest[None])
        self._file.seek(0)
        self._file.write(HEADER.pack(VERSION, FLAG_8_BITS, SAMPLE_RATE_HZ, PEAK_SAMPLES, self.n_pairs, 1))

    def _release(self) -> None:
        self._file.close()

    def _append(self, rows: npt.NDArray[np.int16]) -> None:
        """A pair for each row."""
        pairs = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1) if len(rows) else rows[:, :2]
        self._file.write(np.trunc(pairs / 256).astype(np.int8).tobytes())
        self.n_pairs += len(rows)
