"""The working copy gives back any span, sample for sample, without reading the rest."""

import io
from pathlib import Path

import numpy as np
import pytest

from speech.cut import Span
from speech.errors import DamagedMedia
from speech.mono import to_int16
from speech.working_copy import WorkingCopyWriter, read_span, read_spans
from tests.speech.media_files import Floats, sweep

DURATION_S = 600


@pytest.fixture(scope="module")
def samples() -> Floats:
    return np.tile(sweep(60), DURATION_S // 60) * np.linspace(0.1, 1.4, DURATION_S * 16000, dtype=np.float32)


@pytest.fixture(scope="module")
def copy(samples: Floats, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("copy") / "copy.flac"
    with WorkingCopyWriter(path) as writer:
        for at in range(0, len(samples), 64_321):
            writer.write(samples[at : at + 64_321])
    assert [entry.name for entry in path.parent.iterdir()] == ["copy.flac"]
    return path


def as_kept(samples: Floats) -> Floats:
    return to_int16(samples).astype(np.float32) / 32768


def test_random_spans_the_start_and_the_end_are_exact(samples: Floats, copy: Path) -> None:
    rng = np.random.default_rng(0)
    spans = [
        Span(0, 1),
        Span(0, 480_000),
        Span(len(samples) - 1, len(samples)),
        Span(len(samples) - 99_999, len(samples)),
    ]
    for _ in range(25):
        start = int(rng.integers(0, len(samples) - 1))
        spans.append(Span(start, min(len(samples), start + int(rng.integers(1, 480_000)))))
    for span, found in zip(spans, read_spans(copy, spans), strict=True):
        np.testing.assert_array_equal(found, as_kept(samples[span.start_sample : span.end_sample]))
    np.testing.assert_array_equal(read_span(copy, 5, 9), as_kept(samples[5:9]))


@pytest.mark.parametrize("n_samples", [1, 1000, 1152, 1153, 5167, 8811, 9216, 9217, 12_508, 20_031, 65_025])
def test_short_copies_and_the_last_moments_are_exact(n_samples: int, tmp_path: Path) -> None:
    """A span may begin in the last frames, and be read after one that ended there."""
    rng = np.random.default_rng(n_samples)
    samples = (rng.standard_normal(n_samples) * 0.1).astype(np.float32)
    with WorkingCopyWriter(tmp_path / "copy.flac") as writer:
        writer.write(samples)
    starts = [0, *range(max(0, n_samples - 5000), n_samples, 97), n_samples - 1]
    spans = [Span(start, min(n_samples, start + 700)) for start in starts]
    for span, found in zip(spans, read_spans(tmp_path / "copy.flac", spans), strict=True):
        np.testing.assert_array_equal(found, as_kept(samples[span.start_sample : span.end_sample]))
        alone = read_span(tmp_path / "copy.flac", span.start_sample, span.end_sample)
        np.testing.assert_array_equal(alone, found)


def test_a_span_is_read_without_the_file(copy: Path) -> None:
    class Counting(io.FileIO):
        n_bytes = n_reads = 0

        def read(self, n_bytes: int | None = -1, /) -> bytes:
            data = super().read(n_bytes)
            self.n_bytes += len(data)
            self.n_reads += 1
            return data

    for start in (0, 7_777_777, 16000 * (DURATION_S - 10)):
        with Counting(copy) as reader:
            read_span(reader, start, start + 160_000)
            span_bytes = copy.stat().st_size * 10 // DURATION_S
            assert reader.n_bytes < 2 * span_bytes + 400_000
            assert reader.n_reads < 50


def test_outside_and_damage_are_told(copy: Path, samples: Floats, tmp_path: Path) -> None:
    for start, end in ((-1, 5), (5, 5), (0, len(samples) + 1)):
        with pytest.raises(ValueError, match="not within"):
            read_span(copy, start, end)
    cut = tmp_path / "cut.flac"
    cut.write_bytes(copy.read_bytes()[:200_000])
    with pytest.raises(DamagedMedia):
        read_span(cut, len(samples) - 16000, len(samples))
    cut.write_bytes(b"no flac")
    with pytest.raises(DamagedMedia):
        read_span(cut, 0, 1)


def test_nothing_is_left_of_a_copy_that_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), WorkingCopyWriter(tmp_path / "copy.flac") as writer:  # noqa: PT012
        writer.write(np.zeros(100, np.float32))
        raise KeyError
    assert list(tmp_path.iterdir()) == []
