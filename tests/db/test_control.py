"""Pause and go on, cancel, try again: at once, whatever is under way, and nothing that was transcribed is lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from db import control, splitting
from db.batches import NewRecording, create_batch
from db.connect import transaction
from db.control import Retried, Target
from db.liveness import WorkerSession
from db.queue import count_waiting, store_results
from db.states import Priority, WorkQueue
from db.uploads import create_upload
from db.work import Failure, ModelBinding, SegmentClaim
from tests.conftest import MadeRecording, Owner
from tests.db.queue_work import Make, NewWorker, claim, model, rows, split, state_of, store, transcript


@pytest.fixture
def worker(new_worker: NewWorker) -> WorkerSession:
    return new_worker()


@pytest.fixture
def binding(engine: Engine) -> ModelBinding:
    return model(engine)


@pytest.fixture
def submit(engine: Engine, worker: WorkerSession, make_recording: Make) -> Callable[..., MadeRecording]:
    """`submit(n)`: a recording of n segments in a batch of its own, split."""

    def make(n_segments: int = 20, **keywords: object) -> MadeRecording:
        made: MadeRecording = make_recording(**keywords)
        assert split(engine, worker, transcript(n_segments)) == made.id
        return made

    return make


def tell(engine: Engine, what: Callable[..., object], target: Target) -> object:
    with transaction(engine) as tx:
        return what(tx.connection, target)


def move_all(engine: Engine) -> None:
    moved = 1
    while moved:
        with transaction(engine) as tx:
            moved = control.move_held(tx.connection, limit=1)


def drain(engine: Engine, worker: WorkerSession, binding: ModelBinding) -> list[SegmentClaim]:
    """Transcribe all that may be claimed; the claims."""
    taken = []
    while claims := claim(engine, worker, binding):
        assert store(engine, worker, claims) == len(claims)
        taken += claims
    return taken


def batch_of(made: MadeRecording) -> Target:
    return Target(made.owner.id, made.batch_id)


def hold_of(engine: Engine, recording_id: uuid.UUID) -> str | None:
    hold: str | None = state_of(engine, recording_id).hold
    return hold


def fail(
    engine: Engine, worker: WorkerSession, claims: list[SegmentClaim], code: str = "engine_error"
) -> None:
    with transaction(engine) as tx:
        failures = [(one, Failure(code, "broke", retryable=False)) for one in claims]
        store_results(tx.connection, worker.worker_id, [], failures, max_attempts=3)


@pytest.mark.parametrize("moved", [False, True], ids=["at once", "moved out of the way"])
def test_a_paused_batch_is_left_alone_until_it_goes_on(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make, moved: bool
) -> None:
    paused, other = submit(), submit()
    begun = claim(engine, worker, binding, limit=4)
    assert tell(engine, control.pause, batch_of(paused))
    if moved:
        move_all(engine)
        assert hold_of(engine, paused.id) == "held"
    assert store(engine, worker, begun) == 4, "what was under way is kept"
    assert {one.recording_id for one in drain(engine, worker, binding)} == {other.id}
    assert state_of(engine, other.id).state == "completed"
    assert state_of(engine, paused.id).state == "transcribing"
    if moved:
        with engine.connect() as connection:
            assert count_waiting(connection).segments == 0, "no worker is woken for what is held back"
    assert tell(engine, control.resume, batch_of(paused))
    move_all(engine)
    assert len(drain(engine, worker, binding)) == 20 - sum(one.recording_id == paused.id for one in begun)
    assert state_of(engine, paused.id).state == "completed"


def test_what_was_paused_does_not_overtake_all_others_afterwards(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make, make_broadcaster: Make
) -> None:
    first, second = make_broadcaster(), make_broadcaster()
    paused = submit(40, owner=first)
    tell(engine, control.pause, batch_of(paused))
    move_all(engine)
    busy = submit(100, owner=second)
    store(engine, worker, claim(engine, worker, binding, limit=60))
    tell(engine, control.resume, batch_of(paused))
    move_all(engine)
    served = [one.recording_id for one in claim(engine, worker, binding, limit=20)]
    assert (served.count(paused.id), served.count(busy.id)) == (10, 10)


def test_batch_and_broadcaster_are_paused_apart(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make, owner: Owner
) -> None:
    one, two = submit(4), submit(4)
    tell(engine, control.pause, Target(owner.id))
    tell(engine, control.pause, batch_of(one))
    move_all(engine)
    assert claim(engine, worker, binding) == []
    tell(engine, control.resume, Target(owner.id))
    move_all(engine)
    assert {taken.recording_id for taken in drain(engine, worker, binding)} == {two.id}
    tell(engine, control.resume, batch_of(one))
    move_all(engine)
    assert {taken.recording_id for taken in drain(engine, worker, binding)} == {one.id}


def test_what_comes_while_a_broadcaster_is_paused_waits_too(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, make_recording: Make, owner: Owner
) -> None:
    before = make_recording()
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
    tell(engine, control.pause, Target(owner.id))
    move_all(engine)
    after = make_recording()
    with transaction(engine) as tx:
        assert splitting.claim_recording(tx.connection, worker.worker_id) is None
        assert splitting.store_split(tx.connection, claimed, worker.worker_id, transcript(5))
    assert claim(engine, worker, binding) == []
    tell(engine, control.resume, Target(owner.id))
    move_all(engine)
    assert split(engine, worker, transcript(3)) == after.id
    assert {one.recording_id for one in drain(engine, worker, binding)} == {before.id, after.id}


@pytest.mark.parametrize("queue", list(WorkQueue))
def test_a_paused_queue_gives_nothing_to_anybody(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    make_recording: Make,
    queue: WorkQueue,
) -> None:
    submit(3)
    make_recording()
    with transaction(engine) as tx:
        control.pause_queue(tx.connection, queue)
        control.pause_queue(tx.connection, queue)  # twice is once
        assert control.paused_queues(tx.connection) == [queue]
    assert bool(claim(engine, worker, binding)) is (queue is WorkQueue.SPLIT)
    with transaction(engine) as tx:
        assert (splitting.claim_recording(tx.connection, worker.worker_id) is None) is (
            queue is WorkQueue.SPLIT
        )
    with transaction(engine) as tx:
        control.resume_queue(tx.connection, queue)
    if queue is WorkQueue.TRANSCRIBE:
        assert len(claim(engine, worker, binding)) == 3


@pytest.mark.parametrize("moved", [False, True], ids=["at once", "moved out of the way"])
def test_a_cancelled_batch_stops_and_can_be_taken_up_again(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make, moved: bool
) -> None:
    made = submit(20)
    store(engine, worker, claim(engine, worker, binding, limit=5), "antes")
    begun = claim(engine, worker, binding, limit=5)
    assert tell(engine, control.cancel, batch_of(made)) == [made.id]
    assert tell(engine, control.cancel, batch_of(made)) == [], "twice is once"
    if moved:
        move_all(engine)
    assert store(engine, worker, begun, "entre") == 5
    assert claim(engine, worker, binding) == []
    assert state_of(engine, made.id).state == "cancelled"
    assert tell(engine, control.retry, batch_of(made)) == Retried(transcribed_again=1)
    move_all(engine)
    again = claim(engine, worker, binding, limit=50)
    assert len(again) == 10, "what was transcribed is kept"
    store(engine, worker, again, "despois")
    assert state_of(engine, made.id).state == "completed"
    texts = rows(engine, "SELECT text, count(*) FROM segments GROUP BY 1 ORDER BY 1")
    assert texts == [("antes", 5), ("despois", 10), ("entre", 5)]


def test_what_is_finished_while_it_is_cancelled_is_complete_when_it_is_tried_again(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make
) -> None:
    made = submit(4)
    begun = claim(engine, worker, binding)
    tell(engine, control.cancel, batch_of(made))
    assert store(engine, worker, begun) == 4
    assert state_of(engine, made.id).state == "cancelled"
    tell(engine, control.retry, batch_of(made))
    assert state_of(engine, made.id).state == "completed"


def test_cancelling_ends_a_split_and_an_upload(
    engine: Engine, worker: WorkerSession, make_recording: Make, owner: Owner
) -> None:
    make_recording()
    waiting = make_recording(received=False)
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
        create_upload(tx.connection, owner.id, waiting.id, len(waiting.media))
    assert set(tell(engine, control.cancel, Target(owner.id))) == {claimed.recording_id, waiting.id}  # type: ignore[call-overload]
    with transaction(engine) as tx:
        assert not splitting.store_split(tx.connection, claimed, worker.worker_id, transcript(5))
    assert rows(engine, "SELECT count(*) FROM uploads") == [(0,)]
    assert tell(engine, control.retry, Target(owner.id)) == Retried(awaiting_media=1, split_again=1)
    assert state_of(engine, waiting.id).state == "awaiting_media"
    assert split(engine, worker, transcript(5)) == claimed.recording_id


def test_only_what_failed_is_tried_again(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make
) -> None:
    made = submit(6)
    claims = claim(engine, worker, binding)
    store(engine, worker, claims[:4], "ben")
    fail(engine, worker, claims[4:])
    assert state_of(engine, made.id).state == "partial"
    assert tell(engine, control.retry, Target(made.owner.id, recording_id=made.id)) == Retried(
        transcribed_again=1
    )
    current = rows(engine, "SELECT is_current, finished_at FROM transcripts")
    assert current == [(True, None)], "what is there stays readable meanwhile"
    again = claim(engine, worker, binding)
    assert {one.segment_id for one in again} == {one.segment_id for one in claims[4:]}
    store(engine, worker, again, "agora")
    recording = state_of(engine, made.id)
    assert (recording.state, recording.failure_reason) == ("completed", None)
    kinds = rows(engine, "SELECT kind FROM events WHERE recording_id = :id ORDER BY id", id=made.id)
    assert [row.kind for row in kinds][-3:] == [
        "recording.partial",
        "recording.retried",
        "recording.completed",
    ]


def test_what_failed_in_splitting_is_read_anew(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, make_recording: Make
) -> None:
    made = make_recording()
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
        splitting.fail_split(
            tx.connection,
            claimed,
            worker.worker_id,
            Failure("bad_media", "no audio", retryable=False),
            max_attempts=1,
        )
    assert tell(engine, control.retry, batch_of(made)) == Retried(split_again=1)
    assert split(engine, worker, transcript(2)) == made.id
    drain(engine, worker, binding)
    assert state_of(engine, made.id).state == "completed"


def test_what_is_tried_again_in_a_paused_batch_waits(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make
) -> None:
    made = submit(4)
    fail(engine, worker, claim(engine, worker, binding))
    tell(engine, control.pause, batch_of(made))
    assert tell(engine, control.retry, batch_of(made)) == Retried(transcribed_again=1)
    assert claim(engine, worker, binding) == []
    move_all(engine)
    tell(engine, control.resume, batch_of(made))
    move_all(engine)
    assert len(drain(engine, worker, binding)) == 4


def test_nobody_touches_anothers_work(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, submit: Make, make_broadcaster: Make
) -> None:
    made, stranger = submit(4), make_broadcaster()
    of_stranger = Target(stranger.id, made.batch_id)
    assert not tell(engine, control.pause, of_stranger)
    assert not tell(engine, control.resume, of_stranger)
    assert tell(engine, control.cancel, of_stranger) == []
    assert tell(engine, control.retry, of_stranger) == Retried()
    assert tell(engine, control.cancel, Target(stranger.id, recording_id=made.id)) == []
    assert len(drain(engine, worker, binding)) == 4


def test_a_batch_announced_while_its_broadcaster_is_paused_is_held_back(engine: Engine, owner: Owner) -> None:
    tell(engine, control.pause, Target(owner.id))
    with transaction(engine) as tx:
        create_batch(
            tx.connection,
            owner.id,
            name="b",
            priority=Priority.NORMAL,
            recordings=[NewRecording("a.wav", 10)],
        )
    assert rows(engine, "SELECT hold FROM recordings") == [("held",)]
    with engine.connect() as connection:
        assert connection.scalar(
            text("SELECT paused_at IS NOT NULL FROM broadcasters WHERE id = :id"), {"id": owner.id}
        )
