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
