"""The queue loses nothing and stores nothing twice, whoever dies, wakes late or comes at once."""

from __future__ import annotations

import threading
import unicodedata
from collections import Counter

import pytest
from sqlalchemy import Engine, text

from db import losses, queue, splitting
from db.connect import transaction
from db.liveness import WorkerSession
from db.states import GapKind, Priority
from db.work import (
    CoverageError,
    Failure,
    NewGap,
    NewTranscript,
    SplitClaim,
)
from tests.db.queue_work import (
    SECOND,
    Make,
    NewWorker,
    claim,
    kill,
    model,
    result,
    rows,
    split,
    state_of,
    store,
    transcript,
)

WHY_CONDEMNED = "its worker died 3 times while transcribing it, the last time with nothing else in hand"


def test_a_claim_takes_segments_across_recordings_by_priority(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker, binding = new_worker(), model(engine)
    order = []
    for priority in (Priority.ARCHIVE, Priority.NORMAL, Priority.URGENT):
        make_recording(priority=priority)
        order.append(split(engine, worker, transcript(2)))
    claims = claim(engine, worker, binding, limit=5)
    taken = Counter(c.recording_id for c in claims)
    assert taken == {order[2]: 2, order[1]: 2, order[0]: 1}


def test_many_workers_at_once_store_every_segment_exactly_once(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    splitter, binding = new_worker(), model(engine)
    recordings = []
    for _ in range(5):
        make_recording()
        recordings.append(split(engine, splitter, transcript(40)))
    stored: list[int] = []
    problems: list[BaseException] = []

    def work() -> None:
        worker = new_worker()
        try:
            while claims := claim(engine, worker, binding, limit=7):
                assert store(engine, worker, claims) == len(claims)
                stored.extend(c.segment_id for c in claims)
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not problems
    assert len(stored) == len(set(stored)) == 200
    for recording_id in recordings:
        assert state_of(engine, recording_id).state == "completed"
    assert rows(engine, "SELECT count(*), max(attempt) FROM attempts WHERE segment_id IS NOT NULL") == [
        (200, 1)
    ]


def test_texts_are_stored_in_one_form_whoever_writes_them(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    make_recording()
    worker = new_worker()
    split(engine, worker, transcript(1))
    claims = claim(engine, worker, model(engine))
    store(engine, worker, claims, unicodedata.normalize("NFD", "canción, niño"))
    assert [row.text for row in rows(engine, "SELECT text FROM segments")] == ["canción, niño"]


def test_a_killed_workers_claims_go_back_and_its_late_results_are_dropped(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    dead, other, binding = new_worker(), new_worker(), model(engine)
    make_recording()
    recording_id = split(engine, other, transcript(3))
    lost = claim(engine, dead, binding)
    with transaction(engine) as tx:
        assert losses.take_back_dead_claims(tx.connection).segments_returned == 0, "its worker lives"
    kill(dead)
    with transaction(engine) as tx:
        assert losses.take_back_dead_claims(tx.connection).segments_returned == 3
    with transaction(engine) as tx:
        assert losses.take_back_dead_claims(tx.connection).segments_returned == 0, (
            "running it again does nothing"
        )
    again = claim(engine, other, binding)
    assert {c.segment_id for c in again} == {c.segment_id for c in lost}
    assert store(engine, dead, lost, "tarde") == 0
    assert store(engine, other, again, "a tempo") == 3
    assert store(engine, dead, lost, "tarde") == 0
    assert rows(engine, "SELECT DISTINCT text FROM segments") == [("a tempo",)]
    assert state_of(engine, recording_id).state == "completed"
    outcomes = rows(engine, "SELECT outcome, count(*) FROM attempts WHERE segment_id IS NOT NULL GROUP BY 1")
    assert dict(outcomes) == {"lost": 3, "done": 3}


def test_a_frozen_worker_loses_its_claims_with_its_lease(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    frozen, binding = new_worker(), model(engine)
    make_recording()
    split(engine, frozen, transcript(2))
    claims = claim(engine, frozen, binding)
    with transaction(engine) as tx:  # as if nothing had renewed it: the lock is still held
        tx.connection.execute(text("UPDATE workers SET lease_until = now() - interval '1 second'"))
        assert losses.take_back_dead_claims(tx.connection).segments_returned == 2
    assert store(engine, frozen, claims) == 0
    assert frozen.ensure_alive() == frozen.worker_id, "awake again, it may claim anew"
    assert store(engine, frozen, claim(engine, frozen, binding)) == 2


def test_what_kills_its_workers_is_run_alone_and_fails_in_the_end(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    binding = model(engine)
    splitter = new_worker()
    make_recording()
    recording_id = split(engine, splitter, transcript(4))
    for _ in range(losses.ISOLATE_AFTER_LOSSES):
        worker = new_worker()
        assert len(claim(engine, worker, binding)) == 4
        kill(worker)
        with transaction(engine) as tx:
            losses.take_back_dead_claims(tx.connection)
    worker = new_worker()
    killer = claim(engine, worker, binding)
    assert len(killer) == 1, "suspects are taken one at a time"
    for _ in range(losses.FAIL_AFTER_LOSSES - losses.ISOLATE_AFTER_LOSSES):
        kill(worker)
        with transaction(engine) as tx:
            losses.take_back_dead_claims(tx.connection)
        worker = new_worker()
        # the other three, innocent, get through
        while (claims := claim(engine, worker, binding)) and claims[0].segment_id != killer[0].segment_id:
            assert store(engine, worker, claims) == 1
    recording = state_of(engine, recording_id)
    assert recording.state == "partial"
    assert "1.00 s could not be transcribed" in recording.failure_reason
    failed = rows(engine, "SELECT id, failure_reason FROM segments WHERE state = 'failed'")
    assert failed == [(killer[0].segment_id, WHY_CONDEMNED)]


def test_what_is_lost_while_workers_die_for_another_reason_gets_further_chances(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    binding = model(engine)
    splitter = new_worker()
    make_recording()
    split(engine, splitter, transcript(3))

    def lose_alone() -> int:
        """The suspect is claimed alone, and its worker dies."""
        worker = new_worker()
        (suspect,) = claim(engine, worker, binding)
        kill(worker)
        with transaction(engine) as tx:
            losses.take_back_dead_claims(tx.connection)
        return suspect.segment_id

    for _ in range(losses.ISOLATE_AFTER_LOSSES):
        worker = new_worker()
        claim(engine, worker, binding)
        kill(worker)
        with transaction(engine) as tx:
            losses.take_back_dead_claims(tx.connection)
    other = new_worker()
    make_recording()
    with transaction(engine) as tx:
        assert splitting.claim_recording(tx.connection, other.worker_id)
    kill(other)  # a worker that never held the segment
    suspect = lose_alone()
    state = "SELECT state, losses FROM segments WHERE id = :id"
    assert rows(engine, state, id=suspect) == [("pending", 3)]
    with transaction(engine) as tx:  # that was long ago
        tx.connection.execute(text("UPDATE workers SET lease_until = lease_until - interval '5 minutes'"))
        tx.connection.execute(text("UPDATE segments SET retry_at = now()"))
    assert lose_alone() == suspect
    assert rows(engine, state, id=suspect) == [("failed", 4)]


def test_however_many_workers_die_nothing_is_tried_for_ever(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    binding = model(engine)
    splitter = new_worker()
    make_recording()
    recording_id = split(engine, splitter, transcript(1))
    while not state_of(engine, recording_id).finished_at:
        worker, other = new_worker(), new_worker()
        with transaction(engine) as tx:
            tx.connection.execute(text("UPDATE segments SET retry_at = NULL"))
        assert claim(engine, worker, binding)
        kill(worker)
        kill(other)
        with transaction(engine) as tx:
            losses.take_back_dead_claims(tx.connection)
    assert rows(engine, "SELECT losses FROM segments") == [(losses.GIVE_UP_AFTER_LOSSES,)]


def test_what_was_claimed_before_the_server_was_started_anew_is_not_blamed(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker, splitter, binding = new_worker(), new_worker(), model(engine)
    make_recording()
    split(engine, splitter, transcript(2))
    make_recording()
    assert len(claim(engine, worker, binding)) == 2
    with transaction(engine) as tx:
        assert splitting.claim_recording(tx.connection, worker.worker_id)
        tx.connection.execute(
            text(
                "UPDATE attempts SET started_at = pg_postmaster_start_time() - interval '1 second' "
                "WHERE outcome = 'running'"
            )
        )
    kill(worker)
    with transaction(engine) as tx:
        swept = losses.take_back_dead_claims(tx.connection)
    assert (swept.segments_returned, swept.recordings_returned) == (2, 1)
    assert rows(engine, "SELECT max(losses) FROM segments") == [(0,)]
    assert rows(engine, "SELECT max(losses) FROM recordings") == [(0,)]
    assert rows(engine, "SELECT count(*) FROM attempts WHERE outcome = 'lost'") == [(3,)]


def test_splitting_survives_the_death_of_its_worker(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    dead, other = new_worker(), new_worker()
    make_recording()
    with transaction(engine) as tx:
        lost = splitting.claim_recording(tx.connection, dead.worker_id)
        assert lost is not None
    kill(dead)
    with transaction(engine) as tx:
        assert losses.take_back_dead_claims(tx.connection).recordings_returned == 1
    recording_id = split(engine, other, transcript(1))
    with transaction(engine) as tx:
        assert not splitting.store_split(tx.connection, lost, dead.worker_id, transcript(9)), "late: refused"
    assert rows(engine, "SELECT count(*) FROM segments") == [(1,)]
    assert state_of(engine, recording_id).attempt == 2


def test_a_file_that_keeps_killing_the_splitter_fails_with_a_reason(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    made = make_recording()
    for _ in range(losses.FAIL_AFTER_LOSSES):
        worker = new_worker()
        with transaction(engine) as tx:
            assert splitting.claim_recording(tx.connection, worker.worker_id) is not None
        kill(worker)
        with transaction(engine) as tx:
            losses.take_back_dead_claims(tx.connection)
    recording = state_of(engine, made.id)
    assert (recording.state, recording.failure_code) == ("failed", "worker_died")
    assert "convert it with another tool" in recording.failure_reason


@pytest.mark.parametrize(
    ("segments", "fail", "gaps", "state", "sums"),
    [
        (2, 0, [], "completed", (2, 0, 0)),
        (2, 0, [NewGap(GapKind.NO_SPEECH, 2 * SECOND, 5 * SECOND)], "completed", (2, 3, 0)),
        (0, 0, [NewGap(GapKind.NO_SPEECH, 0, 5 * SECOND)], "completed", (0, 5, 0)),
        (2, 1, [], "partial", (1, 0, 1)),
        (2, 0, [NewGap(GapKind.FAILED, 2 * SECOND, 3 * SECOND, "hole")], "partial", (2, 0, 1)),
        (
            0,
            0,
            [
                NewGap(GapKind.NO_SPEECH, 0, 4 * SECOND),
                NewGap(GapKind.FAILED, 4 * SECOND, 5 * SECOND, "hole"),
            ],
            "partial",
            (0, 4, 1),
        ),
        (2, 2, [], "failed", (0, 0, 2)),
        (2, 2, [NewGap(GapKind.NO_SPEECH, 2 * SECOND, 5 * SECOND)], "failed", (0, 3, 2)),
    ],
)
def test_a_recording_is_completed_only_when_no_second_failed(
    engine: Engine,
    new_worker: NewWorker,
    make_recording: Make,
    segments: int,
    fail: int,
    gaps: list[NewGap],
    state: str,
    sums: tuple[int, int, int],
) -> None:
    worker, binding = new_worker(), model(engine)
    make_recording()
    recording_id = split(engine, worker, transcript(segments, gaps))
    claims = claim(engine, worker, binding)
    with transaction(engine) as tx:
        failure = Failure("engine_error", "does not go", retryable=False)
        queue.store_results(
            tx.connection,
            worker.worker_id,
            [result(claimed) for claimed in claims[fail:]],
            [(claimed, failure) for claimed in claims[:fail]],
            max_attempts=3,
        )
    recording = state_of(engine, recording_id)
    assert recording.state == state
    assert (recording.failure_reason is None) == (state == "completed")
    found = rows(
        engine,
        "SELECT transcribed_samples, no_speech_samples, failed_samples, duration_samples, is_current "
        "FROM transcripts WHERE finished_at IS NOT NULL",
    )
    assert found == [(*(n * SECOND for n in sums), sum(sums) * SECOND, True)]
    assert rows(engine, "SELECT kind FROM events ORDER BY id DESC LIMIT 1") == [(f"recording.{state}",)]


@pytest.mark.parametrize(
    "found",
    [
        transcript(2, duration_s=3),
        transcript(2, duration_s=1),
        transcript(2, [NewGap(GapKind.NO_SPEECH, SECOND, 3 * SECOND)]),
        transcript(2, [NewGap(GapKind.NO_SPEECH, 3 * SECOND, 4 * SECOND)]),
    ],
    ids=["short of the end", "past the end", "overlap", "hole"],
)
def test_seconds_that_do_not_add_up_are_refused(
    engine: Engine, new_worker: NewWorker, make_recording: Make, found: NewTranscript
) -> None:
    worker = new_worker()
    make_recording()
    with pytest.raises(CoverageError):
        split(engine, worker, found)
    assert rows(engine, "SELECT count(*) FROM segments") == [(0,)]


def test_a_retryable_failure_is_tried_again_until_the_limit(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker, binding = new_worker(), model(engine)
    make_recording()
    recording_id = split(engine, worker, transcript(2))
    good, bad = sorted(claim(engine, worker, binding), key=lambda c: c.start_sample)
    store(engine, worker, [good])
    for attempt in (1, 2, 3):
        assert bad.attempt == attempt
        failure = Failure("working_copy_unreadable", "the bucket did not answer", retryable=True)
        with transaction(engine) as tx:
            assert (
                queue.store_results(tx.connection, worker.worker_id, [], [(bad, failure)], max_attempts=3)
                == 1
            )
            assert (
                queue.store_results(tx.connection, worker.worker_id, [], [(bad, failure)], max_attempts=3)
                == 0
            )
        claims = claim(engine, worker, binding)
        bad = claims[0] if claims else bad
    assert not claims
    assert state_of(engine, recording_id).state == "partial"
    reasons = rows(engine, "SELECT failure_reason FROM segments WHERE state = 'failed'")
    assert reasons == [("the bucket did not answer",)]


def test_what_failed_waits_before_it_is_tried_again_each_time_longer(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker, binding = new_worker(), model(engine)
    away = Failure("split_error", "the bucket did not answer", retryable=True)
    made = make_recording()

    def fail_splitting() -> None:
        with transaction(engine) as tx:
            claimed = splitting.claim_recording(tx.connection, worker.worker_id)
            assert claimed
            splitting.fail_split(
                tx.connection, claimed, worker.worker_id, away, max_attempts=5, retry_after_s=10
            )
            assert splitting.claim_recording(tx.connection, worker.worker_id) is None
            assert queue.count_waiting(tx.connection).recordings == 0, "nobody is woken for it"

    def fail_transcribing() -> None:
        with transaction(engine) as tx:
            claims = queue.claim_segments(tx.connection, worker.worker_id, binding, limit=1)
            failures = [(claims[0], away)]
            queue.store_results(
                tx.connection, worker.worker_id, [], failures, max_attempts=5, retry_after_s=10
            )
            assert not queue.claim_segments(tx.connection, worker.worker_id, binding, limit=1)
            assert queue.count_waiting(tx.connection).segments == 0

    for table, fail in (("recordings", fail_splitting), ("segments", fail_transcribing)):
        waits = []
        for _ in range(3):
            fail()
            left = f"SELECT extract(epoch FROM retry_at - now())::float AS left_s FROM {table}"
            waits.append(round(rows(engine, left)[0].left_s / 10))
            with transaction(engine) as tx:  # the time is over
                tx.connection.execute(text(f"UPDATE {table} SET retry_at = now()"))
        assert waits == [1, 4, 16]
        if table == "recordings":
            assert split(engine, worker, transcript(1)) == made.id


def test_orderly_returns_are_not_failures(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker = new_worker()
    made = make_recording()
    for _ in range(5):
        with transaction(engine) as tx:
            assert splitting.claim_recording(tx.connection, worker.worker_id) is not None
            queue.return_claims(tx.connection, worker.worker_id)
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
        hiccup = Failure("split_error", "no room", retryable=True)
        splitting.fail_split(tx.connection, claimed, worker.worker_id, hiccup, max_attempts=2)
    assert state_of(engine, made.id).state == "received"


def test_two_workers_that_finish_the_same_transcripts_do_not_deadlock(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    binding, workers = model(engine), [new_worker(), new_worker()]
    for _ in range(6):
        make_recording()
        split(engine, workers[0], transcript(8))
    problems: list[BaseException] = []

    def work(worker: WorkerSession) -> None:
        failure = Failure("engine_error", "does not go", retryable=False)
        try:
            while claims := claim(engine, worker, binding, limit=5):
                with transaction(engine) as tx:
                    queue.store_results(
                        tx.connection,
                        worker.worker_id,
                        [result(c) for c in claims[::2]],
                        [(c, failure) for c in reversed(claims[1::2])],
                        max_attempts=3,
                    )
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not problems
    assert rows(engine, "SELECT DISTINCT state FROM recordings") == [("partial",)]


def test_one_transcript_is_one_models(engine: Engine, new_worker: NewWorker, make_recording: Make) -> None:
    worker = new_worker()
    first, second = model(engine, "first"), model(engine, "second")
    make_recording()
    split(engine, worker, transcript(4))
    begun = claim(engine, worker, first, limit=2)
    assert claim(engine, worker, second) == [], "the first model has begun it"
    assert len(claim(engine, worker, first)) == 2
    assert len(begun) == 2
    assert rows(engine, "SELECT model_id, prompt FROM transcripts") == [(first.model_id, "prompt")]


def test_a_worker_that_leaves_gives_back_without_blame(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker, binding = new_worker(), model(engine)
    make_recording()
    split(engine, worker, transcript(2))
    make_recording()
    with transaction(engine) as tx:
        assert splitting.claim_recording(tx.connection, worker.worker_id) is not None
    claim(engine, worker, binding)
    with transaction(engine) as tx:
        assert queue.return_claims(tx.connection, worker.worker_id) == 3
    assert rows(engine, "SELECT DISTINCT state, losses, failures FROM segments") == [("pending", 0, 0)]
    assert rows(engine, "SELECT count(*) FROM attempts WHERE outcome = 'returned'") == [(3,)]


def test_a_bad_file_fails_at_once_and_a_hiccup_is_retried(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker = new_worker()
    bad, hiccup = make_recording(), make_recording()

    def fail(failure: Failure) -> SplitClaim:
        with transaction(engine) as tx:
            claimed = splitting.claim_recording(tx.connection, worker.worker_id)
            assert claimed is not None
            splitting.fail_split(tx.connection, claimed, worker.worker_id, failure, max_attempts=2)
        return claimed

    assert fail(Failure("not_media", "bad.mp3 is text", retryable=False)).recording_id == bad.id
    assert state_of(engine, bad.id).failure_reason == "bad.mp3 is text"
    for _ in range(2):
        assert fail(Failure("split_error", "no room", retryable=True)).recording_id == hiccup.id
    assert (state_of(engine, hiccup.id).state, state_of(engine, hiccup.id).attempt) == ("failed", 2)
