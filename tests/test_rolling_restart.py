"""Every worker is told to end and started again, one after another, while recordings come in: nothing is lost, and
nothing is done twice. Run by `make rolling-restart`."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.chaos import checks
from tests.chaos.alone import told_alone
from tests.chaos.media import write_material
from tests.chaos.submission import Submission
from tests.chaos.system import System, running_system

pytestmark = pytest.mark.long

N_RECORDINGS = 16
LIMIT_S = 300.0


def restart(system: System, name: str) -> None:
    """SIGTERM, as an upgrade sends it; the supervisor starts the worker anew."""
    before = system.pid(name)
    assert before is not None
    os.kill(before, signal.SIGTERM)

    def is_new_one_at_work() -> bool:
        pid = system.pid(name)
        return pid not in (None, before) and bool(
            # a media worker's session is its pool child's
            system.query("SELECT id FROM workers WHERE stopped_at IS NULL AND started_at > "
                         "(SELECT coalesce(max(started_at), '-infinity') FROM workers WHERE pid = :pid)", pid=before)
            if name.startswith("gpu")
            else [pid]
        )  # fmt: skip

    assert system.wait(is_new_one_at_work, LIMIT_S), f"{name} did not come back"


def test_a_rolling_restart_under_load_loses_and_repeats_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        material = write_material(Path(folder), N_RECORDINGS)
        expected = told_alone(material)
        with (
            running_system(2, 2) as system,
            Submission(system, material, name="rolling restart") as submission,
        ):
            names = [*system.names("media-worker"), *system.names("gpu-worker")]
            assert len(names) == 4
            for name in names:
                # a few recordings at a time, so that there is work whenever somebody has to go
                submission.release(-(-N_RECORDINGS // len(names)))
                assert system.wait(lambda: is_at_work(system), LIMIT_S), (
                    f"nothing to do when {name} was to end"
                )
                restart(system, name)
            assert system.wait(lambda: checks.n_open(system, submission.batch_ids) == 0, LIMIT_S)
            found = checks.told(system, submission.batch_ids)
            outcomes = {row.outcome for row in system.query("SELECT DISTINCT outcome FROM attempts")}
            (heard,) = system.query(
                "SELECT (SELECT sum(transcribed_samples) FROM workers) AS by_workers, "
                "(SELECT sum(end_sample - start_sample) FROM segments) AS of_segments"
            )
            doubled = checks.doubled(system)
    assert checks.differences(expected, found) == {"lost": [], "differing": []}
    assert not doubled
    assert outcomes <= {"done", "returned"}
    assert heard.by_workers == heard.of_segments, "some seconds were transcribed twice, or by nobody"


def is_at_work(system: System) -> bool:
    """Whether a worker holds something."""
    return bool(system.query("SELECT FROM attempts WHERE outcome = 'running' LIMIT 1"))
