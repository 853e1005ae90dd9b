"""A night's measuring, from its fixed sets to its verdicts.

`prepare` makes the runs that GPU workers generate; `settle` scores them, judges regression, drift and measures without
references, and opens, follows and closes alerts. Settling is one transaction: killed anywhere, it has not happened, and
is done again; done twice, the second changes nothing. `report` writes the pages, in a transaction of its own, so that
a report that cannot be written undoes no verdict.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import structlog
from sqlalchemy import Connection, Engine

from db.baselines import had_drift_reference, list_baselines
from db.connect import transaction
from db.evaluation_runs import abandon_run, create_nightly_run, find_runs, register_set
from db.media_store import MediaStore
from db.nights import (
    QualityNight,
    lock_nights,
    mark_done,
    mark_prepared,
    note_failure,
    read_night,
)
from db.production import model_in_service
from db.quality_schema import NightState
from db.settings import Settings
from db.verdicts import store_verdict
from evaluation.alert_messages import tell_of_report
from evaluation.alerting import update_alerts
from evaluation.held_out import HeldOutError, Unreadable, find_sets, nightly_names, read_nightly_sets
from evaluation.night_production import judge_drift, judge_unreferenced
from evaluation.night_regression import judge_run

log = structlog.get_logger(__name__)

NO_DATASETS = "FONOTECA_DATASETS is not set"


def prepare(engine: Engine, night: dt.date, settings: Settings) -> int:
    """Read the nightly sets and make a run of each; how many are to be generated. Nothing where that was done.

    A set that has a baseline and cannot be read tonight gets a run that is given up at once, with the reason: that it
    was not measured is then judged and told, not passed over.
    """
    with engine.connect() as connection:
        found = read_night(connection, night)
    if found is None or found.prepared_at is not None or found.state != NightState.MEASURING:
        return 0
    read, unreadable = read_nightly_sets(settings)  # minutes, where files are new: outside of any transaction
    with transaction(engine) as tx:
        connection = tx.connection
        lock_nights(connection)
        found = read_night(connection, night, lock=True)
        if found is None or found.prepared_at is not None or found.state != NightState.MEASURING:
            return 0
        for held_out in read:
            create_nightly_run(connection, night, register_set(connection, held_out))
        for problem in unreadable:
            note_failure(connection, night, f"set {problem.name}", problem.reason)
        if settings.datasets is None:
            note_failure(connection, night, "fixed sets", f"{NO_DATASETS}: none was measured")
        measured = {held_out.name for held_out in read}
        _give_up_missing(connection, night, measured, _why_missing(settings, unreadable))
        note_failure(connection, night, "preparing", None)
        mark_prepared(connection, night)
    log.info("night_prepared", night=str(night), sets=len(read), unreadable=len(unreadable))
    return len(read)


def _give_up_missing(
    connection: Connection, night: dt.date, measured: set[str], why: Callable[[str], str | None]
) -> None:
    """A run, given up at once, for each set that has a baseline and is not measured tonight against our will."""
    for baseline in list_baselines(connection):
        if baseline.set_name in measured:
            continue
        reason = why(baseline.set_name)
        if reason is not None:
            abandon_run(connection, create_nightly_run(connection, night, baseline.set_id), reason)


def _why_missing(settings: Settings, unreadable: list[Unreadable]) -> Callable[[str], str | None]:
    """Tells for a set's name why it is not measured tonight; None where nobody wants it measured."""
    reasons = {problem.name: problem.reason for problem in unreadable}
    datasets = settings.datasets
    if datasets is None:
        return lambda name: NO_DATASETS
    try:
        folders = {folder.name: folder for folder in find_sets(datasets)}
    except HeldOutError as error:
        problem = str(error)
        return lambda name: problem
    chosen = nightly_names(settings.nightly_sets)

    def why(name: str) -> str | None:
        if name in reasons:
            return reasons[name]
        if chosen:
            return None if name not in chosen else f"{datasets} holds no set of this name any more"
        return None if name in folders else f"{datasets} holds no set of this name any more"

    return why


def settle(connection: Connection, night: dt.date, settings: Settings) -> bool:
    """Score and judge a night, see to its alerts, and call it done. False where that was done already.

    Runs that are not finished are given up: what they would say later belongs to no night. In the caller's
    transaction, which holds the nights' lock until its end.
    """
    lock_nights(connection)
    found = read_night(connection, night, lock=True)
    if found is None or found.night != night or found.state != NightState.MEASURING:
        return False
    if found.prepared_at is None:
        why = f"the sets were never read: {found.failures.get('preparing', 'nobody did in time')}"
        _give_up_missing(connection, night, set(), lambda name: why)
    hours = settings.night_deadline_h
    for run in find_runs(connection, night):
        if run.is_open:
            done = f"{run.n_predicted:,} of {run.n_utterances:,} utterances"
            abandon_run(connection, run.run_id, f"not finished within {hours:g} h: {done}")
    for run in find_runs(connection, night):
        row = judge_run(connection, run, night)
        store_verdict(connection, row)
        update_alerts(connection, row, settings)
    _settle_production(connection, found, settings)
    note_failure(connection, night, "settling", None)
    mark_done(connection, night)
    log.info("night_settled", night=str(night))
    return True


def _settle_production(connection: Connection, night: QualityNight, settings: Settings) -> None:
    model_id = model_in_service(connection, night.until_at, from_at=night.from_at)
    if model_id is None:
        return  # nothing was ever transcribed
    drift = judge_drift(connection, night, model_id, settings)
    # a question that has no reference window yet is not asked; once there was one, its lack is told
    if drift.reference_id is not None or had_drift_reference(connection):
        store_verdict(connection, drift)
        update_alerts(connection, drift, settings, is_expected=drift.reference_id is not None)
    unreferenced = judge_unreferenced(connection, night, model_id)
    if unreferenced is not None:
        store_verdict(connection, unreferenced)


def report(connection: Connection, store: MediaStore, night: dt.date, settings: Settings) -> None:
    """Write a settled night's report and put its mails on their way."""
    from evaluation.report.write import write_report  # matplotlib takes a second to import

    written = write_report(connection, store, night=night, settings=settings)
    tell_of_report(connection, night, written.mail_subject, written.mail_text, settings)
    note_failure(connection, night, "report", None)
