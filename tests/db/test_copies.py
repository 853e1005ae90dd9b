"""Working copies expire only where nobody needs them, and come back when a recording is read anew."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from db import control, splitting
from db.connect import transaction
from db.control import Target
from db.copies import expire_copies, find_working_copy, list_removals
from db.correction_draws import draw_segments, list_open_draws
from db.integrity import check_media
from db.liveness import WorkerSession
from db.media_store import MediaStore
from db.queue import store_results
from db.retranscribe import Selection, transcribe_again
from db.states import GapKind
from db.work import Failure, NewGap
from tests.conftest import MadeRecording, Owner
from tests.db.queue_work import SECOND, Make, NewWorker, claim, model, split, state_of, store, transcript


@pytest.fixture
def worker(new_worker: NewWorker) -> WorkerSession:
    return new_worker()


def expire(engine: Engine, *, after_days: float = 30, limit: int = 100) -> int:
    with transaction(engine) as tx:
        return expire_copies(tx.connection, after_days=after_days, limit=limit)


def age(engine: Engine, days: float) -> None:
    """Let all that is finished have been finished so many days ago."""
    with transaction(engine) as tx:
        tx.connection.execute(
            text("UPDATE recordings SET finished_at = now() - make_interval(secs => :s)"),
            {"s": days * 86_400},
        )


@pytest.fixture
def finished(engine: Engine, worker: WorkerSession, make_recording: Make) -> Callable[..., MadeRecording]:
    """`finished()`: a recording of two segments that is transcribed; with `fails`, one failed and it is partial."""

    def make(*, fails: bool = False, **keywords: object) -> MadeRecording:
        made: MadeRecording = make_recording(**keywords)
        split(engine, worker, transcript(2, [NewGap(GapKind.NO_SPEECH, 2 * SECOND, 3 * SECOND, None)]))
        with transaction(engine) as tx:
            tx.connection.execute(
                text("UPDATE recordings SET working_copy_key = id || '/working-1.flac' WHERE id = :id"),
                {"id": made.id},
            )
        claims = claim(engine, worker, model(engine), limit=2)
        store(engine, worker, claims[fails:], "choveu")
        if fails:
            with transaction(engine) as tx:
                failure = Failure("model_error", "the model raised an error", retryable=False)
                store_results(tx.connection, worker.worker_id, [], [(claims[0], failure)], max_attempts=1)
        assert state_of(engine, made.id).state == ("partial" if fails else "completed")
        return made

    return make


def test_only_what_is_finished_for_so_long_expires(engine: Engine, finished: Make) -> None:
    made = finished()
    age(engine, 29.9)
    assert expire(engine) == 0
    age(engine, 30.1)
    assert expire(engine) == 1
    row = state_of(engine, made.id)
    assert (row.state, row.working_copy_key) == ("completed", None)
    assert row.working_copy_expired_at is not None
    with engine.connect() as connection:
        assert list_removals(connection) == [f"{made.id}/working-1.dat", f"{made.id}/working-1.flac"]
        copy = find_working_copy(connection, made.owner.id, made.id)
        assert (copy.key, copy.expired_at) == (None, row.working_copy_expired_at)
    assert expire(engine) == 0


def test_what_is_being_transcribed_again_keeps_its_copy(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished()
    with transaction(engine) as tx:
        assert transcribe_again(tx.connection, Selection(made.owner.id)).n_recordings == 1
    age(engine, 99)
    assert expire(engine) == 0
    # stopped, it may be taken up where it stood, and one of its segments is still in a worker's hands
    claim(engine, worker, model(engine), limit=1)
    with transaction(engine) as tx:
        control.cancel(tx.connection, Target(made.owner.id, made.batch_id))
    age(engine, 99)
    assert expire(engine) == 0


def test_a_recording_that_is_begun_again_just_now_is_left_alone(engine: Engine, finished: Make) -> None:
    made = finished()
    age(engine, 99)
    with transaction(engine) as tx:
        transcribe_again(tx.connection, Selection(made.owner.id))
        assert expire(engine) == 0, "the sweep does not wait for it either"
    assert state_of(engine, made.id).working_copy_key is not None


def test_two_sweeps_at_once_share_the_work(engine: Engine, finished: Make) -> None:
    for _ in range(6):
        finished()
    age(engine, 99)
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda _: expire(engine, limit=2), range(3)))
    counts.append(expire(engine))
    assert sum(counts) == 6
    with engine.connect() as connection:
        assert len(list_removals(connection)) == len(set(list_removals(connection))) == 12


def test_it_is_read_anew_and_the_old_transcript_stays_meanwhile(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished()
    before = segments_of(engine, made)
    age(engine, 99)
    expire(engine)
    with transaction(engine) as tx:
        transcribe_again(tx.connection, Selection(made.owner.id))
    assert split(engine, worker, transcript(3)) == made.id
    assert segments_of(engine, made) == before, "the current transcript's segments are as they were"
    row = state_of(engine, made.id)
    assert (row.working_copy_key, row.working_copy_expired_at) == ("k", None)
    store(engine, worker, claim(engine, worker, model(engine)), "nevou")
    assert [words for *_, words in segments_of(engine, made)] == ["nevou"] * 3


def segments_of(engine: Engine, made: MadeRecording) -> list[tuple[int, int, str]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT start_sample, end_sample, s.text FROM segments s JOIN transcripts t ON t.id = transcript_id "
                "WHERE t.recording_id = :id AND t.is_current ORDER BY index"
            ),
            {"id": made.id},
        )
        return [tuple(row) for row in rows]


def test_without_its_original_it_keeps_transcript_and_state(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    whole, partial = finished(), finished(fails=True)
    before = [state_of(engine, made.id) for made in (whole, partial)]
    with transaction(engine) as tx:
        tx.connection.execute(text("UPDATE recordings SET working_copy_key = NULL"))
        assert transcribe_again(tx.connection, Selection(whole.owner.id)).n_recordings == 2
    failure = Failure("original_missing", "a.wav: its original is not in the object store", retryable=False)
    for _ in before:
        with transaction(engine) as tx:
            taken = splitting.claim_recording(tx.connection, worker.worker_id)
            assert taken is not None
            assert splitting.fail_split(tx.connection, taken, worker.worker_id, failure, max_attempts=3)
    for made, row in zip((whole, partial), before, strict=True):
        after = state_of(engine, made.id)
        assert (after.state, after.failure_code, after.failure_reason) == (
            row.state,
            row.failure_code,
            row.failure_reason,
        )
        assert after.finished_at is not None
        assert [words for *_, words in segments_of(engine, made)][-1] == "choveu"
        with engine.connect() as connection:
            told = connection.execute(
                text("SELECT kind, payload FROM events WHERE recording_id = :id ORDER BY id DESC LIMIT 1"),
                {"id": made.id},
            ).one()
        assert (told.kind, told.payload["code"]) == ("recording.not_read_anew", "original_missing")


def test_failed_segments_without_a_copy_have_the_recording_read_anew(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished(fails=True)
    age(engine, 99)
    assert expire(engine) == 1
    with transaction(engine) as tx:
        control.retry(tx.connection, Target(made.owner.id, made.batch_id))
    assert state_of(engine, made.id).state == "received"
    split(engine, worker, transcript(2))
    store(engine, worker, claim(engine, worker, model(engine)), "nevou")
    assert state_of(engine, made.id).state == "completed"


def test_nobody_is_asked_to_correct_what_cannot_be_heard(
    engine: Engine, owner: Owner, finished: Make
) -> None:
    finished()
    with transaction(engine) as tx:
        assert len(draw_segments(tx.connection, owner.id, 1, window_days=28)) == 1
        assert len(list_open_draws(tx.connection, owner.id, limit=9)) == 1
    age(engine, 99)
    expire(engine)
    with transaction(engine) as tx:
        assert list_open_draws(tx.connection, owner.id, limit=9) == []
        assert draw_segments(tx.connection, owner.id, 1, window_days=28) == []


def test_an_expired_copy_is_not_missing(engine: Engine, media_store: MediaStore, finished: Make) -> None:
    made = finished()

    def check(**settings: float) -> list[str]:
        with engine.connect() as connection:
            return list(check_media(connection, media_store, **settings))

    (told,) = check()
    assert f"{made.id}/working-1.flac is not in the object store" in told
    age(engine, 31)
    # restored from a dump of before it expired: the first sweep lets it expire again
    assert check(copies_expire_after_days=30) == []
    assert len(check(copies_expire_after_days=32)) == 1
    expire(engine)
    assert check() == []
