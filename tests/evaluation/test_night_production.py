"""Drift and measures without references, night after night: named, alarmed once, and never mixed with another model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from db.baselines import retire_drift_references
from db.connect import transaction
from db.settings import Settings
from db.verdicts import VerdictRow
from tests.evaluation.night_factory import FIRST, MADRID, Nights
from tests.made_archive import add_model, add_recording, words

PROGRAMMES = {"Telexornal": 0.06, "Serán": 0.08, "Diario": 0.12, "Mesa": 0.14}
Query = Callable[..., list[Any]]


@pytest.fixture
def query(engine: Engine) -> Query:
    def run(statement: str, **values: Any) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(text(statement), values).all())

    return run


class Production:
    """A broadcaster whose segments are corrected the day before each night."""

    def __init__(self, engine: Engine, settings: Settings, owner_id: int) -> None:
        self.nights = Nights(engine, settings.model_copy(update={"drift_reference_segments": 200}))
        self.engine = engine
        self.owner_id = owner_id
        self.generator = np.random.default_rng(7)
        with engine.begin() as connection:
            self.model_id = add_model(connection)
        self.add(48, MADRID.due_at(FIRST) - dt.timedelta(days=3))

    def add(self, n_recordings: int, at: dt.datetime, **factors: float) -> None:
        with self.engine.begin() as connection:
            for number in range(n_recordings):
                programme = list(PROGRAMMES)[number % len(PROGRAMMES)]
                rate = PROGRAMMES[programme] * factors.get(programme, 1.0) * self.generator.gamma(25, 1 / 25)
                errors = self.generator.binomial(20, min(rate, 1), 6)
                add_recording(
                    connection,
                    self.owner_id,
                    self.model_id,
                    [words(20, int(n)) for n in errors],
                    at=at,
                    programme=programme,
                    kind="television" if programme in ("Telexornal", "Serán") else "radio",
                )

    def night(self, n_recordings: int = 16, **factors: float) -> dict[tuple[str, str], VerdictRow]:
        if n_recordings:
            self.add(n_recordings, MADRID.due_at(self.nights.next_night) - dt.timedelta(hours=6), **factors)
        self.nights.begin()
        return self.nights.settle()

    def drift(self, n_recordings: int = 16, **factors: float) -> VerdictRow:
        return self.night(n_recordings, **factors)["drift", "production"]


@pytest.fixture
def production(engine: Engine, settings: Settings, owner: Any) -> Production:
    return Production(engine, settings, owner.id)


def alerts(query: Query) -> list[tuple[Any, ...]]:
    rows = query("SELECT kind, subject, opened_night, last_night, close_reason FROM alerts ORDER BY id")
    return [tuple(row) for row in rows]


def test_drift_of_one_programme_is_named_and_alarmed_once(production: Production, query: Query) -> None:
    quiet = [production.drift() for _ in range(3)]
    assert {row.verdict for row in quiet} <= {"ok", "watch"}
    assert len({row.reference_id for row in quiet}) == 1
    assert quiet[0].reference_id is not None
    assert [row.chart["n_nights"] for row in quiet if row.chart] == [1, 2, 3]
    drifted = [production.drift(Telexornal=5.0) for _ in range(3)]
    assert drifted[1].verdict == "regressed"
    found = drifted[1].evidence["standouts"]
    assert (found[0]["kind"], found[0]["name"]) == ("programme", "Telexornal")
    assert found[0]["wer"] > 2 * found[0]["expected"]
    assert {each["name"] for each in found if each["kind"] == "programme"} == {"Telexornal"}
    assert "it stands out in the programme Telexornal" in drifted[1].sentence
    assert drifted[1].baseline_wer is not None
    assert drifted[1].n_words == 16 * 6 * 20
    (alert,) = alerts(query)
    assert alert[:2] == ("drift", "production")
    assert alert[3:] == (FIRST + dt.timedelta(days=5), None)


def test_a_new_model_begins_anew_and_leaves_the_alert_open_until_it_can_tell(
    production: Production, query: Query
) -> None:
    production.drift()
    assert [production.drift(Telexornal=6.0).verdict for _ in range(2)][-1] == "regressed"
    with production.engine.begin() as connection:
        production.model_id = add_model(connection, "another")
    row = production.drift()
    assert (row.verdict, row.cause, row.reference_id) == ("watch", "not_measured", None)
    assert row.evidence["reason"].startswith("0 of the 200 corrected segments")
    assert [alert[::4] for alert in alerts(query)] == [("drift", None)]
    for _ in range(3):
        row = production.drift()
    assert row.reference_id is not None
    assert row.cause != "not_measured"
    assert [alert[::4] for alert in alerts(query)] == [("drift", "the reference window was replaced")]
    assert query("SELECT count(*) FROM drift_references WHERE retired_at IS NULL") == [(2,)]


def test_days_without_corrections_are_missed_after_a_week(production: Production, query: Query) -> None:
    assert production.drift().cause != "not_measured"
    for _ in range(6):
        row = production.drift(0)
        assert (row.cause, row.evidence["reason"]) == ("not_measured", "no segment was corrected")
    assert alerts(query) == []
    row = production.drift(0)
    assert row.sentence == "production: not measured for 7 nights: no segment was corrected"
    assert [alert[:2] for alert in alerts(query)] == [("not_measured", "production")]
    production.drift()
    assert [alert[4] for alert in alerts(query)] == ["measured again"]


def test_without_a_reference_window_drift_is_not_asked(
    engine: Engine, settings: Settings, owner: Any, query: Query
) -> None:
    production = Production(engine, settings, owner.id)
    production.nights.settings = settings  # 500 are needed, 288 are there
    verdicts = production.night()
    assert ("drift", "production") not in verdicts
    assert alerts(query) == []


def test_a_retired_window_is_followed_by_one_of_newer_corrections(
    production: Production, query: Query
) -> None:
    first = production.drift().reference_id
    with transaction(production.engine) as tx:
        assert retire_drift_references(tx.connection, "the archive moved") == 1
        # retired by the clock of these nights
        tx.connection.execute(
            text("UPDATE drift_references SET retired_at = :at"),
            {"at": MADRID.due_at(production.nights.next_night) - dt.timedelta(hours=12)},
        )
    assert production.drift().cause == "not_measured"
    rows = [production.drift() for _ in range(3)]
    assert rows[-1].reference_id not in (None, first)
    (window,) = query("SELECT from_at FROM drift_references WHERE retired_at IS NULL")
    assert window.from_at > MADRID.due_at(FIRST)


def test_measures_without_references_are_told_and_never_alarmed(production: Production, query: Query) -> None:
    rows = [production.night()["unreferenced", "production"] for _ in range(2)]
    assert {(row.verdict, row.cause) for row in rows} == {("ok", "not_measured")}
    assert "none with a history" in rows[0].sentence
    assert query("SELECT count(*) > 0 FROM quality_measures") == [(True,)]
    assert alerts(query) == []
