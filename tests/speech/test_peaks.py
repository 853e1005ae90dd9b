"""Peaks draw the sound that is there: in the form that players read, whatever the blocks, at the memory of a block."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from speech.mono import to_int16
from speech.peaks import PeaksWriter
from speech.split import split_media
from speech.working_copy import read_span
from tests.speech.media_files import wav


def noise(duration_s: float) -> np.ndarray:
    """Samples between -1 and 1, shape (n,), the same every time."""
    return np.random.default_rng(1).uniform(-1, 1, round(duration_s * 16_000)).astype(np.float32)


def pairs_of(content: bytes) -> np.ndarray:
    """Pairs of a `.dat`, read by its public description alone, shape (n, 2)."""
    version, flags, rate_hz, per_pair, n_pairs, channels = struct.unpack("<iIiiIi", content[:24])
    assert (version, flags, rate_hz, per_pair, channels) == (2, 1, 16_000, 320, 1)
    assert len(content) == 24 + 2 * n_pairs
    return np.frombuffer(content, np.int8, offset=24).reshape(-1, 2)


def test_they_draw_the_working_copy(tmp_path: Path) -> None:
    samples = noise(2.53)
    samples[8_000:12_000] = 0
    samples[20_000] = 1.5
    copy, peaks = tmp_path / "a.flac", tmp_path / "a.dat"
    found = split_media(io.BytesIO(wav(samples)), name="a.wav", working_copy=copy, peaks=peaks)
    kept = to_int16(read_span(copy, 0, found.duration_samples)).astype(int)
    drawn = pairs_of(peaks.read_bytes())
    assert len(drawn) == -(-found.duration_samples // 320)
    for place, (least, greatest) in enumerate(drawn):
        piece = kept[place * 320 : (place + 1) * 320]
        assert (least, greatest) == (int(piece.min() / 256), int(piece.max() / 256)), place
    assert not drawn[25:37].any()
    assert drawn[62].tolist()[1] == 127
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.dat", "a.flac"]


@pytest.mark.parametrize("sizes", [[1] * 700, [319, 1, 320, 641], [10_000]])
def test_how_the_sound_comes_in_changes_nothing(tmp_path: Path, sizes: list[int]) -> None:
    samples = noise(sum(sizes) / 16_000)
    for name, blocks in (("whole", [samples]), ("blocks", np.split(samples, np.cumsum(sizes)))):
        with PeaksWriter(tmp_path / name) as writer:
            for block in blocks:
                writer.write(block)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "blocks").read_bytes()


def test_an_hour_takes_the_memory_of_a_block(tmp_path: Path) -> None:
    block, n_blocks = noise(2), 1800
    with PeaksWriter(tmp_path / "hour.dat") as writer:
        writer.write(block)
        tracemalloc.start()
        for _ in range(n_blocks - 1):
            writer.write(block)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "hour.dat").stat().st_size == 24 + 2 * 3600 * 50
    assert most < 10 * block.nbytes


def test_nothing_is_left_of_what_broke_off(tmp_path: Path) -> None:
    with pytest.raises(TypeError), PeaksWriter(tmp_path / "a.dat") as writer:
        writer.write(np.array(["not", "sound"]))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
