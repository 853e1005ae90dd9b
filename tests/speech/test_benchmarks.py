"""The benchmark scripts run to their end and say the same texts are the same: nobody should find that out on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speech.split import Span
from tests.benchmarks.media_recordings import seconds_of_speech
from tests.benchmarks.split_material import Clip, Piece, Recording, Word
from tests.benchmarks.split_measures import compare
from training.synthetic.espeak import EspeakMissing, espeak_version

ROOT = Path(__file__).parents[2]


def _missing() -> str:
    try:
        espeak_version()
    except EspeakMissing as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_the_gpu_course_of_the_engine_benchmark(tmp_path: Path) -> None:
    results = tmp_path / "engine.json"
    command = [
        sys.executable, "-m", "tests.benchmarks.engine", "--course", "full", "--model", "tiny", "--slots", "2", "4",
        "--clips", "5", "--rounds", "1", "--skip-exactness", "--json", str(results),
    ]  # fmt: skip
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "x padded generate()" in finished.stdout.splitlines()[-1], "the table comes last"
    rows = json.loads(results.read_text())["rows"]
    assert {(row["way"], row["batch"]) for row in rows} == {
        ("engine", 2),
        ("engine", 4),
        ("padded", 4),
        ("card", 1),
    }
    for row in rows:
        assert row["same_text"] == row["of"] == 5
        assert row["audio_s"] > 0
        assert row["floor_share"] > 0
        if row["way"] == "engine":
            assert set(row["parts"]) == {"features", "encoder", "prefill", "decode"}


@pytest.mark.slow
def test_the_media_benchmark(tmp_path: Path) -> None:
    results = tmp_path / "media.json"
    command = [
        sys.executable, "-m", "tests.benchmarks.media", "--minutes", "0.5", "--hours", "0.05",
        "--formats", "mp3", "wav", "mxf", "--json", str(results),
    ]  # fmt: skip
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # on so short recordings starting the decoder is most of the time: no speed is asked of it
    assert finished.returncode in (0, 1), finished.stderr[-2000:]
    content = json.loads(results.read_text())
    ours = {row["format"]: row for row in content["rows"] if row["way"] == "ours"}
    assert set(ours) == {"mp3", "wav", "mxf", "long"}, content["failed"]
    for row in ours.values():
        assert row["n_segments"] > 0
        assert row["cpu_children_s"] > 0, "the decoder is a process of its own"
        assert row["peak_children_mb"] > 20
        assert 20 < row["peak_together_mb"] <= row["peak_mb"] + 1
    assert ours["mxf"]["audio_s"] == 30
    assert ours["long"]["audio_s"] >= 180
    assert {row["format"] for row in content["rows"] if row["way"] == "pydub"} >= {"wav"}
    wav = next(row for row in content["rows"] if (row["way"], row["format"]) == ("pydub", "wav"))
    assert wav["peak_children_mb"] == 0, "pydub reads wav itself"
    assert finished.returncode == int(not all(aim["met"] for aim in content["aims"]))


def test_what_a_split_did_is_counted() -> None:
    words = tuple(
        Word(start, start + 8_000, -20.0, "none", "studio", "m1") for start in (16_000, 24_000, 64_000)
    )
    pieces = (Piece(80_000, 144_000, "music", "pad", -20.0), Piece(144_000, 160_000, "music", "pad", -20.0))
    clips = (Clip(200_000, 216_000),)
    recording = Recording(np.zeros(240_000, np.float32), words, clips, pieces)
    segments = (Span(20_000, 24_000), Span(24_000, 40_000), Span(60_000, 96_000), Span(208_000, 220_000))
    found = compare(recording, segments)
    assert [word.n_lost for word in found.words] == [4_000, 0, 0]
    # the second piece is too short to be counted
    assert [(piece.n_samples, piece.n_dropped) for piece in found.pieces] == [(64_000, 48_000)]
    inside = [(one.edge, one.is_shared, one.inside_ms) for one in found.boundaries]
    assert inside[:3] == [("start", False, 250.0), ("end", True, 0.0), ("start", True, 0.0)]
    assert [one[2] for one in inside[3:]] == [0.0] * 4
    assert (found.n_clip_samples, found.n_clip_lost, found.n_boundaries_in_clips) == (16_000, 8_000, 1)
    assert found.n_without_speech == 0
    assert compare(recording, (*segments, Span(230_000, 239_000))).n_without_speech == 1
    assert [word.n_lost for word in compare(recording, ()).words] == [8_000] * 3


@pytest.mark.slow
@pytest.mark.skipif(bool(_missing()), reason=_missing() or "it is there")
def test_the_split_benchmark(tmp_path: Path) -> None:
    results = tmp_path / "split.json"
    command = [
        sys.executable, "-m", "tests.benchmarks.split_quality", "--hours", "0.1", "--json", str(results),
    ]  # fmt: skip
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # so little material says nothing of its aims
    assert finished.returncode in (0, 1), finished.stderr[-2000:]
    content = json.loads(results.read_text())
    assert content["hours"] >= 0.1
    assert content["lost"] < 0.05
    assert content["segments"]["longest_s"] <= 30
    assert {row["group"] for row in content["pieces"]} & {"music", "noise", "silence"}
    assert finished.returncode == int(not all(aim["met"] for aim in content["aims"]))


def test_the_material_depends_on_its_seed_alone() -> None:
    first, again, other = (np.concatenate(list(seconds_of_speech(0.05, seed)), axis=1) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (2, 3 * 48_000)
