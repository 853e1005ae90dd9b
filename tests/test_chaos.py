"""A short run of `make chaos`: a whole system that is hurt again and again loses, doubles and changes nothing."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import pytest

from tests.chaos.alone import told_alone
from tests.chaos.media import write_material
from tests.chaos.run import Plan, run_chaos

pytestmark = pytest.mark.slow

SHORT = Plan(n_faults=10, n_recordings=12, n_media_workers=1, n_gpu_workers=2)


def test_nothing_is_lost_doubled_or_changed_while_parts_of_the_system_die(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "compose.local")
    with tempfile.TemporaryDirectory() as folder:
        expected = told_alone(write_material(Path(folder), SHORT.n_recordings))
    outcome = run_chaos(SHORT, expected, seed=7, say=print)
    assert not outcome.problems
    assert outcome.n_recordings == SHORT.n_recordings
    assert sum(outcome.faults.values()) == SHORT.n_faults
    assert outcome.attempts["done"] >= outcome.n_segments > 0
