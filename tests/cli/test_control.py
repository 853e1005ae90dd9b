"""`fonoteca pause`, `resume`, `cancel`, `retry` against a real server, and `fonoteca queue` against the database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from db.connect import transaction
from db.liveness import WorkerSession
from db.splitting import claim_recording, fail_split
from db.work import Failure
from tests.cli.conftest import Ended

Run = Callable[..., Ended]


@pytest.fixture
def database(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", engine.url.render_as_string(hide_password=False))


def test_a_batch_is_paused_goes_on_is_cancelled_and_tried_again(
    api: str, fonoteca: Run, make_recording: Any
) -> None:
    made = make_recording(name="novas.mp3")
    batch = str(made.batch_id)
    ended = fonoteca("pause", batch)
    assert (ended.code, ended.out) == (
        0,
        f"paused batch of novas.mp3: `fonoteca resume {batch}` lets it go on\n",
    )
    assert fonoteca("resume", batch).out == "batch of novas.mp3 goes on\n"
    assert fonoteca("cancel", batch).out == "1 recording stopped\n"
    assert fonoteca("retry", batch).out == "1 recording read anew\n"
    assert fonoteca("retry", batch).out == "nothing had failed or was cancelled\n"
    assert json.loads(fonoteca("pause", batch, "--json").out)["paused"] is True
    assert "1 received (paused)" in fonoteca("status", batch).out
    assert "1 received (paused)" in fonoteca("status").out


def test_a_recording_is_named_like_a_batch(api: str, fonoteca: Run, make_recording: Any) -> None:
    made = make_recording(name="novas.mp3")
    assert fonoteca("cancel", made.id).out == "novas.mp3 is cancelled\n"
    assert fonoteca("retry", made.id).out == "novas.mp3 is received\n"
    for verb in ("cancel", "retry"):
        ended = fonoteca(verb, uuid.uuid4())
        assert ended.code == 1
        assert "there is no recording" in ended.err
    assert "there is no batch" in fonoteca("pause", uuid.uuid4()).err
    assert "is not the id of a batch" in fonoteca("retry", "novas.mp3").err


def test_queues_and_broadcasters_are_paused_by_the_operator(
    database: None, fonoteca: Run, make_recording: Any, owner: Any
) -> None:
    assert fonoteca("queue", "status").err.strip() == "nothing waits"
    make_recording()
    assert fonoteca("queue", "weight", owner.name, "2.5").out == f"{owner.name} has weight 2.5\n"
    assert fonoteca("queue", "pause", "split").out == "the queue split is paused\n"
    ended = fonoteca("queue", "status")
    assert "the queue split is paused" in ended.err
    assert ended.out.split()[:4] == ["normal", owner.name, "weight", "2.5"]
    assert "1 recordings" in ended.out
    assert fonoteca("queue", "resume", "split").out == "the queue split goes on\n"
    assert fonoteca("queue", "pause", "--broadcaster", owner.name).code == 0
    (waiting,) = json.loads(fonoteca("queue", "status", "--json").out)["waiting"]
    assert (waiting["broadcaster"], waiting["is_paused"], waiting["recordings"]) == (owner.name, True, 0)
    assert fonoteca("queue", "resume", "--broadcaster", owner.name).code == 0


def test_what_cannot_be_done_is_said(database: None, fonoteca: Run) -> None:
    assert "name one" in fonoteca("queue", "pause").err
    assert (
        "there is no broadcaster named 'ninguen'"
        in fonoteca("queue", "pause", "--broadcaster", "ninguen").err
    )
    ended = fonoteca("queue", "weight", "ninguen", "0")
    assert (ended.code, "0.001 to 1,000" in ended.err) == (1, True)


def test_what_went_wrong_is_told(api: str, fonoteca: Run, engine: Engine, make_recording: Any) -> None:
    made = make_recording()
    assert fonoteca("status", made.id, "--attempts").out == "nothing was tried yet\n"
    worker = WorkerSession(engine, role="media", code_version="test", lease_s=60, claim_limit_s=60).start()
    with transaction(engine) as tx:
        claimed = claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
        broken = Failure("bad_media", "novas.mp3: no audio in it", retryable=False)
        fail_split(tx.connection, claimed, worker.worker_id, broken, max_attempts=3)
    worker.stop()
    told = fonoteca("status", made.id, "--attempts").out.splitlines()
    assert "failed  splitting, attempt 1 on " in told[0]
    assert told[0].endswith(": novas.mp3: no audio in it")
    assert told[1] == "1 failed"
    assert "name the recording" in fonoteca("status", "--attempts").err


def test_finished_recordings_are_transcribed_again(api: str, fonoteca: Run, make_transcript: Any) -> None:
    made = make_transcript(programme="Serán")
    assert "say which recordings" in fonoteca("transcribe-again").err
    assert fonoteca("transcribe-again", "--programme", "Diario").out == "0 recordings transcribed again\n"
    assert fonoteca("transcribe-again", made.id).out == "1 recording transcribed again\n"
    assert fonoteca("transcribe-again", made.batch_id).out == "0 recordings transcribed again\n"
    assert json.loads(fonoteca("transcribe-again", "--all", "--json").out) == {"n_recordings": 0}
    ended = fonoteca("transcribe-again", "--all", "--model", "ninguen")
    assert (ended.code, "no model named 'ninguen'" in ended.err) == (1, True)
    assert "there is no recording" in fonoteca("transcribe-again", uuid.uuid4()).err
