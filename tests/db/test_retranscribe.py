"""Transcribing again: the current transcript stays until the new one is finished, and is then replaced at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from db import control
from db.connect import transaction
from db.control import Target
from db.liveness import WorkerSession
from db.retranscribe import Begun, ModelUnknown, Selection, transcribe_again
from db.search import search
from db.states import GapKind
from db.transcripts import find_transcript
from db.work import ModelBinding, NewGap, SegmentClaim
from tests.conftest import MadeRecording, Owner
from tests.db.queue_work import (
    SECOND,
    Make,
    NewWorker,
    claim,
    model,
    rows,
    split,
    state_of,
    store,
    transcript,
)


@pytest.fixture
def worker(new_worker: NewWorker) -> WorkerSession:
    return new_worker()


@pytest.fixture
def finished(engine: Engine, worker: WorkerSession, make_recording: Make) -> Callable[..., MadeRecording]:
    """`finished(n)`: a recording of n segments of "choveu" by model "m"."""

    def make(n_segments: int = 4, **keywords: object) -> MadeRecording:
        made: MadeRecording = make_recording(**keywords)
        end = n_segments * SECOND
        gap = NewGap(GapKind.NO_SPEECH, end, end + SECOND, None)
        split(engine, worker, transcript(n_segments, [gap]))
        store(engine, worker, claim(engine, worker, model(engine), limit=100), "choveu")
        assert state_of(engine, made.id).state == "completed"
        return made

    return make


def again(engine: Engine, selection: Selection, **keywords: object) -> Begun:
    with transaction(engine) as tx:
        return transcribe_again(tx.connection, selection, **keywords)  # type: ignore[arg-type]


def text_of(engine: Engine, made: MadeRecording) -> tuple[str, str]:
    """What a reader of the recording finds: its text, and the model that made it."""
    with engine.connect() as connection:
        found = find_transcript(connection, made.owner.id, made.id)
    assert found is not None
    assert found.finished_at is not None
    assert found.model is not None
    return " ".join(segment.text or "?" for segment in found.segments), found.model.name


def search_hits(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return len(search(connection, None, query).hits)


def test_the_old_text_stays_until_the_new_one_is_whole(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished(4)
    assert again(engine, Selection(made.owner.id, recording_id=made.id)) == Begun(1, None)
    assert state_of(engine, made.id).state == "transcribing"
    newer = model(engine, "newer")
    first = claim(engine, worker, newer, limit=3)
    store(engine, worker, first, "nevou")
    assert text_of(engine, made) == ("choveu choveu choveu choveu", "m")
    assert (search_hits(engine, "chover"), search_hits(engine, "nevar")) == (4, 0)
    store(engine, worker, claim(engine, worker, newer), "nevou")
    assert text_of(engine, made) == ("nevou nevou nevou nevou", "newer")
    assert (search_hits(engine, "chover"), search_hits(engine, "nevar")) == (0, 4)
    assert state_of(engine, made.id).state == "completed"
    spans = rows(
        engine,
        "SELECT count(DISTINCT (start_sample, end_sample)), count(*) FROM segments WHERE recording_id = :id",
        id=made.id,
    )
    assert spans == [(4, 8)], "the same spans, so that the two can be compared"
    sums = rows(
        engine, "SELECT DISTINCT transcribed_samples, no_speech_samples, failed_samples FROM transcripts"
    )
    assert sums == [(4 * SECOND, SECOND, 0)]


def test_what_is_under_way_is_not_begun_twice(engine: Engine, finished: Make) -> None:
    made = finished(2)
    selection = Selection(made.owner.id)
    assert again(engine, selection).n_recordings == 1
    assert again(engine, selection).n_recordings == 0


def test_a_model_that_is_named_does_it_and_no_other(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished(2)
    wanted, other = model(engine, "wanted"), model(engine, "other")
    again(engine, Selection(made.owner.id), model="wanted")
    assert claim(engine, worker, other) == []
    store(engine, worker, claim(engine, worker, wanted), "nevou")
    assert text_of(engine, made) == ("nevou nevou", "wanted")
    prompts = rows(engine, "SELECT prompt, decode_settings FROM transcripts WHERE is_current")
    assert prompts == [("prompt", {"method": "greedy"})]
    with pytest.raises(ModelUnknown, match="'nobody'"):
        again(engine, Selection(made.owner.id), model="nobody")


def test_recordings_are_chosen_by_what_is_known_of_them(engine: Engine, finished: Make, owner: Owner) -> None:
    old = finished(1, programme="Serán", broadcast_on=dt.date(1987, 1, 1))
    finished(1, programme="Serán", broadcast_on=dt.date(1999, 1, 1))
    finished(1, programme="Diario", broadcast_on=dt.date(1987, 1, 1))
    every = Selection(owner.id)
    for narrowed, n in (
        (replace(every, programme="Serán", to_on=dt.date(1990, 1, 1)), 1),
        (replace(every, batch_id=old.batch_id), 0),  # under way since the one before
        (replace(every, from_on=dt.date(1990, 1, 1)), 1),
        (replace(every, transcribed_by="another"), 0),
        (replace(every, transcribed_by="m"), 1),
    ):
        assert again(engine, narrowed).n_recordings == n, narrowed


def test_many_are_begun_step_by_step(engine: Engine, finished: Make, owner: Owner) -> None:
    for _ in range(5):
        finished(1)
    selection, after, steps = Selection(owner.id), None, []
    while True:
        begun = again(engine, selection, limit=2, after=after)
        steps.append(begun.n_recordings)
        if (after := begun.last) is None:
            break
    assert steps == [2, 2, 1]


def test_without_a_working_copy_the_media_are_read_anew(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished(2)
    with transaction(engine) as tx:
        tx.connection.execute(text("UPDATE recordings SET working_copy_key = NULL"))
    assert again(engine, Selection(made.owner.id)).n_recordings == 1
    assert state_of(engine, made.id).state == "received"
    assert split(engine, worker, transcript(3)) == made.id
    assert text_of(engine, made)[0] == "choveu choveu"
    store(engine, worker, claim(engine, worker, model(engine)), "nevou")
    assert text_of(engine, made)[0] == "nevou nevou nevou"


def test_a_recording_without_speech_is_finished_at_once(
    engine: Engine, worker: WorkerSession, make_recording: Make
) -> None:
    made = make_recording()
    split(engine, worker, transcript(0, [NewGap(GapKind.NO_SPEECH, 0, SECOND, None)]))
    assert again(engine, Selection(made.owner.id)).n_recordings == 1
    assert state_of(engine, made.id).state == "completed"


def test_it_can_be_paused_cancelled_and_taken_up(
    engine: Engine, worker: WorkerSession, finished: Make
) -> None:
    made = finished(4)
    target, binding = Target(made.owner.id, made.batch_id), model(engine)
    with transaction(engine) as tx:
        control.pause(tx.connection, target)
    again(engine, Selection(made.owner.id))
    assert claim(engine, worker, binding) == []
    with transaction(engine) as tx:
        control.resume(tx.connection, target)
        control.move_held(tx.connection)
    taken: list[SegmentClaim] = claim(engine, worker, binding, limit=2)
    store(engine, worker, taken, "nevou")
    with transaction(engine) as tx:
        control.cancel(tx.connection, target)
    assert claim(engine, worker, binding) == []
    assert text_of(engine, made)[0] == "choveu choveu choveu choveu", "readable though it was stopped"
    with transaction(engine) as tx:
        control.retry(tx.connection, target)
    store(engine, worker, claim(engine, worker, binding), "nevou")
    assert text_of(engine, made)[0] == "nevou nevou nevou nevou"


def test_nobody_has_anothers_recordings_transcribed(
    engine: Engine, finished: Make, make_broadcaster: Make
) -> None:
    made, stranger = finished(1), make_broadcaster()
    for selection in (
        Selection(stranger.id),
        Selection(stranger.id, made.batch_id),
        Selection(stranger.id, None, made.id),
    ):
        assert again(engine, selection).n_recordings == 0


def test_a_bound_transcript_keeps_its_model(
    engine: Engine, worker: WorkerSession, new_worker: NewWorker, finished: Make
) -> None:
    made = finished(3)
    again(engine, Selection(made.owner.id))
    one, two = model(engine, "one"), model(engine, "two")
    store(engine, worker, claim(engine, worker, one, limit=1), "un")
    assert claim(engine, new_worker(), two) == []
    binding: ModelBinding = one
    store(engine, worker, claim(engine, worker, binding), "un")
    assert text_of(engine, made) == ("un un un", "one")
