"""The full-size check runs at tiny size, and a random checkpoint has the published shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.random_checkpoint import (
    LORA_RANKS,
    count_parameters,
    full_config,
    remote_shapes,
    write_checkpoint,
)

ROOT = Path(__file__).parents[2]


def test_the_full_shape_is_the_published_one() -> None:
    millions = {
        part: count / 1e6
        for part, count in count_parameters(remote_shapes(full_config(), LORA_RANKS["full"])).items()
    }
    assert millions["total"] == pytest.approx(5574, abs=1)
    assert millions["audio_embed"] == pytest.approx(466, abs=1)
    assert millions["speech_lora"] == pytest.approx(461, abs=1)
    assert millions["image_tower"] == pytest.approx(440, abs=5)


def test_a_random_checkpoint_depends_on_its_seed_alone(tmp_path: Path) -> None:
    written = [
        (write_checkpoint(tmp_path / name, size="tiny", layout="native", seed=seed) / "model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, same, other = (file.read_bytes() for file in written)
    assert first == same
    assert first != other


@pytest.mark.slow
def test_every_step_keeps_within_its_memory(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "tests.benchmarks.full_size", "--size", "tiny", "--json", str(result)]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "work")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(result.read_text())
    assert [step["step"] for step in content["steps"]] == ["write", "inspect", "open", "convert", "reopen"]
    assert content["ok"]
    assert content["logits_equal"]
