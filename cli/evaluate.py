"""`fonoteca evaluate`: a model on the held-out sets, with the production engine; interrupted runs resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import INTERRUPTED, CliError
from cli.options import JsonOption
from cli.output import Output, count_text, duration_text, note

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from cli.evaluate_report import Evaluation, SetResult
    from db.evaluation_runs import Provenance
    from db.settings import Settings
    from evaluation.held_out import HeldOutSet, SetFolder, Unreadable
    from evaluation.overlap import ManifestRow, Overlap
    from evaluation.predict import Progress
    from speech.engine import Phi4Engine

PLAIN_LINE_EVERY_S = 10.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    sets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SETS]...", help="Held-out sets by name. None: all.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="Folder of the checkpoint. Unset: FONOTECA_MODEL, or the deployed one.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="PATH",
            help="Whole checkpoint under it, where it holds audio_embed alone.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ... Unset: FONOTECA_DEVICE.", show_default=False)
    ] = None,
    datasets: Annotated[
        Path | None,
        typer.Option(
            "--datasets", metavar="DIR", help="Unset: FONOTECA_DATASETS.", file_okay=False, show_default=False
        ),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(
            "--training",
            metavar="MANIFEST",
            help="Training data to look for overlap with; may be repeated.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Generate anew what was evaluated already.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="Only the first N utterances of each set; the rest can follow later.",
            show_default=False,
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the figures there, too.", show_default=False),
    ] = None,
    predictions_file: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FILE.jsonl",
            help="Write every reference and what was written for it.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on held-out sets: word and character error rates with 95 % intervals.

    Predictions are stored raw in the database as they come: a run that is interrupted goes on where it was.
    """
    from cli import evaluate_report as report
    from cli.database import database
    from db.settings import Settings
    from evaluation.held_out import HeldOutError

    for file in (csv_file, predictions_file):
        if file is not None and not file.parent.is_dir():
            raise CliError(f"{file}: the folder {file.parent} does not exist")
    settings = Settings()
    chosen = {"model": model, "model_base": base, "device": device, "datasets": datasets}
    settings = settings.model_copy(
        update={name: value for name, value in chosen.items() if value is not None}
    )
    if model is not None and base is None:
        settings = settings.model_copy(update={"model_base": None})  # it belongs to the model of the setting
    output = Output(as_json)
    try:
        with database() as engine:
            found = _evaluate(
                engine,
                settings,
                _Wanted(tuple(sets or ()), model, base, again, limit, tuple(training or ())),
                output,
            )
    except HeldOutError as error:
        raise CliError(str(error)) from error
    except KeyboardInterrupt:
        raise CliError("interrupted: what was evaluated is kept", exit_code=INTERRUPTED) from None
    if csv_file is not None:
        report.write_csv(csv_file, found)
    if predictions_file is not None:
        report.write_predictions(predictions_file, found)
    if as_json:
        output.document(report.document(found))
    else:
        report.print_tables(output, found)
    if problem := report.problem_of(found):
        raise CliError(problem)


@dataclass(frozen=True)
class _Wanted:
    """What was asked for."""

    names: tuple[str, ...]
    model: str | None
    base: Path | None
    again: bool
    limit: int | None
    training: tuple[Path, ...]


def _evaluate(engine: Engine, settings: Settings, wanted: _Wanted, output: Output) -> Evaluation:
    from cli.evaluate_report import Evaluation
    from db.connect import transaction
    from db.evaluation_runs import register_set
    from evaluation.predict import provenance_of
    from speech.checkpoint import open_checkpoint, read_card
    from speech.engine import DecodeSettings, Phi4Engine
    from workers.transcribe import register_model, require_weights

    held_out, unreadable = _read_sets(settings, wanted.names)
    overlaps = _find_overlaps(held_out, wanted.training)
    with transaction(engine) as tx:
        set_ids = [register_set(tx.connection, one) for one in held_out]
    place = _place(engine, settings, wanted)
    card = read_card(place.location, base=place.base)
    require_weights(card, place.location, place.weights_sha256)
    if place.name:
        card = replace(card, name=place.name)
    note(f"opening the model {card.name}")
    phi4 = Phi4Engine(
        *open_checkpoint(place.location, base=place.base, device=settings.device, dtype=settings.dtype),
        settings=DecodeSettings(max_slots=settings.gpu_slots),
    )
    with transaction(engine) as tx:
        model_id = register_model(tx.connection, card, location=place.location, base=place.base)
    provenance = provenance_of(phi4, model_id)
    results = [
        _evaluate_set(engine, settings, one, set_id, phi4, provenance, wanted, output)
        for one, set_id in zip(held_out, set_ids, strict=True)
    ]
    return Evaluation(card, provenance, results, unreadable, overlaps, limit=wanted.limit)


@dataclass(frozen=True)
class _Place:
    """Where the model to evaluate lies."""

    location: str
    base: str | None = None
    name: str | None = None
    """Of its row; None takes the checkpoint's own."""
    weights_sha256: str | None = None
    """What its weights must be."""


def _place(engine: Engine, settings: Settings, wanted: _Wanted) -> _Place:
    """The model that was named; else FONOTECA_MODEL; else the one that is deployed; else the fallback."""
    from db.deployments import deployed

    base = str(wanted.base) if wanted.base else None
    if wanted.model is not None:
        return _Place(wanted.model, base)
    if not settings.is_model_pinned:
        with engine.connect() as connection:
            current = deployed(connection)
        if current is not None:
            return _Place(current.location, base or current.base, current.model, current.weights_sha256)
    base = base or (str(settings.model_base) if settings.model_base else None)
    return _Place(settings.model, base, settings.model_name)


def _read_sets(settings: Settings, names: Sequence[str]) -> tuple[list[HeldOutSet], list[Unreadable]]:
    """The sets asked for. Without names, those that cannot be read are left out, and told.

    Raises:
        HeldOutError: one that was asked for cannot be read, or none can.
        CliError: there is none of that name.
    """
    from evaluation.held_out import HeldOutError, Unreadable, cache_folder, find_sets, read_set

    if settings.datasets is None:
        raise CliError(
            "no folder of held-out sets is known: set FONOTECA_DATASETS or give --datasets. It holds one folder a "
            "set; docs/evaluation.md lists the layouts"
        )
    folders = _chosen(find_sets(settings.datasets), names, settings.datasets)
    read: list[HeldOutSet] = []
    unreadable: list[Unreadable] = []
    for folder in folders:
        try:
            found = read_set(folder, cache_folder(settings))
        except HeldOutError as error:
            if names:
                raise
            unreadable.append(Unreadable(folder.name, folder.path, str(error)))
            note(f"left out: {error}")
            continue
        read.append(found)
        note(
            f"{found.name}: {count_text(len(found.utterances), 'utterance')}, "
            f"{duration_text(found.duration_samples / 16_000)} of audio ({found.layout})"
        )
    if not read:
        raise CliError(f"{settings.datasets}: no held-out set in it can be read")
    return read, unreadable


def _chosen(folders: Sequence[SetFolder], names: Sequence[str], datasets: Path) -> list[SetFolder]:
    if not names:
        return list(folders)
    chosen = []
    for name in dict.fromkeys(names):
        matching = [
            folder for folder in folders if name.lower() in (folder.name.lower(), folder.dataset.lower())
        ]
        if not matching:
            known = ", ".join(folder.name for folder in folders) or "none"
            raise CliError(f"{datasets} holds no set {name!r} (there are: {known})")
        chosen += [folder for folder in matching if folder not in chosen]
    return chosen


def _find_overlaps(held_out: Sequence[HeldOutSet], training: Sequence[Path]) -> tuple[Overlap, ...] | None:
    """What the sets share with the training data; None where no manifest was given."""
    from evaluation.overlap import ManifestRow, find_overlaps
    from evaluation.training_manifests import dataset_name, read_training_manifest

    if not training:
        return None
    note("looking for overlap with the training data")

    def rows() -> Iterator[ManifestRow]:
        for file in training:
            yield from read_training_manifest(file)

    return find_overlaps(
        rows(),
        [
            ManifestRow(
                audio=utterance.audio,
                text=utterance.reference,
                duration_s=utterance.duration_samples / 16_000,
                dataset=dataset_name(one.dataset),
                split=one.folder.split,
                speaker=utterance.speaker,
                programme=utterance.programme,
                sha256=utterance.audio_sha256,
            )
            for one in held_out
            for utterance in one.utterances
        ],
    )


def _evaluate_set(
    engine: Engine,
    settings: Settings,
    held_out: HeldOutSet,
    set_id: int,
    phi4: Phi4Engine,
    provenance: Provenance,
    wanted: _Wanted,
    output: Output,
) -> SetResult:
    from cli.evaluate_report import SetResult
    from db.connect import transaction
    from db.evaluation_runs import (
        find_missing,
        hold_run,
        open_manual_run,
        read_predictions,
        read_run,
    )
    from evaluation.predict import SetUnreachable, predict
    from evaluation.run_scores import score_run

    assert settings.datasets is not None
    with transaction(engine) as tx:
        run_id = open_manual_run(tx.connection, set_id, provenance, again=wanted.again)
        before = read_run(tx.connection, run_id)
        missing = find_missing(tx.connection, run_id, first=wanted.limit)
    if before.finished_at is not None:
        note(f"{held_out.name}: evaluated already, on {before.finished_at:%Y-%m-%d} (--again does it anew)")
    elif before.n_predicted:
        note(
            f"{held_out.name}: resumed, {before.n_predicted:,} of {before.n_utterances:,} utterances were there"
        )
    if missing:
        audio_s = sum(utterance.duration_samples for utterance in missing) / 16_000
        with hold_run(engine, run_id) as held, _progress(held_out.name, audio_s, output) as show:
            if not held:
                raise CliError(
                    f"{held_out.name}: another process is evaluating the same model on it; wait for its end"
                )
            try:
                predict(
                    engine,
                    run_id,
                    phi4,
                    provenance,
                    settings.datasets,
                    first=wanted.limit,
                    on_progress=show,
                )
            except SetUnreachable as error:
                raise CliError(f"{error}. What was evaluated is kept; run the command again") from error
            except KeyboardInterrupt:
                raise _interrupted(engine, held_out.name, run_id) from None
    with transaction(engine) as tx:
        run = read_run(tx.connection, run_id)
        if run.finished_at is not None:
            score_run(tx.connection, run_id)
        rows = read_predictions(tx.connection, run_id, first=wanted.limit)
    return SetResult(held_out, run, before.n_predicted, rows)


def _interrupted(engine: Engine, name: str, run_id: object) -> CliError:
    import uuid

    from db.evaluation_runs import read_run

    assert isinstance(run_id, uuid.UUID)
    with engine.connect() as connection:
        run = read_run(connection, run_id)
    return CliError(
        f"interrupted: {name} has {run.n_predicted:,} of {run.n_utterances:,} utterances, and they are kept. The "
        "same command goes on from there",
        exit_code=INTERRUPTED,
    )


# --- progress --------------------------------------------------------------------------------------------


@contextmanager
def _progress(name: str, audio_s: float, output: Output) -> Iterator[Callable[[Progress], None]]:
    """A function that shows how far a set is: a moving bar on a terminal, else a line now and then."""
    if not output.live:
        yield _plain_lines(name, audio_s)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=audio_s)

        def show(progress: object) -> None:
            from evaluation.predict import Progress as Slice

            assert isinstance(progress, Slice)
            bar.update(task, completed=progress.audio_s, description=_progress_text(name, progress))

        yield show


def _progress_text(name: str, progress: Progress) -> str:
    text = f"{name}: {progress.n_stored:,} of {progress.n_missing:,}"
    return f"{text} ({progress.n_failed:,} failed)" if progress.n_failed else text


def _plain_lines(name: str, audio_s: float) -> Callable[[Progress], None]:
    started_at = shown_at = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal shown_at
        now = time.monotonic()
        is_last = progress.n_stored >= progress.n_missing
        if (is_last or now - shown_at >= PLAIN_LINE_EVERY_S) and progress.audio_s:
            shown_at = now
            rest_s = (now - started_at) * (audio_s - progress.audio_s) / progress.audio_s
            left = "" if is_last else f", about {duration_text(rest_s)} left"
            note(_progress_text(name, progress) + left)

    return show
