"""A backup, restored into an empty server: everything is there, and work goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, text

from compose.local.postgres import EmbeddedPostgres, installed_programs
from db.connect import make_engine, transaction
from db.corrections import NewCorrection, store_correction
from db.integrity import check_rows, count_rows
from db.liveness import WorkerSession
from db.losses import take_back_dead_claims
from db.media_store import MediaStore
from db.queue import claim_segments, store_results
from db.search import search
from db.splitting import claim_recording, store_split
from db.sql_hardening import harden
from db.sql_users import create_sql_user
from db.states import GapKind
from db.work import ModelBinding, NewGap, NewTranscript, SegmentResult
from tests.cli.conftest import Ended
from tests.conftest import MadeRecording, Owner, Said, database_address
from tests.db.catalogue import catalogue, fingerprint, tables

SECOND = 16_000


@pytest.fixture
def other_server() -> Iterator[EmbeddedPostgres]:
    """An empty PostgreSQL that knows nothing of the first."""
    with tempfile.TemporaryDirectory(prefix="fonoteca-restored-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "data", folder / "run", folder / "log", durable=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def program(name: str, *arguments: str, check: bool = True) -> str:
    """Run one of PostgreSQL's programs; what it wrote."""
    ended = subprocess.run(
        [str(installed_programs() / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0 or not check, ended.stderr
    return ended.stdout


def plain(url: str) -> str:
    """An address as PostgreSQL's own programs take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def some_quality(connection: Connection) -> None:
    """Rows of a night."""
    connection.execute(
        text(
            """
            INSERT INTO quality_nights (night, state, from_at, until_at, finished_at)
            VALUES ('2026-11-22', 'done', '2026-11-21', '2026-11-22', now());
            INSERT INTO held_out_sets (name, content_sha256, n_utterances, duration_samples)
            VALUES ('gl', 'x', 1, 16000);
            INSERT INTO held_out_utterances (set_id, index, key, audio, audio_sha256, duration_samples, reference)
            SELECT id, 0, 'u', 'u.flac', 'x', 16000, 'Boas noites' FROM held_out_sets;
            INSERT INTO alerts (kind, subject, opened_night, last_night, sentence, evidence)
            VALUES ('drift', 'production', '2026-11-22', '2026-11-22', 'WER rose', '{}');
            """
        )
    )


def store_working_copies(engine: Engine, store: MediaStore, file: Path) -> None:
    """Put a file wherever the factories named one."""
    file.write_bytes(b"fLaC")
    with engine.connect() as connection:
        for key in connection.scalars(text("SELECT working_copy_key FROM recordings")):
            store.put_file(key, file)


def waiting(engine: Engine, worker: WorkerSession, duration_s: int) -> None:
    """Split the one recording that waits into three segments, which wait then."""
    with transaction(engine) as tx:
        claim = claim_recording(tx.connection, worker.worker_id)
        assert claim is not None
        found = NewTranscript(
            splitter_version="energy-1",
            code_version="0.1.0",
            duration_samples=duration_s * SECOND,
            working_copy_key=claim.media_key,
            media_info={"container": "wav"},
            segments=[(n * SECOND, (n + 1) * SECOND) for n in range(3)],
            gaps=[NewGap(GapKind.NO_SPEECH, 3 * SECOND, duration_s * SECOND)],
        )
        assert store_split(tx.connection, claim, worker.worker_id, found)


def binding(connection: Connection) -> ModelBinding:
    """The model of the restored system."""
    model_id = connection.scalar(text("SELECT id FROM models ORDER BY id LIMIT 1"))
    assert model_id is not None
    return ModelBinding(model_id, "Transcribe the audio clip into text.", {"max_new_tokens": 256})


def contents(engine: Engine) -> dict[str, Any]:
    """Every table, row for row, and what readers see: the views, and what search gives."""
    with engine.connect() as connection:
        found: dict[str, Any] = {table: fingerprint(connection, table) for table in tables(connection)}
        views = connection.scalars(
            text(
                "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'archive'::regnamespace "
                "AND relkind = 'v' ORDER BY 1"
            )
        ).all()
        assert len(views) >= 10
        found |= {view: fingerprint(connection, view) for view in views}
        for query in ("barcos", '"o barco"', "chov* -praia"):
            found[query] = search(connection, None, query)
            assert found[query].hits
    return found


@pytest.fixture
def reader(engine: Engine, owner: Owner) -> Iterator[str]:
    """A role that reads the rows of one broadcaster over SQL; roles outlive the test's database."""
    with transaction(engine) as tx:
        harden(tx.connection)
        role, _ = create_sql_user(tx.connection, owner.name)
    yield role
    with transaction(engine) as tx:
        tx.connection.execute(text(f"DROP OWNED BY {role}"))
        tx.connection.execute(text(f"DROP ROLE {role}"))


def seen_by(url: str, role: str) -> list[tuple[Any, ...]]:
    """What a role with a session of its own reads."""
    address = make_url(plain(url)).set(username=role).render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        rows = connection.execute(
            "SELECT broadcaster, text FROM archive.segments UNION ALL "
            "SELECT broadcaster, snippet FROM archive.search('barcos') ORDER BY 1, 2"
        ).fetchall()
        assert len({row[0] for row in rows}) == 1, rows
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT text FROM public.segments")
    return rows


@pytest.mark.slow
def test_a_restored_system_is_the_same_and_goes_on(
    engine: Engine,
    media_store: MediaStore,
    make_transcript: Callable[..., MadeRecording],
    make_recording: Callable[..., MadeRecording],
    make_broadcaster: Callable[..., Owner],
    reader: str,
    other_server: EmbeddedPostgres,
    tmp_path: Path,
    fonoteca: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make_broadcaster("radio-other")
    for owner in (None, other):
        options = {"owner": owner} if owner else {}
        said = [Said(0, 2, "Choveu e o barco"), Said(2, 4, None), Said(5, 6, "as praias")]
        made = make_transcript(said, **options)
        make_transcript([Said(0, 2, "Os barcos")], programme="Telexornal", **options)
        with transaction(engine) as tx:
            segment_id = tx.connection.scalar(
                text("SELECT min(id) FROM segments WHERE recording_id = :id"), {"id": made.id}
            )
            assert segment_id is not None
            store_correction(
                tx.connection, made.owner.id, NewCorrection(segment_id, "Choveu en Ourense", "Uxía")
            )
    store_working_copies(engine, media_store, tmp_path / "working.flac")
    make_recording()
    with WorkerSession(engine, role="gpu", code_version="x", lease_s=600, claim_limit_s=600) as worker:
        waiting(engine, worker, 5)
        make_recording(name="in-splitting.wav")
        with transaction(engine) as tx:
            some_quality(tx.connection)
            # work under way when the backup is made: two segments and a recording
            assert claim_recording(tx.connection, worker.worker_id) is not None
            assert len(claim_segments(tx.connection, worker.worker_id, binding(tx.connection), limit=2)) == 2

        # docs/backup.md: first the database, then the objects
        source = plain(engine.url.render_as_string(hide_password=False))
        dump = tmp_path / "dump"
        roles = program("pg_dumpall", "--roles-only", "-d", source)
        program("pg_dump", "--format=directory", "--create", "--jobs=2", f"--file={dump}", source)
        copied = tmp_path / "copied-media"
        shutil.copytree(media_store.url.removeprefix("file://"), copied)
        before, stood = contents(engine), catalogue(engine)
        with engine.connect() as connection:
            counts = count_rows(connection)
            assert check_rows(connection) == []

    (tmp_path / "roles.sql").write_text(roles)
    server = plain(database_address(other_server.url, "postgres"))
    program(
        "psql", "--quiet", f"--file={tmp_path / 'roles.sql'}", server, check=False
    )  # the services' role is there
    program("pg_restore", "--exit-on-error", "--create", "--jobs=2", f"--dbname={server}", str(dump))
    restored_url = database_address(other_server.url, engine.url.database or "")

    restored = make_engine(restored_url, application_name="tests")
    try:
        assert catalogue(restored) == stood
        assert contents(restored) == before
        assert seen_by(restored_url, reader) == seen_by(source, reader)
        with restored.connect() as connection:
            # of the whole database, and of PostgreSQL's own functions
            assert not connection.scalar(
                text("SELECT has_database_privilege('public', current_database(), 'TEMPORARY')")
            )
            assert not connection.scalar(
                text("SELECT has_function_privilege('public', 'pg_try_advisory_lock(bigint)', 'EXECUTE')")
            )
        with restored.connect() as connection:
            assert count_rows(connection) == counts
            assert check_rows(connection) == []
        check_the_command(fonoteca, monkeypatch, restored_url, copied)
        go_on(restored)
    finally:
        restored.dispose()


def check_the_command(
    fonoteca: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, database_url: str, media: Path
) -> None:
    """`fonoteca check` is content with the restored system, and names a file that is missing or cut."""
    monkeypatch.setenv("FONOTECA_DATABASE_URL", database_url)
    monkeypatch.setenv("FONOTECA_STORAGE_URL", f"file://{media}")
    fine = fonoteca("check")
    assert (fine.code, "everything holds together" in fine.out) == (0, True), fine
    lost, cut = sorted(media.rglob("original"))[:2]
    kept = cut.read_bytes()
    lost.rename(lost.with_name("kept"))
    cut.write_bytes(kept[:-1])
    wrong = fonoteca("check", "--json")
    lines = [line for line in json.loads(wrong.out)["wrong"] if str(lost.relative_to(media)) in line]
    assert wrong.code == 1
    assert "is not in the object store" in lines[0]
    assert f"has {len(kept) - 1} bytes, and {len(kept)} were submitted" in wrong.out
    lost.with_name("kept").rename(lost)
    cut.write_bytes(kept)
    assert fonoteca("check", "--no-media").code == 0


def go_on(engine: Engine) -> None:
    """What was under way goes back to the queue, since its worker is not here, and is done by another."""
    with transaction(engine) as tx:
        swept = take_back_dead_claims(tx.connection)
    assert (swept.segments_returned, swept.recordings_returned) == (2, 1)
    with WorkerSession(engine, role="gpu", code_version="x", lease_s=60, claim_limit_s=60) as worker:
        waiting(engine, worker, 9)
        with transaction(engine) as tx:
            claims = claim_segments(tx.connection, worker.worker_id, binding(tx.connection), limit=10)
            assert len(claims) == 6
            results = [
                SegmentResult(claim.segment_id, claim.attempt, "un peixe restaurado", [1], [-0.1], -0.1, [])
                for claim in claims
            ]
            assert store_results(tx.connection, worker.worker_id, results, max_attempts=3) == 6
    with engine.connect() as connection:
        assert len(search(connection, None, "peixes restaurados").hits) == 6
        assert connection.scalar(text("SELECT count(*) FROM recordings WHERE finished_at IS NULL")) == 0
