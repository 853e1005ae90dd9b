"""Migrating while the system works: workers of the old release go on, nothing is lost, nobody waits for long."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import migrations.run
from db.connect import make_engine, transaction
from db.search import index_older
from migrations import locks
from migrations.run import MigrationBlocked, current_revision, head_revision, migrate
from tests.db import released_worker

WORKERS = 3
PACE_S = 0.02
"""Workers rest so long between rounds, and twice as long as a round took on a busy machine: the model's work would
take them longer, and a table that somebody always uses is never free for a migration."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real times are for systems with minutes of patience."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(migrations.run, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(migrations.run, "WATCH_S", 0.02)


@pytest.fixture
def released(make_database: Callable[..., str], small_lexicon: None) -> Iterator[Engine]:
    """An engine on a database of release 0002 with a broadcaster and a model."""
    engine = make_engine(make_database(migrated=False), application_name="tests", pool_size=2 * WORKERS + 4)
    migrate(engine, "0002")
    with transaction(engine) as tx:
        tx.connection.execute(text("INSERT INTO broadcasters (name) VALUES ('radio')"))
        released_worker.a_model(tx.connection)
    yield engine
    engine.dispose()


class Load:
    """Workers of release 0002 that submit, split and transcribe for as long as the block lasts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(WORKERS)]
        self._counting = threading.Lock()
        self.errors: list[Exception] = []
        self.n_stored = 0

    def _work(self, number: int) -> None:
        try:
            with transaction(self._engine) as tx:
                worker_id = released_worker.register(tx.connection)
            for turn in itertools.count():
                begun = time.monotonic()
                if not self._ending.is_set():
                    with transaction(self._engine) as tx:
                        released_worker.submit(tx.connection, 1, f"{number}-{turn}.wav")
                n = released_worker.work_once(self._engine, worker_id, 1, "palabra")
                took_s = time.monotonic() - begun
                with self._counting:
                    self.n_stored += n
                if self._ending.wait(max(PACE_S, 2 * took_s)) and n == 0:
                    return
        except Exception as error:
            self.errors.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, more: int) -> None:
        """Return once so many more segments were stored."""
        aim = self.n_stored + more
        deadline = time.monotonic() + 30
        while self.n_stored < aim and not self.errors:
            assert time.monotonic() < deadline, "the workers stand still"
            time.sleep(0.01)

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive(), "a worker waits for ever"


def found(engine: Engine, word: str) -> set[int]:
    """Ids of the segments in which a word is said."""
    with engine.connect() as connection:
        return set(
            connection.scalars(text("SELECT segment_id FROM archive.mentions(:word)"), {"word": word}).all()
        )


@pytest.mark.slow
def test_workers_go_on_while_the_database_is_migrated(released: Engine) -> None:
    """Someone reads in a transaction for longer than a migration waits; workers of the old release work on."""
    notes: list[str] = []
    reader = released.connect()
    reader.execute(text("SET application_name = 'an analyst'"))
    with Load(released) as load:
        load.wait_for(20)
        reader.execute(text("SELECT count(*) FROM segments, recordings, transcripts WHERE false")).all()

        def note(sentence: str) -> None:
            notes.append(sentence)
            if len(notes) == 1:
                # between two tries, everybody else has gone on
                load.wait_for(5)
                reader.rollback()
                reader.close()

        migrate(released, note=note, patience_s=60)
        load.wait_for(20)
    assert load.errors == []
    assert current_revision(released) == head_revision()
    assert "an analyst" in notes[0]

    with transaction(released) as tx:
        stood = tx.connection.execute(
            text(
                "SELECT count(*) AS n, count(*) FILTER (WHERE state = 'done' AND attempt = 1) AS once, "
                "(SELECT count(*) FROM transcripts WHERE finished_at IS NULL) AS unfinished, "
                "(SELECT count(*) FROM attempts WHERE segment_id IS NOT NULL AND outcome = 'done') AS attempts "
                "FROM segments"
            )
        ).one()
    assert stood == (load.n_stored, load.n_stored, 0, load.n_stored)

    # what was stored before the migration is indexed in steps, the rest was when it was stored
    while True:
        with transaction(released) as tx:
            if index_older(tx.connection, 200) == 0:
                break
    with released.connect() as connection:
        everything = set(connection.scalars(text("SELECT id FROM segments")).all())
    assert found(released, "palabras") == everything
    for segment_id in (min(everything), max(everything)):
        assert found(released, f"palabra {segment_id}") == {segment_id}


def test_a_migration_that_gets_no_lock_gives_up_and_says_who_holds_it(released: Engine) -> None:
    with released.connect() as holder:
        holder.execute(text("SET application_name = 'the nightly export'"))
        pid = holder.scalar(text("SELECT pg_backend_pid()"))
        holder.execute(text("LOCK TABLE segments, recordings, transcripts IN ACCESS SHARE MODE"))
        with pytest.raises(MigrationBlocked) as refused:
            migrate(released, patience_s=0.5)
        holder.rollback()
    for part in (
        f"pid {pid}",
        "the nightly export",
        "idle in transaction",
        "LOCK TABLE",
        "--patience",
        "0002",
    ):
        assert part in str(refused.value)
    assert current_revision(released) == "0002"
    migrate(released)
    assert current_revision(released) == head_revision()


def test_two_migrators_take_turns(released: Engine) -> None:
    with released.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": locks.MIGRATION_LOCK})
        other.commit()
        with pytest.raises(MigrationBlocked, match="another migration of this database is under way"):
            migrate(released, patience_s=0.1)
        # its session ends, and with it the lock
        other.detach()
        release = threading.Timer(0.3, other.close)
        release.start()
        migrate(released)
        release.join()
    assert current_revision(released) == head_revision()


# --- indexes built concurrently ------------------------------------------------------------------------------

INDEX_REVISION = """
from migrations.locks import create_index, drop_index

revision = "9001"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index("uq_workers_host_pid", "workers", ["host", "pid"], unique=True)


def downgrade() -> None:
    drop_index("uq_workers_host_pid", "workers")
"""


def index_state(engine: Engine) -> bool | None:
    """Whether the index is valid; None when there is none."""
    with engine.connect() as connection:
        valid: bool | None = connection.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('uq_workers_host_pid')")
        )
        return valid


def test_an_interrupted_index_is_built_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(migrations.run.MIGRATIONS_DIR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "later_index.py").write_text(INDEX_REVISION.format(head=head_revision()))
    monkeypatch.setattr(migrations.run, "MIGRATIONS_DIR", folder)
    head = current_revision(engine)
    with transaction(engine) as tx:
        released_worker.register(tx.connection)
        released_worker.register(tx.connection)

    # the build fails half-way, as it would when its session is ended
    with pytest.raises(Exception, match="could not create unique index"):
        migrate(engine)
    assert (current_revision(engine), index_state(engine)) == (head, False)
    with transaction(engine) as tx:
        tx.connection.execute(text("UPDATE workers SET pid = id"))

    # a writer under way is waited for, for longer than a lock would be: nobody waits behind this
    writer = engine.connect()
    worker_id = released_worker.register(writer)
    writer.execute(text("UPDATE workers SET pid = -1 WHERE id = :id"), {"id": worker_id})
    release = threading.Timer(3 * locks.LOCK_TIMEOUT_S, writer.commit)
    release.start()
    migrate(engine)
    release.join()
    writer.close()
    assert (current_revision(engine), index_state(engine)) == ("9001", True)

    migrate(engine, "-1")
    assert (current_revision(engine), index_state(engine)) == (head, None)
    # an index that was finished by a try which was interrupted only then stays
    with transaction(engine) as tx:
        tx.connection.execute(text("CREATE UNIQUE INDEX uq_workers_host_pid ON workers (host, pid)"))
    migrate(engine)
    assert (current_revision(engine), index_state(engine)) == ("9001", True)
