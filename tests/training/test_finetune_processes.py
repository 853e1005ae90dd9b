"""Several processes of a run share its work and learn what one alone would."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from speech.checkpoint import open_checkpoint
from tests.training.small_runs import small_settings, write_settings
from training.finetune import finetune
from training.tuning.frozen import is_trained
from training.tuning.run_folder import RunFolder

pytestmark = pytest.mark.slow


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Two, with half the accumulation, see the same optimizer steps as one."""
    steps = {"max_steps": 3, "batch_size": 1, "precision": "float32"}
    off = {"evaluation": {"every_percent": 100, "sample": 2}, "data": {"test_split": ""}}
    alone = small_settings(tmp_path, training={**steps, "accumulation": 4}, **off)
    finetune(replace(alone, run=tmp_path / "alone"))
    two = write_settings(tmp_path, training={**steps, "accumulation": 2}, **off)
    # what `accelerate launch` starts on several GPUs
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*launch, "training.finetune", str(two)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert RunFolder(tmp_path / "run").read("run.json")["decisive"]["inputs"]["n_processes"] == 2
    losses = [
        [line["loss"] for line in RunFolder(tmp_path / name).read("history.json") if "loss" in line]
        for name in ("alone", "run")
    ]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    models = [
        open_checkpoint(tmp_path / name / "model", device="cpu")[0].state_dict() for name in ("alone", "run")
    ]
    start = open_checkpoint(tmp_path / "base", device="cpu")[0].state_dict()
    for name, tensor in models[0].items():
        if is_trained(name):
            moved = (tensor - start[name]).abs().max()
            assert (models[1][name] - tensor).abs().max() <= 0.05 * moved + 1e-5
