"""The report of nights that were settled by the real thing: what it finds in their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.connect import transaction
from db.media_store import MediaStore
from db.settings import Settings
from evaluation.report.document import Document, from_json
from evaluation.report.sentences import Language
from evaluation.report.words import Words
from evaluation.report.write import write_report
from tests.evaluation.night_factory import FIRST, Nights, made_set, steady


@pytest.fixture
def nights(engine: Engine, settings: Settings) -> Nights:
    return Nights(engine, settings)


def report(nights: Nights, folder: Path) -> Document:
    with transaction(nights.engine) as tx:
        night = tx.connection.exec_driver_sql("SELECT max(night) FROM quality_nights").scalar_one()
        written = write_report(
            tx.connection, MediaStore(f"file://{folder}"), night=night, settings=nights.settings
        )
    return from_json(written.document)


def test_a_regression_is_told_with_its_programmes_and_what_changed(nights: Nights, tmp_path: Path) -> None:
    held_out = made_set()
    for _ in range(3):
        nights.night(held_out, steady())
    quiet = report(nights, tmp_path)
    assert quiet.headline.question is None
    assert Words(Language.EN).headline(quiet) == "Quality holds: no change is seen in fixed."
    assert quiet.sets[0].baseline_facts is not None
    assert quiet.sets[0].baseline_facts.reason == "first run of this set"

    nights.code_version = "1.1"
    nights.night(held_out, lambda utterance: 0.6 if utterance.kind == "Tempo" else 0.25, model="worse")
    found = report(nights, tmp_path)
    assert (found.headline.verdict, found.headline.subject) == ("regressed", "fixed")
    assert found.headline.since == found.night
    assert found.headline.n_open_alerts == 1
    assert found.headline.standouts
    assert all(name.startswith("Tempo") for name in found.headline.standouts[:3])
    assert {"model", "code_version"} <= {change.name for change in found.sets[0].verdict.changes}
    assert found.errors is not None
    assert found.errors.by_programme[0].stands_out
    assert (found.errors.by_programme[0].programme or "").startswith("Tempo")
    points = found.sets[0].history
    assert points[0].night == FIRST
    assert [point.is_new_model for point in points] == [False, False, False, True]
    assert points[-1].up is not None
    assert points[-1].low is not None
    assert points[-1].baseline_wer is not None
    assert points[-1].low > points[-1].baseline_wer
    # audio that is nowhere keeps nothing from being told
    assert all(one.clip is not None and one.clip.failure for one in found.worst)
