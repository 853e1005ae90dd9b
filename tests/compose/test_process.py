"""Services: started, ended whole, never outliving their manager."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose.local.errors import BinariesMissingError
from compose.local.process import Service
from compose.local.spawn import LOG_ROTATE_BYTES, is_running, log_tail, open_log, wait_until

WAITING = "import threading; print('up', flush=True); threading.Event().wait()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITING
WITH_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
print(child.pid, flush=True)
{WAITING}
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Service]]:
    made: list[Service] = []

    def factory(code: str) -> Service:
        command = [sys.executable, "-c", code]
        made.append(Service("probe", command, dict(os.environ), tmp_path / f"probe{len(made)}.log"))
        return made[-1]

    yield factory
    for service in made:
        service.stop(0)


def up(service: Service) -> bool:
    return "up" in service.log_since_start()


def test_it_runs_in_its_own_session_and_stops_when_asked(make: Callable[[str], Service]) -> None:
    service = make(WAITING).start()
    assert wait_until(lambda: up(service), 10)
    pid = service.pid
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(0)
    assert service.start().pid == pid  # starting what runs does nothing
    service.stop(10)
    assert not service.alive
    assert service.pid is None
    with pytest.raises(ProcessLookupError):  # not even a zombie
        os.kill(pid, 0)


def test_it_ends_by_force_with_all_its_children(make: Callable[[str], Service]) -> None:
    service = make(WITH_CHILD).start()
    assert wait_until(lambda: service.log_since_start().count("up") == 2, 10)
    child = int(service.log_since_start().split()[0])
    assert is_running(child)
    service.stop(10)  # the main process ends at once, its child ignores SIGTERM
    assert wait_until(lambda: not is_running(child), 5)

    stubborn = make(STUBBORN).start()
    assert wait_until(lambda: up(stubborn), 10)
    pid = stubborn.pid
    assert pid is not None
    stubborn.stop(0.1)
    assert not is_running(pid)


SLOW_TO_STOP = """
import signal, threading
done = threading.Event()
def asked(*_):
    print("asked", flush=True)
    threading.Timer(0.2, done.set).start()
signal.signal(signal.SIGTERM, asked)
print("up", flush=True)
while not done.wait(0.05):
    pass
"""


def test_a_service_is_asked_to_stop_once(make: Callable[[str], Service]) -> None:
    service = make(SLOW_TO_STOP).start()
    assert wait_until(lambda: up(service), 10)
    service.request_stop()
    assert wait_until(lambda: "asked" in service.log_since_start(), 10)
    service.stop(10)
    assert service.log_file.read_text().count("asked") == 1


def test_death_is_seen_with_its_cause_and_restart_works(make: Callable[[str], Service]) -> None:
    service = make("import sys; print('no such model', flush=True); sys.exit(3)").start()
    assert service.wait(10) == 3
    assert not service.alive
    assert "| no such model" in service.log_tail()

    killed = make(WAITING).start()
    first = killed.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert killed.wait(10) == -signal.SIGKILL
    killed.start()
    assert killed.alive
    assert killed.pid != first
    second = killed.pid
    assert killed.restart(5).pid != second


def test_a_service_survives_the_thread_that_started_it(make: Callable[[str], Service]) -> None:
    service = make(WAITING)
    thread = threading.Thread(target=service.start)
    thread.start()
    thread.join()
    assert wait_until(lambda: up(service), 10)
    assert service.wait(0.2) is None


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(BinariesMissingError, match="no-such-program"):
        Service("probe", ["no-such-program"], {}, tmp_path / "log").start()


MANAGER = """
import os, sys, threading
from pathlib import Path
from compose.local.process import Service
service = Service("probe", [sys.executable, "-c", sys.argv[2]], dict(os.environ), Path(sys.argv[1])).start()
print(service.pid, flush=True)
threading.Event().wait()
"""


def test_a_killed_manager_takes_its_services_along(
    tmp_path: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    manager = run_script(MANAGER, tmp_path / "log", WAITING)
    assert manager.stdout is not None
    pid = int(manager.stdout.readline())
    assert is_running(pid)
    manager.kill()
    assert wait_until(lambda: not is_running(pid), 10)


def test_a_zombie_does_not_count_as_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(child.pid, 0)  # takes signals all the same
    assert not is_running(child.pid)
    child.wait()


def test_a_large_log_is_set_aside_and_only_new_lines_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    with path.open("wb") as log:
        log.truncate(LOG_ROTATE_BYTES + 1)
    with open_log(path) as log:
        log.write(b"old\n")
        start = log.tell()
        log.write(b"new\n")
    assert (tmp_path / "service.log.1").stat().st_size == LOG_ROTATE_BYTES + 1
    assert "| new" in log_tail(path, since=start)
    assert "old" not in log_tail(path, since=start)
    assert "no log" in log_tail(tmp_path / "none.log")
