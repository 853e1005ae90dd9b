"""The commands of every service, in one table.

The embedded stack runs them as processes; compose.yaml and compose.gpu.yaml run the same ones as containers.
A test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOME_PLACEHOLDER = "{home}"


@dataclass(frozen=True)
class ServiceSpec:
    """One service: what to run, when it counts as ready, how long it may drain."""

    name: str
    """Name in messages, logs and compose files."""

    arguments: tuple[str, ...]
    """What follows the Python interpreter. `{home}` stands for the stack's home."""

    drain_s: float
    """Seconds from SIGTERM to SIGKILL: long enough to finish the work at hand. Nothing is lost when it is
    exceeded: claims of a killed worker go back to pending."""

    ready_path: str | None = None
    """Ready when this path of the API answers 200."""

    ready_line: str | None = None
    """Ready when its log holds a match of this regular expression. With neither, ready once started."""

    ready_timeout_s: float = 60.0
    """Seconds after which a service that is not ready counts as failed."""

    def command(self, python: str, home: Path) -> list[str]:
        """The whole command for an interpreter and a home."""
        return [python, *(argument.replace(HOME_PLACEHOLDER, str(home)) for argument in self.arguments)]


def _worker(queues: str, pool: str, node: str) -> tuple[str, ...]:
    head = ("-m", "celery", "-A", "workers.app", "worker", "--loglevel=INFO")
    # what workers know of each other is rows: by gossip a busy solo worker, which hears its neighbours' heartbeats a
    # task later, warns of their clocks
    return (*head, "--without-gossip", "--without-mingle", "-Q", queues, *pool.split(), "-n", f"{node}@%h")


MIGRATE = ServiceSpec(
    name="migrate",
    arguments=("-m", "cli.main", "migrate"),
    drain_s=30,
    ready_timeout_s=600,
)
"""A job: run to completion before any service starts."""

API = ServiceSpec(
    name="api",
    arguments=("-m", "api.serve"),
    drain_s=30,
    ready_path="/readyz",
)

MEDIA_WORKER = ServiceSpec(
    name="media-worker",
    arguments=_worker("media,control", "--pool=prefork --concurrency=1", "media"),
    drain_s=300,
    ready_line=r"\bmedia@\S+ ready",
    ready_timeout_s=120,
)

GPU_WORKER = ServiceSpec(
    name="gpu-worker",
    # solo: a CUDA context does not survive fork, and one process owns the whole device.
    arguments=_worker("gpu,control", "--pool=solo", "gpu"),
    drain_s=180,
    ready_line=r"\bgpu@\S+ ready",
    ready_timeout_s=900,  # reads billions of weights first
)

QUALITY_WORKER = ServiceSpec(
    name="quality-worker",
    # a process of its own: settling a night computes for a minute, and mail servers may be slow to answer
    arguments=_worker("quality", "--pool=solo", "quality"),
    drain_s=60,
    ready_line=r"\bquality@\S+ ready",
    ready_timeout_s=120,
)

BEAT = ServiceSpec(
    name="beat",
    arguments=(
        *("-m", "celery", "-A", "workers.app", "beat", "--loglevel=INFO"),
        *("-s", f"{HOME_PLACEHOLDER}/beat-schedule"),
    ),
    drain_s=10,
    ready_line=r"beat: Starting",
)

SERVICES = (API, MEDIA_WORKER, GPU_WORKER, QUALITY_WORKER, BEAT)
"""In the order of starting."""
