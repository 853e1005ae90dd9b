"""Workers follow deployments: what a model began it finishes, and what cannot be opened is not opened."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from db.connect import transaction
from db.deployments import count_pinned_workers, deploy, deployed
from db.models import NewModel, find_left_behind, register_model
from db.queue import claim_segments, return_claims
from db.settings import Settings
from db.work import ModelBinding
from speech.checkpoint import read_card
from speech.stored import CheckpointError
from workers import serving as serving_module
from workers.context import WorkerContext
from workers.serving import Serving
from workers.split import split_one

DEMO = Path(__file__).parents[2] / "models" / "demo"
MEDIA = Path(__file__).parents[2] / "samples" / "archive" / "rua-con-ruido.wav"
Query = Callable[..., list[Any]]
Make = Callable[..., Any]

MODELS = (
    "SELECT m.name FROM transcripts t JOIN models m ON m.id = t.model_id "
    "JOIN recordings r ON r.id = t.recording_id ORDER BY r.id"
)


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with one weight changed a little: other weights, the same texts."""
    folder = tmp_path_factory.mktemp("models") / "finetuned"
    shutil.copytree(DEMO, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("norm.weight"))
    weights[name] = weights[name] * 1.0001
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def put_in_service(engine: Engine) -> Callable[..., int]:
    """`put_in_service(folder, name="finetuned")`: a deployment, as `fonoteca model promote --force` makes it."""

    def put(folder: Path, name: str = "finetuned", *, weights_sha256: str | None = None) -> int:
        sha256 = weights_sha256 or read_card(folder).weights_sha256
        with transaction(engine) as tx:
            model_id = register_model(tx.connection, NewModel(name, sha256, True, {"location": str(folder)}))
            deploy(
                tx.connection,
                model_id=model_id,
                location=str(folder),
                base=None,
                deployed_by="test",
                evidence={},
                is_forced=True,
                reason="test",
            )
        return model_id

    return put


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[[], Serving]]:
    """`serve()`: one more worker with its model open."""
    opened: list[tuple[WorkerContext, Serving]] = []

    def make() -> Serving:
        context = WorkerContext.open("gpu", settings)
        opened.append((context, Serving(context)))
        opened[-1][1].open()
        return opened[-1][1]

    yield make
    for context, serving in opened:
        serving.close()
        context.close()


@pytest.fixture
def split_new(context: WorkerContext, make_recording: Make) -> Callable[[], None]:
    """`split_new()`: one more recording that waits to be transcribed."""

    def make() -> None:
        make_recording(media=MEDIA)
        assert split_one(context)

    return make


def begin(context: WorkerContext, binding: ModelBinding) -> None:
    """A worker with this model claims what waits, and gives it back: the transcripts are the model's from now on."""
    with transaction(context.engine) as tx:
        assert claim_segments(tx.connection, context.session.worker_id, binding, limit=100)
        return_claims(tx.connection, context.session.worker_id)


def binding_of(serving: Serving) -> ModelBinding:
    assert serving.transcriber is not None
    return serving.transcriber.binding


def model_of(serving: Serving, query: Query) -> str:
    return str(query("SELECT name FROM models WHERE id = :id", id=binding_of(serving).model_id)[0].name)


def test_a_worker_finishes_what_its_model_began_and_begins_with_the_new_one(
    serve: Callable[[], Serving],
    split_new: Callable[[], None],
    context: WorkerContext,
    query: Query,
    put_in_service: Callable[..., int],
    finetuned: Path,
) -> None:
    first, second = serve(), serve()
    split_new()
    begin(context, binding_of(first))
    split_new()
    put_in_service(finetuned)
    old = weakref.ref(first.transcriber.engine)  # type: ignore[union-attr]

    assert first.transcribe() == 1
    assert model_of(first, query) == "fonoteca-demo"
    assert query("SELECT count(*) FROM segments WHERE state = 'pending'") == [(1,)], (
        "the new one is not begun"
    )
    assert first.transcribe() == 1
    assert model_of(first, query) == "finetuned"
    gc.collect()
    assert old() is None, "the old model is out of memory"

    assert query(MODELS) == [("fonoteca-demo",), ("finetuned",)]
    assert query("SELECT DISTINCT state FROM recordings") == [("completed",)]
    assert model_of(second, query) == "fonoteca-demo", "each worker switches when it gets there"
    assert second.transcribe() == 0
    assert model_of(second, query) == "finetuned"


def test_a_new_worker_opens_the_newest_deployment(
    serve: Callable[[], Serving], put_in_service: Callable[..., int], finetuned: Path, query: Query
) -> None:
    model_id = put_in_service(finetuned)
    serving = serve()
    assert binding_of(serving).model_id == model_id, "under the name that it was deployed with"
    assert serving.transcribe() == 0
    put_in_service(DEMO, "fonoteca-demo")
    serving.transcribe()
    assert model_of(serving, query) == "fonoteca-demo"


def test_a_pinned_worker_follows_no_deployment(
    settings: Settings,
    engine: Engine,
    serve: Callable[[], Serving],
    put_in_service: Callable[..., int],
    finetuned: Path,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not settings.is_model_pinned
    put_in_service(finetuned)
    monkeypatch.setenv("FONOTECA_MODEL", str(DEMO))
    pinned = Settings()
    assert pinned.is_model_pinned
    context = WorkerContext.open("gpu", pinned)
    serving = Serving(context)
    try:
        serve()
        with engine.connect() as connection:
            assert count_pinned_workers(connection) == {}
        serving.open()
        assert serving.transcribe() == 0
        assert model_of(serving, query) == "fonoteca-demo"
        with engine.connect() as connection:
            assert count_pinned_workers(connection) == {"fonoteca-demo": 1}
    finally:
        serving.close()
        context.close()
    with engine.connect() as connection:
        assert count_pinned_workers(connection) == {}


def test_what_cannot_be_opened_changes_nothing_and_is_tried_again(
    serve: Callable[[], Serving],
    split_new: Callable[[], None],
    put_in_service: Callable[..., int],
    finetuned: Path,
    tmp_path: Path,
    query: Query,
) -> None:
    serving = serve()
    place = tmp_path / "later"
    put_in_service(place, weights_sha256=read_card(finetuned).weights_sha256)
    split_new()
    assert serving.transcribe() == 1
    assert model_of(serving, query) == "fonoteca-demo"

    shutil.copytree(finetuned, place)
    serving.transcribe()
    assert model_of(serving, query) == "fonoteca-demo", "not again at once"
    assert serving._refused is not None
    serving._refused = serving._refused[0], 0.0  # minutes later
    serving.transcribe()
    assert model_of(serving, query) == "finetuned"


def test_other_weights_than_those_deployed_are_not_opened(
    serve: Callable[[], Serving], put_in_service: Callable[..., int], finetuned: Path, query: Query
) -> None:
    serving = serve()
    put_in_service(finetuned, weights_sha256="f" * 64)
    serving.transcribe()
    assert model_of(serving, query) == "fonoteca-demo"
    put_in_service(finetuned, "better")
    serving.transcribe()
    assert model_of(serving, query) == "better", "a newer deployment is tried at once"


def test_a_model_that_fails_only_when_opened_leaves_the_old_one_open(
    serve: Callable[[], Serving],
    put_in_service: Callable[..., int],
    finetuned: Path,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serving = serve()
    put_in_service(finetuned)
    opens = serving_module.Transcriber.open_at

    def no_room(context: WorkerContext, location: str, **options: Any) -> Any:
        if location == str(finetuned):
            raise CheckpointError("it does not fit")
        return opens(context, location, **options)

    monkeypatch.setattr(serving_module.Transcriber, "open_at", no_room)
    assert serving.transcribe() == 0
    assert model_of(serving, query) == "fonoteca-demo"


def test_a_worker_that_starts_opens_the_newest_deployment_or_none(
    serve: Callable[[], Serving],
    settings: Settings,
    split_new: Callable[[], None],
    put_in_service: Callable[..., int],
    finetuned: Path,
    tmp_path: Path,
    query: Query,
) -> None:
    put_in_service(finetuned, "harmful")
    place = tmp_path / "gone"
    put_in_service(place, "better", weights_sha256=read_card(DEMO).weights_sha256)
    split_new()
    context = WorkerContext.open("gpu", settings)
    serving = Serving(context)
    try:
        with (
            capture_logs() as logs,
            pytest.raises(CheckpointError, match=r"deployed model better cannot be opened.*gone"),
        ):
            serving.open()  # neither the one that was replaced, nor the demo model
        assert [each["event"] for each in logs] == ["deployment_not_opened"]
        with pytest.raises(CheckpointError):
            serving.transcribe()
        assert serving.transcriber is None
    finally:
        serving.close()
        context.close()
    assert query(MODELS) == []

    shutil.copytree(DEMO, place)
    assert model_of(serve(), query) == "better"


def test_what_a_model_left_behind_is_finished_by_it(
    serve: Callable[[], Serving],
    split_new: Callable[[], None],
    context: WorkerContext,
    engine: Engine,
    query: Query,
    put_in_service: Callable[..., int],
    finetuned: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_module, "LOOK_LEFT_BEHIND_S", 0.0)
    old = serve()
    split_new()
    begin(context, binding_of(old))
    new_id = put_in_service(finetuned)
    serving = serve()
    with engine.connect() as connection:
        assert [place.name for place in find_left_behind(connection, new_id)] == ["fonoteca-demo"]
    assert serving.transcribe() == 0
    assert model_of(serving, query) == "finetuned", "somebody has the old model open: it is theirs"

    old.close()
    assert serving.transcribe() == 1
    assert query(MODELS) == [("fonoteca-demo",)]
    assert query("SELECT state FROM recordings") == [("completed",)]
    assert serving.transcribe() == 0
    assert model_of(serving, query) == "finetuned", "and back"


def test_nothing_is_begun_with_a_model_that_was_opened_for_what_it_left_behind(
    serve: Callable[[], Serving],
    split_new: Callable[[], None],
    context: WorkerContext,
    query: Query,
    put_in_service: Callable[..., int],
    finetuned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_module, "LOOK_LEFT_BEHIND_S", 0.0)
    old = serve()
    split_new()
    begin(context, binding_of(old))
    old.close()
    place = tmp_path / "new"
    shutil.copytree(finetuned, place)
    put_in_service(place, "new")
    serving = serve()
    split_new()
    assert serving.transcribe() == 1
    assert model_of(serving, query) == "fonoteca-demo"

    shutil.move(place, tmp_path / "away")
    assert serving.transcribe() == 0
    assert serving.evaluate() is None
    assert model_of(serving, query) == "fonoteca-demo", "the new one is out of reach"
    assert query("SELECT count(*) FROM segments WHERE state = 'pending'") == [(1,)], "it begins nothing"

    shutil.move(tmp_path / "away", place)
    assert serving._refused is not None
    serving._refused = serving._refused[0], 0.0  # minutes later
    assert serving.transcribe() == 1
    assert query(MODELS) == [("fonoteca-demo",), ("new",)]


def test_a_pinned_worker_finishes_what_another_model_left_behind(
    serve: Callable[[], Serving],
    split_new: Callable[[], None],
    context: WorkerContext,
    query: Query,
    finetuned: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_module, "LOOK_LEFT_BEHIND_S", 0.0)
    monkeypatch.setenv("FONOTECA_MODEL", str(DEMO))
    old = serve()
    split_new()
    begin(context, binding_of(old))
    old.close()
    split_new()

    pinned_context = WorkerContext.open("gpu", Settings(model=str(finetuned), model_name="finetuned"))
    pinned = Serving(pinned_context)
    try:
        pinned.open()
        assert pinned.transcribe() == 1
        assert model_of(pinned, query) == "fonoteca-demo"
        assert query(MODELS) == [("fonoteca-demo",)], "nothing is begun with it"
        assert pinned.transcribe() == 1
        assert model_of(pinned, query) == "finetuned", "and back"
    finally:
        pinned.close()
        pinned_context.close()
    assert query(MODELS) == [("fonoteca-demo",), ("finetuned",)]
    assert query("SELECT DISTINCT state FROM recordings") == [("completed",)]


def test_evaluation_waits_for_the_new_model_and_what_was_begun_goes_first(
    serve: Callable[[], Serving],
    split_new: Callable[[], None],
    context: WorkerContext,
    query: Query,
    put_in_service: Callable[..., int],
    finetuned: Path,
) -> None:
    serving = serve()
    split_new()
    begin(context, binding_of(serving))
    put_in_service(finetuned)
    assert serving.evaluate() is None
    assert model_of(serving, query) == "fonoteca-demo"
    assert serving.transcribe() == 1
    assert serving.evaluate() is None
    assert model_of(serving, query) == "finetuned"


def test_the_newest_deployment_counts(
    engine: Engine, put_in_service: Callable[..., int], finetuned: Path
) -> None:
    with engine.connect() as connection:
        assert deployed(connection) is None
    put_in_service(finetuned)
    put_in_service(DEMO, "fonoteca-demo")
    with engine.connect() as connection:
        newest = deployed(connection)
    assert newest is not None
    assert (newest.model, newest.location, newest.is_forced) == ("fonoteca-demo", str(DEMO), True)


def test_finding_what_a_model_began_does_not_read_the_backlog(
    context: WorkerContext, split_new: Callable[[], None], engine: Engine, put_in_service: Callable[..., int]
) -> None:
    split_new()
    model_id = put_in_service(DEMO, "fonoteca-demo")
    with transaction(engine) as tx:
        tx.connection.execute(
            text(
                """
                WITH one AS (SELECT * FROM transcripts LIMIT 1), many AS (
                    INSERT INTO transcripts (broadcaster_id, recording_id, is_current, splitter_version, code_version,
                                             duration_samples)
                    SELECT broadcaster_id, recording_id, false, splitter_version, code_version, 16000
                    FROM one, generate_series(1, 3000) RETURNING *)
                INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                                      priority)
                SELECT broadcaster_id, recording_id, id, k, k * 16000, (k + 1) * 16000, 1
                FROM many, generate_series(0, 9) k
                """
            )
        )
    with engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        from db.queue import _BEGUN_SQL

        plan = connection.scalars(
            text("EXPLAIN " + _BEGUN_SQL.format(losses="< 2")),
            {"model_id": model_id, "from_rank": 0, "limit": 32},
        ).all()
    assert any("ix_transcripts_begun" in line for line in plan), plan
    assert not any("Seq Scan on segments" in line or "ix_segments_turn" in line for line in plan), plan
    begun = ModelBinding(model_id, "prompt", {})
    with transaction(engine) as tx:
        claims = claim_segments(tx.connection, context.session.worker_id, begun, limit=9, may_bind=False)
    assert claims == []
