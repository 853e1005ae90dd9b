"""`fonoteca baseline`: what nights are compared with, and accepting something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.alerts import ReasonOption, person, required
from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, note

if TYPE_CHECKING:
    from db.baselines import BaselineRow

baseline = typer.Typer(
    no_args_is_help=True,
    help="List, accept and retire what nights are compared with (an operator's command: needs the database).",
)

SetArgument = Annotated[str, typer.Argument(metavar="SET", help="Name of the held-out set.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(baseline, name="baseline")


@baseline.command("list")
def list_baselines(
    everything: Annotated[bool, typer.Option("--all", help="The retired ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the baselines of the fixed sets."""
    from cli.database import database
    from db import baselines

    with database() as engine, engine.connect() as connection:
        found = baselines.list_baselines(connection, with_retired=everything)
    output = Output(as_json)
    if as_json:
        output.document([baseline_json(each) for each in found])
        return
    for each in found:
        wer = f"{100 * each.wer:.2f} %" if each.wer is not None else "-"
        state = (
            f"retired {each.retired_at:%Y-%m-%d}: {each.retired_reason}" if each.retired_at else "in force"
        )
        output.line(
            f"{each.set_name:<20}  {wer:>8}  {each.model} ({each.weights_sha256[:12]})  "
            f"{each.accepted_at:%Y-%m-%d} by {each.accepted_by}: {each.reason}  [{state}]"
        )
    if not found:
        note("no baseline yet: a set's first night becomes its baseline by itself")


@baseline.command("accept")
def accept(
    set_name: SetArgument,
    reason: ReasonOption,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="ID", help="Evaluation run. Unset: the newest nightly one.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a set's nights with another run from now on. Its chart begins anew, and its alert is closed."""
    from uuid import UUID

    from cli.database import database
    from db.baselines import accept_by_name
    from db.connect import transaction
    from db.nights import lock_nights
    from db.quality_schema import AlertKind
    from db.settings import Settings
    from evaluation.alert_messages import close_for_replacement

    try:
        run = UUID(run_id) if run_id else None
    except ValueError:
        raise CliError(f"{run_id!r} is not the id of an evaluation run") from None
    who, why = person(), required(reason)
    with database() as engine, transaction(engine) as tx:
        lock_nights(tx.connection)
        accepted = accept_by_name(tx.connection, set_name, run_id=run, accepted_by=who, reason=why)
        closed = close_for_replacement(
            tx.connection,
            AlertKind.REGRESSION,
            set_name,
            closed_by=who,
            reason=f"the baseline was replaced: {why}",
            settings=Settings(),
        )
    if closed is not None:
        note(f"closed alert {closed.id}")
    if as_json:
        Output(as_json).document(baseline_json(accepted))
    else:
        typer.echo(f"accepted the run {accepted.run_id} as the baseline of {set_name}")


@baseline.command("retire")
def retire(set_name: SetArgument, reason: ReasonOption) -> None:
    """Stop expecting a set: it is no longer missed when it is not measured. Its alerts are closed."""
    from cli.database import database
    from db.baselines import retire_baseline
    from db.connect import transaction
    from db.nights import lock_nights
    from db.quality_schema import AlertKind
    from db.settings import Settings
    from evaluation.alert_messages import close_for_replacement

    who, why = person(), required(reason)
    with database() as engine, transaction(engine) as tx:
        lock_nights(tx.connection)
        retire_baseline(tx.connection, set_name, why)
        for kind in (AlertKind.REGRESSION, AlertKind.NOT_MEASURED):
            close_for_replacement(
                tx.connection,
                kind,
                set_name,
                closed_by=who,
                reason=f"the baseline was retired: {why}",
                settings=Settings(),
            )
    typer.echo(
        f"retired the baseline of {set_name}: should it be measured again, that run becomes its baseline"
    )


@baseline.command("restart-drift")
def restart_drift(reason: ReasonOption) -> None:
    """End the reference windows of drift. New ones are made of the corrections from now on; the alert is closed."""
    from cli.database import database
    from db.baselines import retire_drift_references
    from db.connect import transaction
    from db.nights import lock_nights
    from db.quality_schema import AlertKind
    from db.settings import Settings
    from evaluation.alert_messages import close_for_replacement

    who, why = person(), required(reason)
    settings = Settings()
    with database() as engine, transaction(engine) as tx:
        lock_nights(tx.connection)
        if not retire_drift_references(tx.connection, why):
            raise CliError(
                "no reference window is in force: the first is made once "
                f"{settings.drift_reference_segments:,} segments of a model were corrected"
            )
        for kind in (AlertKind.DRIFT, AlertKind.NOT_MEASURED):
            close_for_replacement(
                tx.connection,
                kind,
                "production",
                closed_by=who,
                reason=f"the reference window was retired: {why}",
                settings=settings,
            )
    typer.echo(
        f"ended the reference window: the next one needs {settings.drift_reference_segments:,} corrected segments"
    )


def baseline_json(each: BaselineRow) -> dict[str, Any]:
    """A baseline for programs."""
    return {
        "id": each.id,
        "set": each.set_name,
        "run_id": str(each.run_id),
        "night": each.night.isoformat() if each.night else None,
        "model": each.model,
        "weights_sha256": each.weights_sha256,
        "device": each.device,
        "code_version": each.code_version,
        "wer": each.wer,
        "accepted_at": each.accepted_at.isoformat(),
        "accepted_by": each.accepted_by,
        "reason": each.reason,
        "retired_at": each.retired_at.isoformat() if each.retired_at else None,
        "retired_reason": each.retired_reason,
    }
