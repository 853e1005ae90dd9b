"""The benchmark scripts run to their end and say the same texts are the same: nobody should find that out on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
    assert ours["mxf"]["audio_s"] == 30
    assert ours["long"]["audio_s"] >= 180
    assert {row["format"] for row in content["rows"] if row["way"] == "pydub"} >= {"wav"}
    wav = next(row for row in content["rows"] if (row["way"], row["format"]) == ("pydub", "wav"))
    assert wav["peak_children_mb"] == 0, "pydub reads wav itself"
    assert finished.returncode == int(not all(aim["met"] for aim in content["aims"]))
