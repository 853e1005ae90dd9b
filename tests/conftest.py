"""Real servers and factories for every test.

One PostgreSQL and one Valkey run for the whole session. The schema is migrated once, into a template database;
each test that asks for `engine` gets a clone of it, which takes tens of milliseconds. A test marked by nothing
and asking for nothing starts nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import lzma
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import structlog
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine, create_engine, make_url, text

import db.lexicon
from compose.local.postgres import EmbeddedPostgres
from compose.local.valkey import EmbeddedValkey
from db.batches import NewRecording, create_batch
from db.broadcasters import create_api_key, create_broadcaster
from db.connect import make_engine, transaction
from db.liveness import WorkerSession
from db.media_store import MediaStore, original_key
from db.queue import claim_segments, store_results
from db.schema import SAMPLE_RATE_HZ
from db.settings import Settings
from db.splitting import claim_recording, store_split
from db.states import GapKind, Priority
from db.uploads import create_upload, finish_upload
from db.work import Failure, ModelBinding, NewGap, NewTranscript, SegmentResult
from migrations.run import migrate

TEMPLATE_DATABASE = "fonoteca_template"
DRIVER = "postgresql+psycopg"
DEMO_WEIGHTS_SHA256 = "d" * 64

_numbers = itertools.count(1)

# how long an example takes says what else the machine does
hypothesis_settings.register_profile("any_machine", deadline=None)
hypothesis_settings.load_profile("any_machine")


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Logs as plain lines: structlog's default draws every traceback with its variables, for seconds."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


# --- servers -----------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what is marked slow runs at the end, in its own order. What needs a GPU is left out without."""
    if on_gpu := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Folder of the session's servers. Not one of pytest's: those are closed to the unprivileged user that
    PostgreSQL runs as when the tests are started by root."""
    with tempfile.TemporaryDirectory(prefix="fonoteca-tests-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_url(servers_folder: Path) -> Iterator[str]:
    """Address of a real PostgreSQL that lives as long as the session."""
    folder = servers_folder / "postgres"
    folder.mkdir(mode=0o711)
    server = EmbeddedPostgres(folder / "data", folder / "run", folder / "postgres.log", durable=False)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey_server_url(servers_folder: Path) -> Iterator[str]:
    """Address of a real Valkey that lives as long as the session. Tests ask for `valkey_url`."""
    folder = servers_folder / "valkey"
    folder.mkdir()
    server = EmbeddedValkey(folder / "data", folder / "run", folder / "valkey.log", durable=False)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def valkey_url(valkey_server_url: str) -> str:
    """Address of a Valkey that is empty at the start of the test."""
    with redis.Redis.from_url(valkey_server_url) as connection:
        connection.flushall()
    return valkey_server_url


def database_address(server_url: str, database: str) -> str:
    """Address of one database of a server."""
    url = make_url(server_url).set(drivername=DRIVER, database=database)
    return url.render_as_string(hide_password=False)


@dataclass(frozen=True)
class Databases:
    """Makes and drops databases on the session's server."""

    server_url: str
    server: Engine

    def make(self, *, migrated: bool = True) -> str:
        """Address of a new database: a clone of the migrated template, or empty."""
        name = f"test_{next(_numbers)}"
        # copied as files: through the log, the lexicon's pages made a clone three times dearer
        origin = f" TEMPLATE {TEMPLATE_DATABASE} STRATEGY FILE_COPY" if migrated else ""
        with self.server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}{origin}"))
        return database_address(self.server_url, name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it: hundreds of clones would fill a small disk."""
        with self.server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {make_url(url).database} WITH (FORCE)"))


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    """The session's databases, with a migrated template to clone."""
    server = create_engine(database_address(postgres_url, "postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {TEMPLATE_DATABASE}"))
    template = make_engine(database_address(postgres_url, TEMPLATE_DATABASE), application_name="tests")
    migrate(template)
    template.dispose()
    yield Databases(postgres_url, server)
    server.dispose()


@pytest.fixture
def make_database(databases: Databases) -> Iterator[Callable[..., str]]:
    """`make_database(migrated=True)`: address of one more database, dropped after the test."""
    made: list[str] = []

    def make(*, migrated: bool = True) -> str:
        made.append(databases.make(migrated=migrated))
        return made[-1]

    yield make
    for url in made:
        databases.drop(url)


@pytest.fixture
def database_url(make_database: Callable[..., str]) -> str:
    """Address of a migrated, empty database of the test's own."""
    return make_database()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the test's own database."""
    engine = make_engine(database_url, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def small_lexicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations of the test load three forms for search, the same way: 252,000 take a second each time."""
    file = tmp_path / "small-lexicon.tsv.xz"
    file.write_bytes(lzma.compress(b"cantou\tcant\nchoveu\tchov\nperda\tperd\n"))
    monkeypatch.setattr(db.lexicon, "LEXICON_FILE", file)


@pytest.fixture
def settings(tmp_path: Path, database_url: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that point at the test's own database, queue and folders.

    They stand in the environment, so that subprocesses and `Settings()` anywhere find the same.
    """
    addresses = {
        "FONOTECA_HOME": tmp_path / "home",
        "FONOTECA_DATABASE_URL": database_url,
        "FONOTECA_REDIS_URL": valkey_url,
        "FONOTECA_STORAGE_URL": f"file://{tmp_path / 'media'}",
        "FONOTECA_UPLOAD_DIR": tmp_path / "uploads",
    }
    for name, value in addresses.items():
        monkeypatch.setenv(name, str(value))
    return Settings()


@pytest.fixture
def media_store(settings: Settings) -> MediaStore:
    """The object store of the test: a folder."""
    return MediaStore(settings.require_storage_url())


@pytest.fixture(scope="session")
def stopping_servers() -> Iterator[list[threading.Thread]]:
    """API threads told to stop. They take a fifth of a second, which no test should wait for."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "an API thread did not stop within 30 s"


@pytest.fixture
def server_url(settings: Settings, stopping_servers: list[threading.Thread]) -> Iterator[str]:
    """Address of the real API, served over a socket by a thread."""
    import uvicorn

    from api.app import create_app
    from api.serve import make_server

    server: uvicorn.Server = make_server(create_app(settings), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the API's thread ended while starting"
        assert time.monotonic() < deadline, "the API did not start within 30 s"
        time.sleep(0.002)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    stopping_servers.append(thread)


@pytest.fixture
def client(server_url: str) -> Iterator[httpx.Client]:
    """An HTTP client of the real API, without a key: pass `headers=owner.headers`."""
    # verify=False: nothing here speaks TLS, and loading the certificates takes longer than most tests
    with httpx.Client(base_url=server_url, timeout=30, verify=False) as client:
        yield client


# --- factories ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """A broadcaster and one of its keys."""

    id: int
    name: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """What a request of this broadcaster carries."""
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class MadeRecording:
    """What `make_recording` made."""

    id: uuid.UUID
    batch_id: uuid.UUID
    name: str
    owner: Owner
    media: bytes


@pytest.fixture
def make_broadcaster(engine: Engine) -> Callable[..., Owner]:
    """`make_broadcaster(name=None)`: a broadcaster with a key."""

    def make(name: str | None = None) -> Owner:
        name = name or f"radio-{next(_numbers)}"
        with transaction(engine) as tx:
            broadcaster = create_broadcaster(tx.connection, name)
            key = create_api_key(tx.connection, name, label="test")
        return Owner(broadcaster.id, name, key)

    return make


@pytest.fixture
def owner(make_broadcaster: Callable[..., Owner]) -> Owner:
    """One broadcaster with a key."""
    return make_broadcaster()


@pytest.fixture
def make_recording(engine: Engine, request: pytest.FixtureRequest, owner: Owner) -> Callable[..., Any]:
    """`make_recording(...)`: a recording in a batch of its own, `received` with its media in the store.

    Keywords: `media` (its bytes, or the path of a file), `name`, `programme`, `programme_kind`, `broadcast_on`,
    `timecode_offset_ms`, `audio_track`, `priority`, `owner` (the fixture `owner`), `received=False` to leave it
    awaiting its media, `announce_sha256=False` for a submitter that sends no digest.
    """

    def make(
        *,
        media: bytes | Path = b"RIFF not really audio",
        name: str | None = None,
        programme: str | None = None,
        programme_kind: str | None = None,
        broadcast_on: dt.date | None = None,
        timecode_offset_ms: int | None = None,
        audio_track: str = "auto",
        priority: Priority = Priority.NORMAL,
        owner: Owner = owner,
        received: bool = True,
        announce_sha256: bool = True,
    ) -> MadeRecording:
        content = media.read_bytes() if isinstance(media, Path) else media
        name = name or (media.name if isinstance(media, Path) else f"recording-{next(_numbers)}.wav")
        digest = hashlib.sha256(content)
        announced = NewRecording(
            name,
            len(content),
            digest.hexdigest() if announce_sha256 else None,
            programme,
            programme_kind,
            broadcast_on,
            timecode_offset_ms,
            audio_track,
        )
        with transaction(engine) as tx:
            batch = create_batch(
                tx.connection, owner.id, name=f"batch of {name}", priority=priority, recordings=[announced]
            )
            recording_id = tx.connection.scalar(
                text("SELECT id FROM recordings WHERE batch_id = :id"), {"id": batch.batch_id}
            )
        assert recording_id is not None
        if received:
            store: MediaStore = request.getfixturevalue("media_store")
            staged = Path(request.getfixturevalue("tmp_path")) / f"staged-{recording_id}"
            staged.write_bytes(content)
            key = original_key(owner.id, recording_id)
            store.put_file(key, staged)
            staged.unlink()
            with transaction(engine) as tx:
                upload = create_upload(tx.connection, owner.id, recording_id, len(content))
                assert finish_upload(tx.connection, upload, sha256=digest.digest(), media_key=key)
        return MadeRecording(recording_id, batch.batch_id, name, owner, content)

    return make


@dataclass(frozen=True)
class Said:
    """A segment for `make_transcript`: text None makes it a failed one."""

    start_s: float
    end_s: float
    text: str | None
    mean_logprob: float = -0.05


@pytest.fixture
def make_transcript(engine: Engine, make_recording: Callable[..., Any]) -> Callable[..., MadeRecording]:
    """`make_transcript(segments, ...)`: a recording that went the whole way through the real queue.

    Keywords: `segments` (list of `Said`; what lies between is a no-speech gap), `duration_s`, `is_demo`, and
    those of `make_recording`. Only for databases in which no other work waits.
    """

    def make(
        segments: Sequence[Said] = (Said(0.5, 4.0, "Boas noites, isto é o telexornal."),),
        *,
        duration_s: float | None = None,
        is_demo: bool = True,
        **recording: Any,
    ) -> MadeRecording:
        made: MadeRecording = make_recording(**recording)
        store_transcript(engine, segments, duration_s or segments[-1].end_s + 1, is_demo=is_demo)
        return made

    return make


def store_transcript(engine: Engine, segments: Sequence[Said], duration_s: float, *, is_demo: bool) -> None:
    """Split the one received recording into `segments` and store their texts, as the workers would."""

    def samples(seconds: float) -> int:
        return round(seconds * SAMPLE_RATE_HZ)

    edges = [0.0, *(edge for said in segments for edge in (said.start_s, said.end_s)), duration_s]
    gaps = [
        NewGap(GapKind.NO_SPEECH, samples(start), samples(end))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        if samples(end) > samples(start)
    ]
    texts = {samples(said.start_s): said for said in segments}
    worker = WorkerSession(engine, role="gpu", code_version="0.1.0+test", lease_s=60, claim_limit_s=60)
    with worker:
        with transaction(engine) as tx:
            split = claim_recording(tx.connection, worker.worker_id)
            assert split is not None, "no recording waits to be split"
            found = NewTranscript(
                splitter_version="energy-1",
                code_version="0.1.0+test",
                duration_samples=samples(duration_s),
                working_copy_key=f"{split.broadcaster_id}/{split.recording_id}/working-1.flac",
                media_info={"container": "wav"},
                segments=[(samples(said.start_s), samples(said.end_s)) for said in segments],
                gaps=gaps,
            )
            assert store_split(tx.connection, split, worker.worker_id, found)
        with transaction(engine) as tx:
            model_id = tx.connection.scalar(
                text(
                    "INSERT INTO models (name, weights_sha256, is_demo, config) "
                    "VALUES (:name, :weights, :is_demo, '{}') "
                    "ON CONFLICT (name, weights_sha256) DO UPDATE SET is_demo = excluded.is_demo RETURNING id"
                ),
                {
                    "name": "demo" if is_demo else "phi4-galician",
                    "weights": DEMO_WEIGHTS_SHA256,
                    "is_demo": is_demo,
                },
            )
            assert model_id is not None
            binding = ModelBinding(model_id, "Transcribe the audio clip into text.", {"max_new_tokens": 256})
            claims = claim_segments(tx.connection, worker.worker_id, binding, limit=len(segments) or 1)
            results = [
                SegmentResult(
                    claim.segment_id,
                    claim.attempt,
                    said.text,
                    [1],
                    [said.mean_logprob],
                    said.mean_logprob,
                    [],
                )
                for claim in claims
                if (said := texts[claim.start_sample]).text is not None
            ]
            failure = Failure("model_error", "the model raised an error", retryable=False)
            failures = [(claim, failure) for claim in claims if texts[claim.start_sample].text is None]
            store_results(tx.connection, worker.worker_id, results, failures, max_attempts=1)
