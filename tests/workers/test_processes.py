"""Real worker processes, killed and stopped in the middle of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compose.local.process import Service
from compose.local.spawn import wait_until
from db.settings import Settings

ARCHIVE = Path(__file__).parents[2] / "samples" / "archive"
BULLETIN = ARCHIVE / "noticias-2026-11-20.mp3"

pytestmark = pytest.mark.slow

Query = Callable[..., list[Any]]
Start = Callable[..., Service]

QUICK = {"FONOTECA_SWEEP_INTERVAL_S": "1", "FONOTECA_GPU_BATCH_SEGMENTS": "3"}


def running(query: Query) -> int:
    return int(query("SELECT count(*) FROM segments WHERE state = 'running'")[0][0])


def finished(query: Query) -> bool:
    return query("SELECT count(*) FROM recordings WHERE finished_at IS NULL") == [(0,)]


def texts(query: Query) -> list[list[str]]:
    """The texts of each recording, in order."""
    rows = query("SELECT array_agg(text ORDER BY index) AS texts FROM segments GROUP BY recording_id")
    return [row.texts for row in rows]


def test_kill_9_of_the_gpu_worker_in_mid_batch_loses_and_doubles_nothing(
    start_service: Start, make_recording: Callable[..., Any], query: Query
) -> None:
    for _ in range(2):
        make_recording(media=BULLETIN)
    start_service("beat", **QUICK)
    start_service("media-worker", **QUICK)
    for kills in range(2):
        worker = start_service("gpu-worker", **QUICK)
        assert wait_until(lambda: running(query) > 0, 60), worker.log_tail()
        os.kill(worker.pid, signal.SIGKILL)
        lost = f"SELECT count(*) FROM attempts WHERE outcome = 'lost' HAVING count(*) > {kills}"
        assert wait_until(lambda lost=lost: bool(query(lost)), 60), "the sweep took nothing back"
    start_service("gpu-worker", **QUICK)
    assert wait_until(lambda: finished(query), 120), query("SELECT state, count(*) FROM segments GROUP BY 1")
    assert query("SELECT DISTINCT state FROM recordings") == [("completed",)]
    first, second = texts(query)
    assert first == second
    assert all(first)
    done = query(
        "SELECT s.id, count(*) FILTER (WHERE a.outcome = 'done') AS done FROM segments s "
        "JOIN attempts a ON a.segment_id = s.id GROUP BY s.id"
    )
    assert {row.done for row in done} == {1}, "each segment was stored exactly once"
    assert query("SELECT count(*) FROM attempts WHERE outcome = 'running'") == [(0,)]
    sums = query(
        "SELECT transcribed_s + no_speech_s + failed_s - duration_s AS lost_s FROM archive.transcripts"
    )
    assert {row.lost_s for row in sums} == {0}


def test_kill_9_of_the_splitting_process_is_made_good(
    start_service: Start, make_recording: Callable[..., Any], query: Query, settings: Settings
) -> None:
    make_recording(media=BULLETIN)
    start_service("beat", **QUICK)
    worker = start_service("media-worker", **QUICK)
    claimed = "SELECT w.pid FROM recordings r JOIN workers w ON w.id = r.worker_id"
    assert wait_until(lambda: bool(query(claimed)), 60), worker.log_tail()
    for (pid,) in query(claimed):
        os.kill(pid, signal.SIGKILL)
    split = "SELECT attempt FROM recordings WHERE state = 'transcribing'"
    assert wait_until(lambda: bool(query(split)), 60), worker.log_tail()
    assert query(split) == [(2,)]
    assert query("SELECT count(*) FROM transcripts") == [(1,)]
    assert not list((settings.home / "scratch").rglob("*.flac")), "the dead process's files are gone"


def test_sigterm_finishes_the_batch_at_hand_and_leaves_the_rest(
    start_service: Start, make_recording: Callable[..., Any], query: Query
) -> None:
    make_recording(media=BULLETIN)
    start_service("beat", **QUICK)
    start_service("media-worker", **QUICK)
    worker = start_service("gpu-worker", **QUICK)
    assert wait_until(lambda: running(query) > 0, 60), worker.log_tail()
    worker.request_stop()
    assert worker.wait(60) == 0, worker.log_tail()
    assert running(query) == 0
    outcomes = {row.outcome for row in query("SELECT DISTINCT outcome FROM attempts")}
    assert outcomes <= {"done", "returned"}
    assert query("SELECT count(*) FROM workers WHERE role = 'gpu' AND stopped_at IS NULL") == [(0,)]
    start_service("gpu-worker", **QUICK)
    assert wait_until(lambda: finished(query), 60)
    assert query("SELECT DISTINCT state FROM recordings") == [("completed",)]
    assert query("SELECT max(losses) FROM segments") == [(0,)]


def test_a_gpu_worker_without_its_model_says_so_and_does_not_start(
    start_service: Start, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="no such folder"):
        start_service("gpu-worker", FONOTECA_MODEL=str(tmp_path / "nowhere"))


def test_a_pool_child_that_ends_waits_only_shortly_for_a_main_process_that_waits_for_it() -> None:
    program = """
from types import SimpleNamespace
import workers.app
from billiard import pool
slept = []
pool.time = SimpleNamespace(sleep=slept.append)
child = object.__new__(pool.Worker)
child.on_ready_counter = SimpleNamespace(value=0)  # nobody reads its last result any more
assert not child._ensure_messages_consumed(completed=1)
print(sum(slept))
"""
    # nothing connects on import
    environment = {**os.environ, "FONOTECA_REDIS_URL": "redis://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert 0 < float(done.stdout) < 5
