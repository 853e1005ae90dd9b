from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose.local.folders import temporary_home
from compose.local.postgres import EmbeddedPostgres

PYTHON = sys.executable


@pytest.fixture(autouse=True)
def _no_fonoteca_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own settings must not reach these stacks."""
    for name in list(os.environ):
        if name.startswith("FONOTECA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the database's user reaches; pytest's tmp_path is 0700."""
    with temporary_home() as path:
        yield path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A PostgreSQL data folder made once; tests take copies, which are quicker than new ones."""
    with temporary_home("fonoteca-cluster-") as path:
        with EmbeddedPostgres(path / "postgres", path / "run", path / "log", durable=False):
            pass
        yield path / "postgres"


@pytest.fixture
def home_with_cluster(home: Path, cluster: Path) -> Path:
    """A home whose database is made already."""
    subprocess.run(["cp", "-a", str(cluster), str(home / "postgres")], check=True)
    return home


@pytest.fixture
def run_script() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code as a process of its own; killed at the end of the test where it still runs."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PYTHON, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
