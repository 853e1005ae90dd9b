"""`fonoteca model promote`, `list` and `deployed`: which model is in service, and putting in another."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, note

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.deployments import Deployment
    from db.models import NewModel
    from evaluation.promotion import Promotion, SetDecision


def add_commands(model: typer.Typer) -> None:
    """Add the commands to `fonoteca model`."""
    model.command("promote")(promote)
    model.command("list")(list_models)
    model.command("deployed")(show_deployed)


def promote(
    path: Annotated[
        Path, typer.Argument(help="Folder of the checkpoint, as workers see it.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Name that transcripts give the model. Unset: its own.", show_default=False),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Whole checkpoint under it, where it holds audio_embed alone.", show_default=False),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            metavar="PERCENT",
            min=0,
            max=100,
            help="Most harm that may remain possible, in percent of the deployed model's error rate "
            "(0.1 points are always allowed).",
        ),
    ] = 5.0,
    force: Annotated[
        bool, typer.Option("--force", help="Deploy it whatever was found. Needs --reason.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why it is deployed all the same; stored.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only; deploy nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Deploy a model, if it is shown to do no harm on every fixed set.

    Its finished evaluation runs are paired with those of the deployed model, set by set: the upper end of the one-sided
    95 % interval of the difference in word error rate must stay below the margin. Its runs then become the sets'
    baselines. The exit code is 1 where it is not deployed.

    Workers open it once they have finished what the model before it began.
    """
    from dataclasses import replace

    from cli.database import database
    from db.connect import transaction
    from db.deployments import count_pinned_workers, deployed
    from db.nights import lock_nights
    from evaluation.promotion import PROMOTION_MARGIN, decide

    if force and not (reason or "").strip():
        raise CliError("--force needs --reason: say why, for those who look later")
    candidate = _read(path, name, base)
    with database() as engine, transaction(engine) as tx:
        lock_nights(tx.connection)  # no night is settled between the comparison and its consequences
        before = deployed(tx.connection)
        pinned = count_pinned_workers(tx.connection)
        if before is not None and _is_same(before, candidate):
            _print_same(before, as_json)
            _note_pinned(pinned)
            return
        if before is not None and before.weights_sha256 == candidate.weights_sha256:
            found = None  # the same weights in another folder or by another name: nothing to compare
        else:
            found = decide(
                tx.connection,
                candidate_sha256=candidate.weights_sha256,
                deployed_sha256=before.weights_sha256 if before else None,
                margin=replace(PROMOTION_MARGIN, relative=margin / 100),
            )
        is_allowed = found is None or found.is_allowed
        is_deployed = (is_allowed or force) and not dry_run
        if is_deployed:
            _deploy(tx.connection, candidate, found, None if is_allowed else (reason or "").strip())
            tx.after_commit(_wake)
    _print(candidate, before, found, is_allowed, is_deployed, margin, as_json)
    _note_pinned(pinned)
    if not is_deployed and not (dry_run and is_allowed):
        sets = ", ".join(each.set_name for each in found.sets if each.outcome != "harmless") if found else ""
        why = f"no harm is not shown on {sets}" if sets else "no set has a baseline to compare with"
        raise CliError(
            f"{candidate.name} is not deployed: {why}. `--force --reason TEXT` deploys it all the same"
        )


def _read(path: Path, name: str | None, base: Path | None) -> NewModel:
    from db.models import NewModel
    from speech.inspection import inspect_checkpoint

    found = inspect_checkpoint(path, base=base)
    if found.problems:
        listed = "; ".join(problem for problems in found.problems.values() for problem in problems)
        raise CliError(f"{path}: cannot be opened: {listed}")
    assert found.weights_sha256 is not None
    return NewModel(
        name=name or found.name,
        weights_sha256=found.weights_sha256,
        is_demo=found.is_demo,
        config={
            "layout": found.layout.value,
            "n_tensors": found.n_tensors,
            "n_bytes": found.n_bytes,
            "location": str(path.absolute()),
            "base": str(base.absolute()) if base else None,
        },
    )


def _is_same(before: Deployment, candidate: NewModel) -> bool:
    return (before.model, before.weights_sha256, before.location, before.base) == (
        candidate.name,
        candidate.weights_sha256,
        candidate.config["location"],
        candidate.config["base"],
    )


def _deploy(
    connection: Connection, candidate: NewModel, found: Promotion | None, forced_because: str | None
) -> None:
    """Register, deploy, and (unless forced) make the candidate's runs the baselines."""
    from cli.alerts import person
    from db.baselines import accept_baseline
    from db.deployments import deploy
    from db.models import register_model
    from db.quality_schema import AlertKind
    from db.settings import Settings
    from evaluation.alert_messages import close_for_replacement

    who, why = person(), f"model {candidate.name} deployed"
    deploy(
        connection,
        model_id=register_model(connection, candidate),
        location=candidate.config["location"],
        base=candidate.config["base"],
        deployed_by=who,
        is_forced=forced_because is not None,
        reason=forced_because,
        evidence=found.evidence if found else {"same_weights": True},
    )
    if forced_because is not None or found is None:
        return  # the nights go on comparing with what was accepted, and say what changed
    for each in found.sets:
        assert each.candidate_run is not None
        accept_baseline(
            connection, set_id=each.set_id, run_id=each.candidate_run.run_id, accepted_by=who, reason=why
        )
        close_for_replacement(
            connection,
            AlertKind.REGRESSION,
            each.set_name,
            closed_by=who,
            reason=why,
            settings=Settings(),
        )


def _wake() -> None:
    """An idle worker opens the model at once, not with the next work."""
    from db.settings import SettingMissing, Settings
    from workers.queue import wake_transcribe

    try:
        Settings().require_redis_url()
    except SettingMissing:
        return
    wake_transcribe()


# --- printing --------------------------------------------------------------------------------------------


def _print_same(before: Deployment, as_json: bool) -> None:
    output = Output(as_json)
    if as_json:
        output.document({"is_deployed": True, "is_new": False, "deployed": deployment_json(before)})
    else:
        output.line(
            f"{before.model} ({before.weights_sha256[:12]}) is deployed already, "
            f"since {before.deployed_at:%Y-%m-%d %H:%M}"
        )


def _print(
    candidate: NewModel,
    before: Deployment | None,
    found: Promotion | None,
    is_allowed: bool,
    is_deployed: bool,
    margin: float,
    as_json: bool,
) -> None:
    output = Output(as_json)
    sets = found.sets if found else ()
    if as_json:
        output.document(
            {
                "model": {"name": candidate.name, "weights_sha256": candidate.weights_sha256},
                "deployed_before": deployment_json(before) if before else None,
                "is_allowed": is_allowed,
                "is_deployed": is_deployed,
                "is_new": is_deployed,
                "is_forced": is_deployed and not is_allowed,
                "margin_percent": margin,
                "sets": found.evidence["sets"] if found else {},
            }
        )
    else:
        against = f"{before.model} ({before.weights_sha256[:12]})" if before else "the baselines"
        output.line(f"{candidate.name} ({candidate.weights_sha256[:12]}) against {against}")
        if found is None:
            output.line("the same weights: nothing to compare")
        if sets:
            output.line("")
            output.line(
                f"{'set':<20}{'N':>8}{'deployed':>10}{'candidate':>11}{'difference':>12}{'at most':>9}"
                f"{'allowed':>9}  result"
            )
        for each in sets:
            output.line(_row(each))
        for each in sets:
            if each.outcome != "harmless" or " (the runs differ" in each.sentence:
                output.line(f"{each.set_name}: {each.sentence}")
        if is_deployed:
            forced = "" if is_allowed else ", forced; the baselines stay"
            output.line("")
            output.line(f"deployed{forced}: workers open it once they have finished what they began")
    for each in sets:
        for command in _commands(each, candidate, before):
            note(f"{each.set_name}: run `{command}`")


def _note_pinned(pinned: dict[str, int]) -> None:
    """Say which workers follow no deployment: those that run, and those that this environment would start."""
    from db.settings import Settings

    for name, count in pinned.items():
        note(
            f"{count} running GPU worker{'s are' if count > 1 else ' is'} pinned by FONOTECA_MODEL and will not follow "
            f"({name} open): unset it where they are started, and start them again"
        )
    settings = Settings()
    if settings.is_model_pinned:
        note(
            f"FONOTECA_MODEL is set here ({settings.model}): workers with that setting keep to it and follow no "
            "deployment"
        )


def _row(each: SetDecision) -> str:
    test = each.test
    if test is None:
        return f"{each.set_name:<20}{'':>59}  {each.outcome.value.replace('_', ' ')}"
    return (
        f"{each.set_name:<20}{test.n_utterances:>8,}{100 * test.deployed_wer:>9.2f} {100 * test.candidate_wer:>10.2f} "
        f"{100 * test.difference:>+11.2f} {100 * test.upper:>+8.2f} {100 * test.margin:>8.2f}  {each.outcome.value}"
    )


def _commands(each: SetDecision, candidate: NewModel, before: Deployment | None) -> list[str]:
    """What makes the runs that are missing."""
    places = {"candidate": (candidate.config["location"], candidate.config["base"])}
    if before is not None:
        places["deployed"] = before.location, before.base
    commands = []
    for who in each.missing:
        location, base = places.get(who, ("PATH", None))
        has_run = (each.candidate_run if who == "candidate" else each.deployed_run) is not None
        commands.append(
            shlex.join(["fonoteca", "evaluate", each.set_name, "--model", location])
            + (f" --base {shlex.quote(base)}" if base else "")
            + (" --again" if has_run else "")
        )
    return commands


def list_models(as_json: JsonOption = False) -> None:
    """List the models that are known, the newest first."""
    from dataclasses import asdict

    from cli.database import database
    from db import models
    from db.deployments import deployed

    with database() as engine, engine.connect() as connection:
        found, current = models.list_models(connection), deployed(connection)
    in_service = current.model_id if current else None
    output = Output(as_json)
    if as_json:
        content = [asdict(each) | {"is_deployed": each.model_id == in_service} for each in found]
        for row in content:
            for key in ("created_at", "deployed_at"):
                row[key] = row[key].isoformat() if row[key] else None
        output.document(content)
        return
    for each in found:
        state = "deployed" if each.model_id == in_service else ""
        if not state and each.deployed_at:
            state = f"deployed before, last on {each.deployed_at:%Y-%m-%d}"
        demo = "  (demo)" if each.is_demo else ""
        output.line(
            f"{each.name}{demo}  {each.weights_sha256[:12]}  {each.n_runs:,} evaluation runs, "
            f"{each.n_transcripts:,} transcripts  {each.location or '-'}  {state}".rstrip()
        )
    if not found:
        note("no model yet: one is registered when a worker opens it, or by `fonoteca evaluate`")


def show_deployed(as_json: JsonOption = False) -> None:
    """Show the model in service, and on what evidence it was deployed."""
    from cli.database import database
    from db.deployments import deployed
    from db.settings import Settings

    with database() as engine, engine.connect() as connection:
        current = deployed(connection)
    output = Output(as_json)
    if as_json:
        output.document(deployment_json(current) if current else None)
        return
    if current is None:
        output.line(f"no model was deployed yet: workers open {Settings().model}")
        return
    output.line(f"{current.model} ({current.weights_sha256[:12]})")
    output.line(f"folder    {current.location}" + (f", over {current.base}" if current.base else ""))
    output.line(f"deployed  {current.deployed_at:%Y-%m-%d %H:%M} by {current.deployed_by}")
    if current.is_forced:
        output.line(f"forced    {current.reason}")
    for name, evidence in current.evidence.get("sets", {}).items():
        output.line(f"{name}: {evidence['sentence']}")


def deployment_json(deployment: Deployment) -> dict[str, Any]:
    """The JSON form of a deployment."""
    from dataclasses import asdict

    return asdict(deployment) | {"deployed_at": deployment.deployed_at.isoformat()}
