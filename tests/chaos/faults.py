"""What goes wrong: processes killed or frozen, servers gone, data lost, messages doubled, the room filled.

A fault says when it is ripe, so that it strikes work in hand where it can, and strikes all the same when its patience
is over. It reports what it did, or None where there was nothing to strike.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from kombu.exceptions import OperationalError

from db.settings import Settings
from tests.chaos.submission import Submission
from tests.chaos.system import LEASE_S, System
from workers.queue import (
    CONTROL_QUEUE,
    GPU_QUEUE,
    MEDIA_QUEUE,
    QUALITY_QUEUE,
    SPLIT_TASK,
    SWEEP_TASK,
    TRANSCRIBE_TASK,
    make_celery,
)

FREEZE_LIMIT_S = 5 * LEASE_S
ROOM_TAKEN_S = 5.0
SEGMENTS_IN_HAND = """
    SELECT w.pid, w.id FROM workers w
    WHERE w.role = 'gpu' AND EXISTS (SELECT FROM segments s WHERE s.state = 'running' AND s.worker_id = w.id)
"""
RECORDINGS_IN_HAND = """
    SELECT w.pid, w.id FROM workers w
    WHERE w.role = 'media' AND EXISTS (SELECT FROM recordings r WHERE r.state = 'splitting' AND r.worker_id = w.id)
"""


@dataclass(frozen=True)
class Scene:
    """Where a fault strikes."""

    system: System
    submission: Submission
    lots: random.Random


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    weight: int
    """How often it comes, beside the others."""
    strike: Callable[[Scene], str | None]
    is_ripe: Callable[[Scene], bool] = lambda scene: True


def _children(pid: int) -> Iterator[int]:
    """Processes that a process started (Linux)."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, task.read_text().split())


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _pool_children(scene: Scene) -> list[int]:
    parents = [scene.system.pid(name) for name in scene.system.names("media-worker")]
    return [child for parent in parents if parent for child in _children(parent)]


def _media_in_hand(scene: Scene) -> list[int]:
    ours = set(_pool_children(scene))
    return [row.pid for row in scene.system.query(RECORDINGS_IN_HAND) if row.pid in ours]


def _gpu_workers(scene: Scene) -> dict[int, str]:
    """Names of the GPU workers that run, by pid."""
    names = scene.system.names("gpu-worker")
    return {pid: name for name in names if (pid := scene.system.pid(name))}


def _gpu_in_hand(scene: Scene) -> list[int]:
    ours = _gpu_workers(scene)
    return [row.pid for row in scene.system.query(SEGMENTS_IN_HAND) if row.pid in ours]


def _one_of(scene: Scene, first: list[int], otherwise: list[int]) -> int | None:
    if not (first or otherwise):
        return None
    return scene.lots.choice(sorted(first or otherwise))


def kill_pool_child(scene: Scene) -> str | None:
    """kill -9 of the process in which a recording is split."""
    pid = _one_of(scene, _media_in_hand(scene), _pool_children(scene))
    if pid is None:
        return None
    _kill(pid)
    return f"pool child {pid}"


def kill_media_worker(scene: Scene) -> str | None:
    """kill -9 of a media worker: with its pool at once, or of the main process alone."""
    names = scene.system.names("media-worker")
    pid = scene.system.pid(scene.lots.choice(names)) if names else None
    if pid is None:
        return None
    if scene.lots.random() < 0.5:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return f"media worker {pid} with its pool"
    _kill(pid)
    return f"media worker {pid}, its pool orphaned"


def kill_gpu_worker(scene: Scene) -> str | None:
    """kill -9 of a GPU worker with segments in hand."""
    pid = _one_of(scene, _gpu_in_hand(scene), list(_gpu_workers(scene)))
    if pid is None:
        return None
    _kill(pid)
    return f"GPU worker {pid}"


def restart_worker(scene: Scene) -> str | None:
    """SIGTERM, as a rolling restart sends it: what is in hand is finished, the rest given back."""
    names = scene.system.names("gpu-worker") + scene.system.names("media-worker")
    name = scene.lots.choice(names) if names else ""
    pid = scene.system.pid(name)
    if pid is None:
        return None
    _kill(pid, signal.SIGTERM)
    return f"{name} {pid} told to end"


def _kill_part(prefix: str) -> Callable[[Scene], str | None]:
    def strike(scene: Scene) -> str | None:
        names = scene.system.names(prefix)
        pid = scene.system.pid(scene.lots.choice(names)) if names else None
        if pid is None:
            return None
        _kill(pid)
        return f"{prefix} {pid}"

    return strike


def kill_api_in_mid_upload(scene: Scene) -> str | None:
    """kill -9 of the API while a body is on its way to it."""
    system, submission = scene.system, scene.submission
    struck: list[int] = []

    def strike() -> None:
        pid = system.pid("api")
        if pid is not None:
            _kill(pid)
            struck.append(pid)

    submission.interrupt_next(strike)
    system.wait(lambda: not submission.is_interrupt_due or not submission.is_sending, 20)
    return f"API {struck[0]}, a body half sent" if struck else None


def kill_valkey(scene: Scene) -> str | None:
    """kill -9 of Valkey. It keeps its data."""
    return _kill_part("valkey")(scene)


def kill_valkey_with_data(scene: Scene) -> str | None:
    """kill -9 of Valkey and the loss of everything that it held."""
    pid = scene.system.pid("valkey")
    if pid is None:
        return None
    _kill(pid)
    shutil.rmtree(scene.system.home / "valkey")
    return f"Valkey {pid} and its data"


def kill_postgres(scene: Scene) -> str | None:
    """kill -9 of the postmaster."""
    return _kill_part("postgres")(scene)


def crash_backend(scene: Scene) -> str | None:
    """kill -9 of one of PostgreSQL's processes: the server ends all sessions and recovers by itself."""
    backends = scene.system.query(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
        "AND application_name LIKE 'fonoteca%' ORDER BY pid"
    )
    if not backends:
        return None
    pid = scene.lots.choice(backends).pid
    _kill(pid)
    return f"PostgreSQL's process {pid}"


def freeze_worker(scene: Scene) -> str | None:
    """SIGSTOP of a worker with claims in hand until they were taken from it; then it is woken."""
    rows = [row for row in scene.system.query(SEGMENTS_IN_HAND) if row.pid in _gpu_workers(scene)]
    children = set(_pool_children(scene))
    rows += [row for row in scene.system.query(RECORDINGS_IN_HAND) if row.pid in children]
    if not rows:
        return None
    row = scene.lots.choice(rows)
    _kill(row.pid, signal.SIGSTOP)
    deadline = time.monotonic() + FREEZE_LIMIT_S

    def thaw() -> bool:
        taken = scene.system.query(
            "SELECT (SELECT count(*) FROM segments WHERE state = 'running' AND worker_id = :id) "
            "+ (SELECT count(*) FROM recordings WHERE state = 'splitting' AND worker_id = :id) AS n",
            id=row.id,
        )
        if not (taken and taken[0].n == 0) and time.monotonic() < deadline:
            return False
        _kill(row.pid, signal.SIGCONT)
        return True

    scene.system.thaws.append(thaw)
    return f"worker {row.id} ({row.pid}) frozen"


def double_messages(scene: Scene) -> str | None:
    """Every message that waits is delivered twice, and splitting, transcribing and sweeping are asked for once more."""
    copied = 0
    try:
        with redis.Redis.from_url(scene.system.stack.redis_url, socket_timeout=5) as broker:
            for queue in (MEDIA_QUEUE, GPU_QUEUE, CONTROL_QUEUE, QUALITY_QUEUE):
                for message in broker.lrange(queue, 0, -1):
                    broker.lpush(queue, message)
                    copied += 1
        with make_celery(Settings()) as app:
            for task in (SPLIT_TASK, TRANSCRIBE_TASK, SWEEP_TASK):
                app.send_task(task, retry=False)
                app.send_task(task, retry=False)
    except (redis.RedisError, OperationalError, OSError):
        return None
    return f"{copied} messages doubled, 6 more sent"


def take_all_room(scene: Scene) -> str | None:
    """One broadcaster's quota is full for some seconds, or until an upload was sent away."""
    number = scene.lots.randrange(3)
    give_back = scene.submission.take_all_room(number)
    if give_back is None:
        return None
    before = scene.submission.n_sent_away
    deadline = time.monotonic() + ROOM_TAKEN_S

    def is_over() -> bool:
        if scene.submission.n_sent_away == before and time.monotonic() < deadline:
            return False
        return give_back()

    scene.system.thaws.append(is_over)
    return f"all the room of broadcaster {number}"


def _is_work_in_hand(scene: Scene) -> bool:
    return bool(_gpu_in_hand(scene) or _media_in_hand(scene))


ALL = (
    Fault("pool child killed", 12, kill_pool_child, lambda scene: bool(_media_in_hand(scene))),
    Fault("media worker killed", 9, kill_media_worker, lambda scene: bool(_media_in_hand(scene))),
    Fault("GPU worker killed", 16, kill_gpu_worker, lambda scene: bool(_gpu_in_hand(scene))),
    Fault("worker restarted in order", 9, restart_worker),
    Fault("beat killed", 4, _kill_part("beat")),
    Fault("quality worker killed", 3, _kill_part("quality-worker")),
    Fault("API killed in mid-upload", 10, kill_api_in_mid_upload),
    Fault("Valkey killed", 5, kill_valkey),
    Fault("Valkey killed, data lost", 5, kill_valkey_with_data),
    Fault(
        "postmaster killed",
        7,
        kill_postgres,
        _is_work_in_hand,
    ),
    Fault("database process crashed", 4, crash_backend),
    Fault(
        "worker frozen past its lease",
        8,
        freeze_worker,
        _is_work_in_hand,
    ),
    Fault("messages doubled", 8, double_messages),
    Fault("quota filled", 6, take_all_room),
)
