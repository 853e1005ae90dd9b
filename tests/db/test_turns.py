"""Whose work is next: broadcasters side by side by their weights, and no class waits for ever."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from db import splitting, turns
from db.broadcasters import BroadcasterUnknown, WeightOutOfRange, set_weight
from db.connect import transaction
from db.liveness import WorkerSession
from db.losses import take_back_dead_claims
from db.queue import _PENDING_SQL
from db.states import Priority, WorkQueue
from db.turns import Flow, forget_turns
from db.work import ModelBinding, SegmentClaim
from tests.conftest import Owner
from tests.db.queue_work import Make, NewWorker, claim, kill, model, rows, split, store, transcript

MakeBroadcaster = Callable[..., Owner]


@pytest.fixture
def worker(new_worker: NewWorker) -> WorkerSession:
    return new_worker()


@pytest.fixture
def binding(engine: Engine) -> ModelBinding:
    return model(engine)


@pytest.fixture
def submit(engine: Engine, worker: WorkerSession, make_recording: Make) -> Callable[..., uuid.UUID]:
    """`submit(owner, n, priority=...)`: a recording of n segments of a second each, split; its id."""

    def make(owner: Owner, n_segments: int, priority: Priority = Priority.NORMAL) -> uuid.UUID:
        make_recording(owner=owner, priority=priority)
        return split(engine, worker, transcript(n_segments))

    return make


def owners(engine: Engine, claims: list[SegmentClaim]) -> Counter[int]:
    """How many of the claimed segments are whose."""
    found = rows(
        engine,
        "SELECT broadcaster_id FROM segments WHERE id = ANY(:ids)",
        ids=[claimed.segment_id for claimed in claims],
    )
    return Counter(row.broadcaster_id for row in found)


def test_a_long_backlog_does_not_delay_anothers_first_recording(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    make_broadcaster: MakeBroadcaster,
) -> None:
    first, second = make_broadcaster(), make_broadcaster()
    for _ in range(4):
        submit(first, 100)
    store(engine, worker, claim(engine, worker, binding))
    submit(second, 20)
    shares = [owners(engine, claim(engine, worker, binding)) for _ in range(3)]
    assert [share[second.id] for share in shares] == [8, 8, 4]
    assert [share[first.id] for share in shares] == [8, 8, 12]


def test_weights_share_the_queue(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    make_broadcaster: MakeBroadcaster,
) -> None:
    small, large = make_broadcaster(), make_broadcaster()
    with transaction(engine) as tx:
        set_weight(tx.connection, large.name, 3)
    submit(small, 100)
    submit(large, 100)
    assert owners(engine, claim(engine, worker, binding, limit=40)) == {small.id: 10, large.id: 30}


def test_who_was_idle_has_saved_nothing_up(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    make_broadcaster: MakeBroadcaster,
) -> None:
    """Else a month of silence would be paid back by a month in which nobody else is served."""
    busy, idle = make_broadcaster(), make_broadcaster()
    submit(idle, 10)
    submit(busy, 100)
    store(engine, worker, claim(engine, worker, binding, limit=60))
    submit(idle, 50)
    assert owners(engine, claim(engine, worker, binding, limit=20)) == {busy.id: 10, idle.id: 10}


def test_who_was_served_while_nobody_else_waited_owes_nothing(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    make_broadcaster: MakeBroadcaster,
) -> None:
    busy, other = make_broadcaster(), make_broadcaster()
    submit(busy, 100)
    store(engine, worker, claim(engine, worker, binding, limit=100))
    submit(other, 50)
    submit(busy, 50)
    assert owners(engine, claim(engine, worker, binding, limit=20)) == {busy.id: 10, other.id: 10}


def test_work_that_comes_back_keeps_its_turn(
    engine: Engine,
    worker: WorkerSession,
    new_worker: NewWorker,
    binding: ModelBinding,
    submit: Make,
    make_broadcaster: MakeBroadcaster,
) -> None:
    """The last segments of a recording whose worker dies do not go behind a backlog that came meanwhile."""
    first, second = make_broadcaster(), make_broadcaster()
    submit(first, 30)
    dying = new_worker()
    store(engine, worker, claim(engine, worker, binding, limit=20))
    assert len(claim(engine, dying, binding, limit=10)) == 10
    submit(second, 300)
    kill(dying)
    with transaction(engine) as tx:
        take_back_dead_claims(tx.connection)
    assert owners(engine, claim(engine, worker, binding, limit=20)) == {first.id: 10, second.id: 10}


def test_recordings_are_split_side_by_side_too(
    engine: Engine, worker: WorkerSession, make_recording: Make, make_broadcaster: MakeBroadcaster
) -> None:
    first, second = make_broadcaster(), make_broadcaster()
    for _ in range(20):
        make_recording(owner=first)
    made = make_recording(owner=second)
    taken = []
    for _ in range(3):
        with transaction(engine) as tx:
            claimed = splitting.claim_recording(tx.connection, worker.worker_id)
            assert claimed is not None
            taken.append(claimed.recording_id)
    assert made.id in taken


def test_two_splits_of_one_broadcaster_at_once_do_not_share_turns(
    engine: Engine, worker: WorkerSession, make_recording: Make, owner: Owner
) -> None:
    """Else it would be served twice as much as others for as long as the two last."""
    for _ in range(2):
        make_recording()
    claims = []
    with transaction(engine) as tx:
        for _ in range(2):
            claimed = splitting.claim_recording(tx.connection, worker.worker_id)
            assert claimed is not None
            claims.append(claimed)

    def other() -> None:
        with transaction(engine) as tx:
            assert splitting.store_split(tx.connection, claims[1], worker.worker_id, transcript(50))

    thread = threading.Thread(target=other)
    with transaction(engine) as tx:
        assert splitting.store_split(tx.connection, claims[0], worker.worker_id, transcript(50))
        thread.start()
        thread.join(timeout=0.5)  # waits for the row of turns, or has not come so far: both are fine
    thread.join(timeout=30)
    assert not thread.is_alive()
    found = [row.turn for row in rows(engine, "SELECT turn FROM segments ORDER BY turn")]
    assert len(set(found)) == 100


def test_a_lower_class_that_waits_too_long_is_served_now_and_then(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    owner: Owner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_LOTS", random.Random(3))
    submit(owner, 200, Priority.URGENT)
    archived = submit(owner, 200, Priority.ARCHIVE)
    for _ in range(40):
        assert archived not in {c.recording_id for c in claim(engine, worker, binding, limit=1)}
    with transaction(engine) as tx:
        tx.connection.execute(
            text(
                "UPDATE transcripts SET created_at = created_at - interval '2 hours' WHERE recording_id = :id"
            ),
            {"id": archived},
        )
    served = [claim(engine, worker, binding, limit=1)[0].recording_id for _ in range(120)]
    assert 5 <= served.count(archived) <= 30
    while claim(engine, worker, binding, limit=50):
        pass
    assert rows(engine, "SELECT count(*) FROM segments WHERE state = 'pending'") == [(0,)]


def test_what_is_taken_out_of_the_queue_counts_no_longer(
    engine: Engine,
    worker: WorkerSession,
    binding: ModelBinding,
    submit: Make,
    make_broadcaster: MakeBroadcaster,
) -> None:
    first, second = make_broadcaster(), make_broadcaster()
    submit(first, 500)
    submit(second, 100)
    with transaction(engine) as tx:
        tx.connection.execute(
            text(
                "UPDATE segments SET state = 'failed', failure_reason = 'cancelled', failure_code = 'cancelled' "
                "WHERE broadcaster_id = :id"
            ),
            {"id": first.id},
        )
        forget_turns(tx.connection, Flow(WorkQueue.TRANSCRIBE, first.id, Priority.NORMAL.rank))
    submit(first, 20)
    assert owners(engine, claim(engine, worker, binding, limit=20)) == {first.id: 10, second.id: 10}


def test_a_claim_reads_nothing_but_the_head_of_the_queue(
    engine: Engine, binding: ModelBinding, submit: Make, make_broadcaster: MakeBroadcaster
) -> None:
    for _ in range(2):
        submit(make_broadcaster(), 3000)
    with engine.connect() as connection:  # nothing was analysed so far, as after a restore
        plan = "\n".join(
            connection.scalars(
                text("EXPLAIN " + _PENDING_SQL.format(losses="< 2")),
                {"model_id": binding.model_id, "limit": 16, "from_rank": 0},
            )
        )
    assert "Index Scan using ix_segments_turn on segments" in plan
    assert "Sort" not in plan
    assert "Seq Scan on segments" not in plan


def test_weights_are_refused_with_their_bounds(engine: Engine, owner: Owner) -> None:
    for weight in (0, -1, 1001, float("nan")):
        with transaction(engine) as tx, pytest.raises(WeightOutOfRange, match=r"0\.001 to 1,000"):
            set_weight(tx.connection, owner.name, weight)
    with transaction(engine) as tx, pytest.raises(BroadcasterUnknown, match="nobody"):
        set_weight(tx.connection, "nobody", 1)
