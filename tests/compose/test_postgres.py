"""The embedded PostgreSQL: a real one, started, killed, recovered."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from compose.local import postgres as module
from compose.local.errors import AlreadyRunningError, FolderError, StartError
from compose.local.folders import SHORT_FOLDER_PREFIX, SOCKET_PATH_LIMIT_BYTES
from compose.local.postgres import EmbeddedPostgres
from compose.local.spawn import find_processes, is_running, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about running as another user, which needs root")


def make(home: Path, *, durable: bool = False) -> EmbeddedPostgres:
    return EmbeddedPostgres(
        home / "postgres", home / "run" / "postgres", home / "logs" / "postgres.log", durable=durable
    )


def query(server: EmbeddedPostgres, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def processes_of(server: EmbeddedPostgres) -> set[int]:
    return set(find_processes("postgres", server._marker()))


def test_a_new_cluster_speaks_galician_and_leaves_nothing_running(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")  # must reach neither server nor client
    monkeypatch.setenv("LC_ALL", "C")
    with make(home / "a b%c", durable=True) as server:
        assert query(server, "SELECT lower('ÁÑ'), current_user, current_database()") == [
            ("áñ", "fonoteca", "fonoteca")
        ]
        # Typographic signs are no letters: they must not stick to the word they enclose.
        assert query(server, "SELECT to_tsvector('simple', '«Casa» – ñandú…')::text") == [
            ("'casa':1 'ñandú':2",)
        ]
        assert query(server, "SHOW listen_addresses") == [("",)]
        assert query(server, "SHOW fsync") == [("on",)]
        assert query(server, "SHOW data_checksums") == [("on",)]
        assert query(server, "SELECT current_setting('server_version_num')::int / 10000") == [(18,)]
        engine = sqlalchemy.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
        engine.dispose()
        pids = processes_of(server)
        assert server.pid in pids
        assert len(pids) > 3
        assert (server.data_dir.stat().st_mode & 0o777, server.run_dir.stat().st_mode & 0o777) == (
            0o700,
            0o700,
        )
    assert not any(is_running(pid) for pid in pids)
    assert not server.is_alive()
    assert server.pid is None
    server.stop()  # a second stop does nothing


def test_rows_survive_a_killed_postmaster_and_its_orphans(home_with_cluster: Path) -> None:
    with make(home_with_cluster, durable=True) as server:
        query(server, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        url, killed = server.url, server.pid
        assert killed is not None
        # A backend in the middle of a long statement looks up only when the statement yields.
        busy = psycopg.connect(url, autocommit=True)
        backend = busy.info.backend_pid
        thread = threading.Thread(target=_run_until_cut, args=(busy,))
        thread.start()
        assert wait_until(
            lambda: (
                query(server, f"SELECT state FROM pg_stat_activity WHERE pid = {backend}") == [("active",)]
            ),
            10,
        )
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: not server.is_alive(), 5)
        server.start()
        assert server.url == url
        assert server.pid != killed
        assert not is_running(backend)
        assert query(server, "SELECT count(*) FROM kept") == [(1000,)]
        thread.join()
        busy.close()


def test_a_start_leaves_nothing_in_the_log_that_alarms_its_reader(home_with_cluster: Path) -> None:
    with make(home_with_cluster, durable=True) as server:
        killed = server.pid
        assert killed is not None
        # what has to be read again after the kill makes the second start long enough to be asked too early
        query(server, "CREATE TABLE kept AS SELECT md5(n::text) FROM generate_series(1, 300000) AS n")
        begun = server.log_file.stat().st_size
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: not server.is_alive(), 5)
        server.start()
        assert query(server, "SELECT count(*) FROM kept") == [(300_000,)]
    said = server.log_file.read_text()[begun:]
    assert "redo done" in said
    assert "FATAL" not in said


def _run_until_cut(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT pg_sleep(600)")


def test_a_second_manager_is_refused_and_told_by_whom(home_with_cluster: Path) -> None:
    with make(home_with_cluster) as first:
        with pytest.raises(AlreadyRunningError, match=rf"postgres.*pid {os.getpid()}\b"):
            make(home_with_cluster).start()
        assert query(first, "SELECT 1") == [(1,)]
    with make(home_with_cluster) as second:  # free again
        assert query(second, "SELECT 1") == [(1,)]


MANAGER = """
import sys, threading
from pathlib import Path
from compose.local.postgres import EmbeddedPostgres
home = Path(sys.argv[1])
server = EmbeddedPostgres(home / "postgres", home / "run" / "postgres", home / "log", durable=False)
starter = threading.Thread(target=server.start)  # the thread that starts it may end: the server must not
starter.start()
starter.join()
print(server.pid, flush=True)
threading.Event().wait()
"""


def test_a_killed_manager_takes_the_server_along(
    home_with_cluster: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    manager = run_script(MANAGER, home_with_cluster)
    assert manager.stdout is not None
    postmaster = int(manager.stdout.readline())
    assert is_running(postmaster)
    assert not wait_until(lambda: not is_running(postmaster), 0.3)
    manager.kill()
    manager.wait()
    assert wait_until(lambda: not is_running(postmaster), 10)
    with make(home_with_cluster) as server:
        assert query(server, "SELECT 1") == [(1,)]


def test_a_stale_pid_file_naming_a_live_stranger_does_not_matter(
    home_with_cluster: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    stranger = run_script("import threading; threading.Event().wait()")
    leftover = Path(tempfile.mkdtemp(prefix=SHORT_FOLDER_PREFIX, dir="/tmp"))
    shutil.chown(leftover, *_owner(home_with_cluster))
    pid_file = home_with_cluster / "postgres" / "postmaster.pid"
    pid_file.write_text(
        f"{stranger.pid}\n{home_with_cluster / 'postgres'}\n1\n5432\n{leftover}\n\n0 0\nready\n"
    )
    with make(home_with_cluster) as server:
        assert query(server, "SELECT 1") == [(1,)]
    assert stranger.poll() is None
    assert not leftover.exists()


def _owner(home: Path) -> tuple[int, int]:
    status = (home / "postgres").stat()
    return status.st_uid, status.st_gid


def test_a_long_path_gets_a_short_socket_folder(home: Path) -> None:
    deep = home / ("x" * 60) / ("y" * 60)
    with make(deep) as server:
        assert server._socket is not None
        folder = server._socket.path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder / ".s.PGSQL.5432")) < SOCKET_PATH_LIMIT_BYTES
        assert query(server, "SELECT 1") == [(1,)]
    assert not folder.exists()


@pytest.fixture
def closed() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # 0700
    yield folder
    shutil.rmtree(folder)


@as_root
def test_a_data_folder_out_of_reach_is_named_and_left_as_it_is(closed: Path) -> None:
    with pytest.raises(FolderError, match=rf"`nobody`.*may not enter {closed} \(mode 0700\).*FONOTECA_HOME"):
        make(closed / "home").start()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert not list(closed.iterdir())


@as_root
def test_programs_out_of_reach_are_copied_once(
    home: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = module.installed_programs()
    package = programs.parents[1]
    for folder in (programs.parent, package.with_name(f"{package.name}.libs")):
        # Links instead of copies, where the file system lets us
        shutil.copytree(folder, closed / folder.relative_to(package.parent), copy_function=_link)
    hidden = closed / programs.relative_to(package.parent)
    monkeypatch.setattr(module, "installed_programs", lambda: hidden)
    with make(home) as server:
        assert query(server, "SELECT 1") == [(1,)]
    copies = list(home.glob("postgresql-18-programs-*"))
    assert len(copies) == 1
    before = copies[0].stat().st_mtime_ns
    with make(home) as server:
        assert query(server, "SELECT 1") == [(1,)]
    assert copies[0].stat().st_mtime_ns == before
    assert closed.stat().st_mode & 0o777 == 0o700


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_a_failing_initdb_shows_its_log_and_leaves_no_half_made_cluster(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_character_classes", lambda: "xx_NOWHERE")
    server = make(home)
    with pytest.raises(
        StartError, match=r"(?s)initdb ended with code 1.*invalid locale name.*free disk space"
    ):
        server.start()
    assert not (home / "postgres").exists()
    assert not (home / "postgres.new").exists()


def test_a_server_that_cannot_start_shows_its_log(home_with_cluster: Path) -> None:
    with (home_with_cluster / "postgres" / "postgresql.auto.conf").open("a") as file:
        file.write("shared_buffers = nonsense\n")
    with pytest.raises(StartError, match=r"(?s)ended with code 1 while starting.*shared_buffers"):
        make(home_with_cluster).start()


def test_a_user_without_a_name_is_told_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(FolderError, match=r"needs a user with a name, and user id \d+ has none"):
        make(home).start()


@pytest.mark.parametrize(("content", "reason"), [("16", "data of PostgreSQL 16"), (None, "no PG_VERSION")])
def test_a_folder_of_something_else_is_refused(home: Path, content: str | None, reason: str) -> None:
    data = home / "postgres"
    data.mkdir()
    (data / "notes.txt").write_text("mine")
    if content:
        (data / "PG_VERSION").write_text(content)
    with pytest.raises(FolderError, match=reason):
        make(home).start()
    assert (data / "notes.txt").read_text() == "mine"
