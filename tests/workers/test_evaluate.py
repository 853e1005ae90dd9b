"""The night's runs beside transcribing: who goes first, and what interruptions cost."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from compose.local.spawn import wait_until
from db.connect import transaction
from db.evaluation_runs import (
    Binding,
    bind_run,
    create_nightly_run,
    find_open_runs,
    find_runs,
    hold_run,
    read_predictions,
    register_set,
)
from db.settings import Settings
from db.states import Priority
from evaluation.held_out import find_sets, read_set, register_nightly_sets
from evaluation.predict import provenance_of
from evaluation.run_scores import score_run
from tests.evaluation.made_sets import make_set
from workers.context import WorkerContext
from workers.evaluate import evaluate_pending, goes_first
from workers.queue import GPU_QUEUE, QUALITY_QUEUE
from workers.split import split_one
from workers.sweep import sweep
from workers.transcribe import Transcriber, transcribe_pending

STREET = Path(__file__).parents[2] / "samples" / "archive" / "rua-con-ruido.wav"
NIGHT = dt.date(2026, 11, 22)
Query = Callable[..., list[Any]]
Make = Callable[..., Any]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("FONOTECA_DATASETS", str(folder))
    return folder


@pytest.fixture
def context(datasets: Path, settings: Settings) -> Any:
    context = WorkerContext.open("gpu", Settings())
    yield context
    context.close()


def begin_night(engine: Engine, settings: Settings) -> list[uuid.UUID]:
    """The runs of a night that was just begun."""
    with transaction(engine) as tx:
        tx.connection.execute(
            text(
                "INSERT INTO quality_nights (night, from_at, until_at) "
                "VALUES (:night, now() - interval '1 day', now())"
            ),
            {"night": NIGHT},
        )
        sets, unreadable = register_nightly_sets(tx.connection, settings)
        assert not unreadable
        return [create_nightly_run(tx.connection, NIGHT, set_id) for set_id, _ in sets]


def messages(settings: Settings, queue: str = GPU_QUEUE) -> list[str]:
    """Names of the tasks that wait in a queue, oldest first; emptied."""
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        waiting = [json.loads(message)["headers"]["task"] for message in client.lrange(queue, 0, -1)]
        client.delete(queue)
    return waiting[::-1]


def add_segments(context: WorkerContext, make_recording: Make, priority: Priority) -> None:
    make_recording(media=STREET, priority=priority)
    assert split_one(context)


def test_a_night_is_generated_scored_and_done_once(
    context: WorkerContext, transcriber: Transcriber, datasets: Path, engine: Engine
) -> None:
    make_set(datasets, "radio", 3, programme="Diario")
    make_set(datasets, "tele", 2, start=3)
    begin_night(engine, context.settings)
    while done := evaluate_pending(context, transcriber):
        assert done.is_finished
    assert evaluate_pending(context, transcriber) is None
    with transaction(engine) as tx:
        runs = find_runs(tx.connection, NIGHT)
        assert [(run.set_name, run.n_predicted, run.is_open) for run in runs] == [
            ("radio", 3, False),
            ("tele", 2, False),
        ]
        assert runs[0].model_id == transcriber.binding.model_id
        assert runs[0].device == "cpu float32"
        assert runs[0].prompt == transcriber.engine.prompt
        rows = read_predictions(tx.connection, runs[0].run_id)
        scores = score_run(tx.connection, runs[0].run_id)
        stored = tx.connection.execute(
            text("SELECT * FROM evaluation_scores WHERE normalizer = 'basic'")
        ).one()
    assert [row.key for row in rows] == ["000.flac", "001.flac", "002.flac"]
    assert rows[0].programme == "Diario"
    basic = scores["basic"].score
    assert basic is not None
    assert basic.wer.value < 0.2
    # one programme says nothing about spread: its utterances are the clusters
    assert (stored.wer, stored.n_utterances, stored.n_clusters) == (basic.wer.value, 3, 3)
    assert messages(context.settings, QUALITY_QUEUE) == ["workers.night"] * 2, (
        "each finished run lets the night go on"
    )


@pytest.mark.parametrize(
    ("priority", "waited_h", "segments_first"),
    [
        (Priority.URGENT, 0, True),
        (Priority.URGENT, 100, True),
        (Priority.NORMAL, 5.9, True),
        (Priority.NORMAL, 6.1, False),
        (Priority.ARCHIVE, 0, False),
        (None, 0, False),
    ],
)
def test_who_goes_first(
    priority: Priority | None, waited_h: float, segments_first: bool, settings: Settings
) -> None:
    rank = priority.rank if priority else None
    assert goes_first(rank, waited_h * 3600, settings) is segments_first


def test_segments_that_go_first_keep_the_night_waiting_and_are_woken(
    context: WorkerContext,
    transcriber: Transcriber,
    datasets: Path,
    engine: Engine,
    make_recording: Make,
    query: Query,
) -> None:
    make_set(datasets, "radio", 2)
    begin_night(engine, context.settings)
    add_segments(context, make_recording, Priority.NORMAL)
    messages(context.settings)
    assert evaluate_pending(context, transcriber) is None
    assert query("SELECT count(*) FROM predictions") == [(0,)]
    assert messages(context.settings) == ["workers.transcribe"]
    query_patience = "UPDATE evaluation_runs SET created_at = now() - interval '7 hours'"
    with transaction(engine) as tx:
        tx.connection.execute(text(query_patience))
    done = evaluate_pending(context, transcriber)
    assert done is not None
    assert done.is_finished
    assert messages(context.settings) == ["workers.transcribe"]


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.ARCHIVE])
def test_archive_work_gives_way_after_a_claim_and_normal_work_does_not(
    priority: Priority,
    context: WorkerContext,
    transcriber: Transcriber,
    datasets: Path,
    engine: Engine,
    make_recording: Make,
    query: Query,
) -> None:
    make_set(datasets, "radio", 2)
    begin_night(engine, context.settings)
    for _ in range(3):
        add_segments(context, make_recording, priority)
    (n_segments,) = query("SELECT count(*) FROM segments")[0]
    assert n_segments >= 3
    context.settings.gpu_batch_segments = 1
    messages(context.settings)
    claimed = transcribe_pending(context, transcriber)
    assert claimed == (1 if priority is Priority.ARCHIVE else n_segments)
    sent = messages(context.settings)
    assert "workers.evaluate" in sent
    # the night's turn: archive work waits for all of it
    if priority is Priority.ARCHIVE:
        done = evaluate_pending(context, transcriber)
        assert done is not None
        assert done.is_finished
        assert messages(context.settings) == ["workers.transcribe"]
        # without a run that waits, nothing keeps the backlog
        assert transcribe_pending(context, transcriber) == n_segments - 1
        assert "workers.evaluate" not in messages(context.settings)


def test_a_slice_that_is_interrupted_is_gone_on_with(
    context: WorkerContext,
    transcriber: Transcriber,
    datasets: Path,
    engine: Engine,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_set(datasets, "radio", 12)
    (run_id,) = begin_night(engine, context.settings)
    slow = Transcriber.open(replace_slots(context, 1))

    def urgent_work_comes(*_: object) -> int | None:
        some = query("SELECT count(*) FROM predictions") != [(0,)]
        return Priority.URGENT.rank if some else None

    with monkeypatch.context() as patch:
        patch.setattr("workers.evaluate.LOOK_INTERVAL_S", 0.0)
        patch.setattr("workers.evaluate.waiting_rank", urgent_work_comes)
        patch.setattr("evaluation.predict.STORE_UTTERANCES", 2)
        first = evaluate_pending(context, slow)
    assert first is not None
    assert not first.is_finished
    assert 0 < first.n_stored < 12
    assert "workers.transcribe" in messages(context.settings)
    second = evaluate_pending(context, slow)
    assert second is not None
    assert second.is_finished
    assert first.n_stored + second.n_stored == 12
    # the same texts as in one go, with any number of slots
    with transaction(engine) as tx:
        in_slices = {row.key: row.text for row in read_predictions(tx.connection, run_id)}
        tx.connection.execute(text("TRUNCATE predictions"))
        tx.connection.execute(text("UPDATE evaluation_runs SET finished_at = NULL"))
    assert evaluate_pending(context, transcriber) is not None
    with engine.connect() as connection:
        assert {row.key: row.text for row in read_predictions(connection, run_id)} == in_slices


def replace_slots(context: WorkerContext, n_slots: int) -> WorkerContext:
    return replace(context, settings=context.settings.model_copy(update={"gpu_slots": n_slots}))


def test_a_run_is_held_by_one_and_bound_to_one(
    context: WorkerContext, transcriber: Transcriber, datasets: Path, engine: Engine, query: Query
) -> None:
    make_set(datasets, "radio", 2)
    (run_id,) = begin_night(engine, context.settings)
    model_id = transcriber.binding.model_id
    with hold_run(engine, run_id) as held:
        assert held
        with hold_run(engine, run_id) as too:
            assert not too
        with engine.connect() as connection:
            assert find_open_runs(connection, model_id) == []
        assert evaluate_pending(context, transcriber) is None
    ours = provenance_of(transcriber.engine, model_id)
    with transaction(engine) as tx:
        other_id = tx.connection.scalar(
            text(
                "INSERT INTO models (name, weights_sha256, is_demo, config) "
                "VALUES ('other', 'x', false, '{}') RETURNING id"
            )
        )
        assert bind_run(tx.connection, run_id, replace(ours, model_id=other_id)) is Binding.OURS
        assert bind_run(tx.connection, run_id, ours) is Binding.OTHERS
    assert evaluate_pending(context, transcriber) is None
    # the other one is gone: without progress for longer than normal work may hold it up, the run is begun anew
    patience_min = context.settings.night_patience_h * 60
    with transaction(engine) as tx:
        tx.connection.execute(
            text("UPDATE evaluation_runs SET started_at = now() - make_interval(mins => :mins)"),
            {"mins": int(patience_min) + 1},
        )
        assert bind_run(tx.connection, run_id, ours) is Binding.OTHERS
        assert [run.run_id for run in find_open_runs(tx.connection, model_id)] == []
    with transaction(engine) as tx:
        tx.connection.execute(text("UPDATE evaluation_runs SET started_at = now() - interval '481 minutes'"))
    done = evaluate_pending(context, transcriber)
    assert done is not None
    assert done.is_finished
    assert query("SELECT model_id FROM evaluation_runs") == [(model_id,)]


def test_a_set_that_went_away_costs_no_utterance_its_chance(
    context: WorkerContext, transcriber: Transcriber, datasets: Path, engine: Engine, query: Query
) -> None:
    folder = make_set(datasets, "radio", 3)
    begin_night(engine, context.settings)
    away = folder.rename(datasets.parent / "away")
    assert evaluate_pending(context, transcriber) is None
    assert query("SELECT count(*) FROM predictions") == [(0,)]
    away.rename(folder)
    (folder / "001.flac").write_bytes((folder / "002.flac").read_bytes())
    (folder / "000.flac").unlink()
    done = evaluate_pending(context, transcriber)
    assert done is not None
    assert (done.n_stored, done.n_failed, done.is_finished) == (3, 2, True)
    reasons = query("SELECT failure_reason FROM predictions ORDER BY utterance_id")
    assert "FileNotFoundError" in reasons[0].failure_reason
    assert "its audio changed after the set was registered" in reasons[1].failure_reason
    assert reasons[2].failure_reason is None


def test_the_sweep_wakes_evaluation_as_long_as_a_run_waits(
    context: WorkerContext, transcriber: Transcriber, datasets: Path, engine: Engine
) -> None:
    make_set(datasets, "radio", 1)
    settings = context.settings
    settings.require_upload_dir()
    begin_night(engine, settings)
    sweep(engine, settings)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        headers = json.loads(client.lrange(GPU_QUEUE, 0, -1)[0])["headers"]
    assert headers["task"] == "workers.evaluate"
    assert headers["expires"] is not None, "wake-ups must not pile up while the worker is busy"
    assert evaluate_pending(context, transcriber) is not None
    messages(settings)
    sweep(engine, settings)
    assert messages(settings) == []


def test_the_same_set_is_registered_once_wherever_it_lies(
    datasets: Path, engine: Engine, tmp_path: Path, query: Query
) -> None:
    folder = make_set(datasets, "radio", 2, settings='name = "Radio"')
    cache = tmp_path / "cache"
    with transaction(engine) as tx:
        first = register_set(tx.connection, read_set(find_sets(datasets)[0], cache))
    folder.rename(datasets / "moved")
    with transaction(engine) as tx:
        assert register_set(tx.connection, read_set(find_sets(datasets)[0], cache)) == first
    assert query("SELECT audio FROM held_out_utterances ORDER BY index") == [
        ("moved/000.flac",),
        ("moved/001.flac",),
    ]
    (datasets / "moved" / "manifest.jsonl").write_text('{"audio": "000.flac", "text": "Outro."}\n')
    with transaction(engine) as tx:
        assert register_set(tx.connection, read_set(find_sets(datasets)[0], cache)) != first


@pytest.mark.slow
def test_kill_9_of_a_gpu_worker_in_mid_run_loses_only_its_slice(
    start_service: Callable[..., Any], datasets: Path, settings: Settings, engine: Engine, query: Query
) -> None:
    n = 40
    make_set(datasets, "radio", n)
    (run_id,) = begin_night(engine, Settings())
    quick = {
        "FONOTECA_SWEEP_INTERVAL_S": "1",
        "FONOTECA_GPU_SLOTS": "1",
        "FONOTECA_CODE_VERSION": "test",  # also where somebody commits meanwhile
    }
    start_service("beat", **quick)
    worker = start_service("gpu-worker", **quick)
    stored = "SELECT utterance_id, text, created_at FROM predictions"
    assert wait_until(lambda: bool(query(stored)), 120), worker.log_tail()
    os.kill(worker.pid, signal.SIGKILL)
    before = query(stored)
    assert len(before) < n
    # two go on, and take nothing from each other
    for _ in range(2):
        start_service("gpu-worker", **quick)
    done = "SELECT 1 FROM evaluation_runs WHERE finished_at IS NOT NULL"
    assert wait_until(lambda: bool(query(done)), 120), query("SELECT count(*) FROM predictions")
    after = query(stored)
    assert len(after) == n
    assert set(before) <= set(after)
    assert query("SELECT id FROM evaluation_runs") == [(run_id,)]
