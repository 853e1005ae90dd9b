"""What the quality worker does each minute, on real folders, and as a real process beside two beats."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import wave
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

import workers.night
import workers.queue
from compose.local.process import Service
from compose.local.spawn import wait_until
from db.connect import transaction
from db.evaluation_runs import find_runs
from db.media_store import MediaStore
from db.nights import begin_now, read_night
from db.settings import Settings
from db.verdicts import read_verdicts
from evaluation.held_out import read_nightly_sets
from tests.evaluation.night_factory import MADRID, Nights, steady
from workers.night import Retries, look_after_nights
from workers.queue import GPU_QUEUE

Query = Callable[..., list[Any]]


def make_folder(datasets: Path, name: str, n: int = 12) -> Path:
    """A set of `n` seconds of silence with texts, as a person would put it there."""
    folder = datasets / name
    folder.mkdir(parents=True)
    lines = []
    for index in range(n):
        with wave.open(str(folder / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(index.to_bytes(2, "little") * 16_000)
        content = {
            "audio": f"{index}.wav",
            "text": f"a casa do mar número {index}",
            "speaker": f"s{index % 6}",
        }
        lines.append(json.dumps(content))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    make_folder(folder, "one")
    make_folder(folder, "two")
    return folder


@pytest.fixture
def nightly(settings: Settings, datasets: Path) -> Settings:
    return settings.model_copy(update={"datasets": datasets})


@pytest.fixture
def installed(engine: Engine) -> None:
    """A worker that was there long before any night of these tests."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO workers (role, host, pid, code_version, started_at, lease_until) "
                "VALUES ('media', 'here', 1, '1', '2026-01-01', '2026-01-01')"
            )
        )


@pytest.fixture
def tick(
    engine: Engine, nightly: Settings, media_store: MediaStore, installed: None
) -> Callable[..., dt.date]:
    """`tick(n)`: what the worker does a minute after the n-th night was due; the night's date."""

    def run(n: int, *, settings: Settings = nightly, **keywords: Any) -> dt.date:
        day = dt.date(2026, 11, 1) + dt.timedelta(days=n)
        now = MADRID.due_at(day) + dt.timedelta(minutes=1)
        look_after_nights(engine, settings, media_store, now=now, **keywords)
        return day

    return run


def generate(engine: Engine, settings: Settings, night: dt.date) -> None:
    """What GPU workers would do: all runs of a night, finished."""
    sets = {held_out.name: held_out for held_out in read_nightly_sets(settings)[0]}
    nights = Nights(engine, settings)
    with engine.connect() as connection:
        runs = find_runs(connection, night)
        nights.models = {row.name: row.id for row in connection.execute(text("SELECT name, id FROM models"))}
    for run in runs:
        if run.is_open:
            nights.generate(run.run_id, sets[run.set_name], steady())


def test_a_night_from_due_to_report(
    engine: Engine, nightly: Settings, tick: Any, query: Query, media_store: MediaStore
) -> None:
    mailed = nightly.model_copy(update={"report_mail_to": "noa@example.org"})
    night = tick(1, settings=mailed)
    tick(1, settings=mailed)
    assert query("SELECT night, state FROM quality_nights") == [(night, "measuring")]
    with engine.connect() as connection:
        assert [run.set_name for run in find_runs(connection, night)] == ["one", "two"]
    with redis.Redis.from_url(nightly.require_redis_url()) as client:
        assert client.llen(GPU_QUEUE) == 1, "the GPU workers are told once"
    generate(engine, nightly, night)
    tick(1, settings=mailed)
    tick(1, settings=mailed)
    with engine.connect() as connection:
        found = read_night(connection, night)
        verdicts = read_verdicts(connection, night)
    assert found is not None
    assert (found.state, found.failure_reason) == ("done", None)
    assert [(row.subject, row.verdict) for row in verdicts] == [("one", "ok"), ("two", "ok")]
    assert query("SELECT night FROM quality_reports") == [(night,)]
    assert query("SELECT kind, recipient, night FROM messages") == [("report", "noa@example.org", night)]
    with closing(media_store.open(f"quality/{night}/report.gl.html")) as reader:
        assert b"<html" in bytes(reader.read(2000))


def test_a_set_whose_folder_is_gone_or_broken_is_not_measured(
    engine: Engine, nightly: Settings, datasets: Path, tick: Any, query: Query
) -> None:
    night = tick(1)
    generate(engine, nightly, night)
    tick(1)
    shutil.rmtree(datasets / "one")
    (datasets / "two" / "manifest.jsonl").write_text("{")
    make_folder(datasets, "three")
    (datasets / "three" / "0.wav").unlink()
    night = tick(2)
    assert query("SELECT state FROM quality_nights WHERE night = :night", night=night) == [("done",)]
    with engine.connect() as connection:
        verdicts = {row.subject: row for row in read_verdicts(connection, night)}
        found = read_night(connection, night)
    assert {name: row.cause for name, row in verdicts.items()} == {
        "one": "not_measured",
        "two": "not_measured",
    }
    assert verdicts["one"].evidence["reason"] == f"{datasets} holds no set of this name any more"
    assert "manifest.jsonl" in verdicts["two"].evidence["reason"]
    assert found is not None
    assert "0.wav" in found.failures["set three"], "never measured, so no verdict; but told"
    assert query("SELECT kind FROM alerts") == []
    tick(3)
    assert query("SELECT kind, subject FROM alerts ORDER BY subject") == [
        ("not_measured", "one"),
        ("not_measured", "two"),
    ]


def test_a_set_that_nobody_wants_measured_is_not_missed(
    engine: Engine, nightly: Settings, datasets: Path, tick: Any, query: Query
) -> None:
    generate(engine, nightly, tick(1))
    tick(1)
    (datasets / "two" / "set.toml").write_text("nightly = false\n")
    night = tick(2)
    generate(engine, nightly, night)
    tick(2)
    subjects = "SELECT subject FROM quality_verdicts WHERE night = :night"
    assert query(subjects, night=night) == [("one",)]
    chosen = nightly.model_copy(update={"nightly_sets": "two"})
    night = tick(3, settings=chosen)
    generate(engine, chosen, night)
    tick(3, settings=chosen)
    assert query(subjects, night=night) == [("two",)]


def test_without_datasets_what_was_measured_is_missed_and_nothing_else(
    engine: Engine, settings: Settings, nightly: Settings, tick: Any, query: Query
) -> None:
    night = tick(1, settings=settings)
    assert query("SELECT state, failure_reason FROM quality_nights") == [
        ("done", "fixed sets: FONOTECA_DATASETS is not set: none was measured")
    ]
    assert query("SELECT count(*) FROM quality_verdicts") == [(0,)]
    night = tick(2)
    generate(engine, nightly, night)
    tick(2)
    night = tick(3, settings=settings)
    rows = query(
        "SELECT subject, evidence ->> 'reason' FROM quality_verdicts WHERE night = :night", night=night
    )
    assert sorted(rows) == [(name, "FONOTECA_DATASETS is not set") for name in ("one", "two")]


def test_before_anything_runs_no_night_begins(
    engine: Engine, nightly: Settings, media_store: MediaStore, query: Query
) -> None:
    look_after_nights(engine, nightly, media_store)
    assert query("SELECT count(*) FROM quality_nights") == [(0,)]


def test_what_fails_is_told_and_tried_again_with_patience(
    engine: Engine,
    nightly: Settings,
    tick: Any,
    query: Query,
    media_store: MediaStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []
    broken = {"prepare", "settle", "report"}

    def breaking(name: str) -> Callable[..., Any]:
        real = getattr(workers.night, name)

        def run(*given: Any, **named: Any) -> Any:
            tried.append(name)
            if name in broken:
                raise OSError(f"{name} broke")
            return real(*given, **named)

        return run

    for name in sorted(broken):
        monkeypatch.setattr(workers.night, name, breaking(name))
    retries = Retries()
    failures = "SELECT failure_reason FROM quality_nights"
    night = tick(1, retries=retries)
    assert query(failures) == [("preparing: OSError: prepare broke",)]
    now = MADRID.due_at(night)

    def at(minutes: float) -> None:
        look_after_nights(
            engine, nightly, media_store, now=now + dt.timedelta(minutes=minutes), retries=retries
        )

    at(1.5)
    assert tried == ["prepare"], "a minute has not passed"
    broken.remove("prepare")
    at(2)
    assert query(failures) == [(None,)]
    generate(engine, nightly, night)
    at(3)
    at(3.5)
    assert tried == ["prepare", "prepare", "settle"]
    assert query(failures) == [("settling: OSError: settle broke",)]
    assert query("SELECT state FROM quality_nights") == [("measuring",)]
    broken.remove("settle")
    at(4)
    assert query("SELECT state FROM quality_nights") == [("done",)]
    assert query(failures) == [("report: OSError: report broke",)]
    assert query("SELECT count(*) FROM quality_verdicts") == [(2,)], "a report that fails undoes no verdict"
    broken.clear()
    at(5)
    assert query(failures) == [(None,)]
    assert query("SELECT night FROM quality_reports") == [(night,)]


def test_a_night_that_nobody_could_prepare_is_settled_at_its_deadline(
    engine: Engine,
    nightly: Settings,
    tick: Any,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    media_store: MediaStore,
) -> None:
    generate(engine, nightly, tick(1))
    tick(1)

    def broken(*_: Any) -> int:
        raise OSError("the disk is broken")

    with monkeypatch.context() as patched:
        patched.setattr(workers.night, "prepare", broken)
        night = tick(2)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE quality_nights SET begun_at = :at WHERE night = :night"),
                {"at": MADRID.due_at(night), "night": night},
            )
        now = MADRID.due_at(night) + dt.timedelta(hours=18)
        look_after_nights(engine, nightly, media_store, now=now)
    with engine.connect() as connection:
        rows = read_verdicts(connection, night)
    assert [row.cause for row in rows] == ["not_measured", "not_measured"]
    assert rows[0].evidence["reason"] == "the sets were never read: OSError: the disk is broken"


@pytest.mark.slow
def test_two_beats_and_two_quality_workers_make_one_night(
    engine: Engine,
    settings: Settings,
    start_service: Callable[..., Service],
    query: Query,
    datasets: Path,
) -> None:
    environment = {"FONOTECA_DATASETS": str(datasets)}
    with transaction(engine) as tx:
        begun = begin_now(tx.connection, MADRID, now=dt.datetime.now(dt.UTC))
    workers_started = [start_service("quality-worker", **environment) for _ in range(2)]
    for _ in range(3):
        workers.queue.wake_night()
    prepared = "SELECT count(*) FROM evaluation_runs WHERE night = :night"
    assert wait_until(lambda: query(prepared, night=begun.night) == [(2,)], 60), workers_started[0].log_tail()
    generate(engine, settings.model_copy(update={"datasets": datasets}), begun.night)
    for _ in range(3):
        workers.queue.wake_night()
    reported = "SELECT count(*) FROM quality_reports"
    assert wait_until(lambda: query(reported) == [(1,)], 90), workers_started[0].log_tail()
    assert query("SELECT count(*), count(DISTINCT subject) FROM quality_verdicts") == [(2, 2)]
    assert query("SELECT state FROM quality_nights") == [("done",)]
    assert query("SELECT count(*) FROM baselines") == [(2,)]
