"""Bring a database to a revision of the schema, while it is in use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from migrations.locks import LOCK_NOT_AVAILABLE, MIGRATION_LOCK, TurnNotHad

MIGRATIONS_DIR = Path(__file__).resolve().parent

PATIENCE_S = 60.0
"""How long a migration goes on asking for locks, unless told otherwise."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0
WATCH_S = 0.2
"""How often it is noted who holds the migration up."""

DEADLOCK_DETECTED = "40P01"

_alembic_turn = threading.Lock()
"""Alembic keeps what it is at work on in a module: one command at a time in a process, whatever the database."""

# `pg_blocking_pids` knows who is waited for; the migrators' advisory lock is asked for without waiting
_BLOCKERS_SQL = """
    SELECT a.pid, coalesce(a.usename, '') AS role, coalesce(a.application_name, '') AS application,
           coalesce(a.state, '') AS state, a.xact_start, a.query_start, left(coalesce(a.query, ''), 100) AS query
    FROM pg_stat_activity a
    WHERE a.pid = ANY (pg_blocking_pids(:pid))
       OR a.pid IN (
            SELECT l.pid FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> :pid AND l.objsubid = 1
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (l.classid::bigint << 32 | l.objid::bigint) = :key)
    ORDER BY a.xact_start, a.pid
"""


class MigrationBlocked(Exception):
    """A migration did not get its locks. Nothing of it was changed; those before it are done."""


@dataclass(frozen=True)
class Blocker:
    """A session that holds a lock which a migration waits for."""

    pid: int
    description: str


@dataclass
class Watch:
    """Who was last seen to hold up the migration."""

    pid: int
    blockers: list[Blocker] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def follow(self, engine: Engine) -> None:
        """Note the blockers every so often until told to end; the lock's holder is unknown once the wait is over."""
        if self._ended.wait(WATCH_S):
            return
        with suppress(DBAPIError), engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            while True:
                if found := self._blockers(connection):
                    self.blockers = found
                if self._ended.wait(WATCH_S):
                    return

    def _blockers(self, connection: Connection) -> list[Blocker]:
        rows = connection.execute(text(_BLOCKERS_SQL), {"pid": self.pid, "key": MIGRATION_LOCK})
        return [
            Blocker(
                row.pid,
                f"pid {row.pid} ({row.application or 'unnamed'}, role {row.role}, {row.state or 'state not shown'}"
                + (
                    f", in a transaction since {row.xact_start:%Y-%m-%d %H:%M:%S %Z}"
                    if row.xact_start
                    else ""
                )
                + (f", query since {row.query_start:%H:%M:%S}" if row.query_start else "")
                + f"): {' '.join(row.query.split()) or 'query not shown'}",
            )
            for row in rows
        ]

    def end(self) -> None:
        self._ended.set()


def alembic_config(connection: Connection | None = None, *, patience_s: float = PATIENCE_S) -> Config:
    """Alembic's settings; files of new revisions are named by date."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    config.attributes["connection"] = connection
    config.attributes["patience_s"] = patience_s
    return config


def current_revision(engine: Engine) -> str | None:
    """The revision the database stands at; None when it has none."""
    with engine.connect() as connection:
        if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return None
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


def head_revision() -> str:
    """The newest revision this code knows."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def revisions() -> list[str]:
    """Every revision this code knows, oldest first."""
    script = ScriptDirectory.from_config(alembic_config())
    return [step.revision for step in script.walk_revisions()][::-1]


def migrate(
    engine: Engine,
    revision: str = "head",
    *,
    patience_s: float = PATIENCE_S,
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Bring the database up (or down) to `revision`, while others read and write it.

    Each migration is a transaction of its own. One that does not get a lock within `LOCK_TIMEOUT_S` is rolled back
    and tried again after a pause, in which everybody else goes on.

    Args:
        engine: two of its connections are used.
        revision: a name, `head`, `base`, or steps as `-1` and `+1`.
        patience_s: how long to go on trying, counted anew for each migration that was done.
        note: told in a sentence whenever a try failed.

    Raises:
        MigrationBlocked: the locks were not had in that time. Says who holds them.
        CommandError: there is no such revision.
    """
    start = current_revision(engine)
    target, down = _resolve(revision, start)
    done = start
    deadline = time.monotonic() + patience_s
    pause_s = FIRST_PAUSE_S
    while True:
        with engine.connect() as connection, _watched(engine, connection) as watch:
            try:
                with _one_in_a_process(deadline):
                    config = alembic_config(connection, patience_s=max(deadline - time.monotonic(), 0.0))
                    (command.downgrade if down else command.upgrade)(config, target)
                return
            except TurnNotHad as turn:
                reason = str(turn) or "another migration of this database is under way"
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                    raise
                reason = str(error.orig).splitlines()[0]
        now_at = current_revision(engine)
        if now_at != done:
            done, deadline, pause_s = now_at, time.monotonic() + patience_s, FIRST_PAUSE_S
        who = "; ".join(blocker.description for blocker in watch.blockers) or "holder not seen"
        step = f"{done or 'base'} -> {target}"
        if time.monotonic() + pause_s > deadline:
            raise MigrationBlocked(
                f"gave up migrating {step} after {patience_s:g} s, and the database stays at {done or 'base'}: "
                f"{reason}. Held by: {who}. Let it end, or end it with `SELECT pg_terminate_backend(pid)`, "
                f"then migrate again, with more --patience where such work is usual"
            )
        note(f"{step}: {reason}; held by {who}; trying again in {pause_s:g} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _resolve(revision: str, start: str | None) -> tuple[str, bool]:
    """The revision meant, and whether it lies down from `start`.

    A step is counted once, from the start: counted anew by each try, `-1` tried twice could be two steps.
    """
    known = revisions()
    position = known.index(start) if start in known else -1
    if revision[:1] in "+-" and revision[1:].isdigit():
        aim = position + int(revision)
        if not -1 <= aim < len(known):
            raise CommandError(f"there are no {revision[1:]} steps that way from {start or 'base'}")
        return ("base" if aim < 0 else known[aim]), aim < position
    if revision == "base":
        return "base", True
    return revision, revision in known and known.index(revision) < position


@contextmanager
def _one_in_a_process(deadline: float) -> Iterator[None]:
    """Hold `_alembic_turn`.

    Raises:
        TurnNotHad: another thread held it until `deadline`, of the monotonic clock.
    """
    if not _alembic_turn.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
        raise TurnNotHad("another migration is under way in this process")
    try:
        yield
    finally:
        _alembic_turn.release()


@contextmanager
def _watched(engine: Engine, connection: Connection) -> Iterator[Watch]:
    """Watch, from a second connection, who holds up the first."""
    pid = connection.scalar(text("SELECT pg_backend_pid()"))
    connection.rollback()
    assert pid is not None
    watch = Watch(pid)
    thread = threading.Thread(target=watch.follow, args=(engine,), name="migration-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()
