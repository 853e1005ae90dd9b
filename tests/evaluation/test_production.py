"""Production night by night, on rows with a known truth: what got worse is named, what only looks so is not."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text

from db.corrections import NewCorrection, store_correction
from db.production import CorrectedSegment, StoredMeasure, find_reference
from evaluation.production import (
    MOST_SEGMENTS_A_DAY,
    DriftTonight,
    Scored,
    UnitKind,
    drift_tonight,
    find_standouts,
    limit_strata,
    measure_units,
)
from tests.evaluation.made_nights import counts_of
from tests.made_archive import Spoken, add_model, add_recording, words

NIGHT = dt.date(2026, 3, 10)
UNTIL = dt.datetime(2026, 3, 10, 1, 30, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
FROM = UNTIL - DAY

PROGRAMMES = {
    "Telexornal": ("television", 0.05),
    "Serán": ("television", 0.08),
    "Diario": ("radio", 0.12),
    "Mesa": ("radio", 0.16),
}


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """One open transaction."""
    with engine.begin() as connection:
        yield connection


def add_corrected(
    connection: Connection,
    owner_id: int,
    model_id: int,
    generator: np.random.Generator,
    n_recordings: int,
    at: dt.datetime,
    *,
    programmes: Sequence[str] = tuple(PROGRAMMES),
    factors: dict[str, float] | None = None,
    is_drawn: bool = True,
) -> None:
    """Recordings of 6 corrected segments of 20 words, whose rates differ by a fifth about their programme's."""
    for number in range(n_recordings):
        programme = programmes[number % len(programmes)]
        kind, rate = PROGRAMMES[programme]
        rate *= (factors or {}).get(programme, 1.0) * generator.gamma(25, 1 / 25)
        errors = generator.binomial(20, min(rate, 1), 6)
        add_recording(
            connection,
            owner_id,
            model_id,
            [words(20, int(n), is_drawn=is_drawn) for n in errors],
            at=at,
            programme=programme,
            kind=kind,
        )


def tonight(connection: Connection, model_id: int, **changed: Any) -> DriftTonight:
    return drift_tonight(
        connection,
        **{"model_id": model_id, "from_at": FROM, "until_at": UNTIL, "reference_segments": 500, **changed},
    )


@pytest.fixture
def model_id(connection: Connection, owner: Any) -> int:
    """A model with a reference of 160 recordings, corrected some weeks ago."""
    model_id = add_model(connection)
    add_corrected(connection, owner.id, model_id, np.random.default_rng(21), 160, FROM - 40 * DAY)
    return model_id


def test_the_programme_that_got_worse_is_named(connection: Connection, owner: Any, model_id: int) -> None:
    generator = np.random.default_rng(2)
    add_corrected(connection, owner.id, model_id, generator, 24, UNTIL - DAY / 2, factors={"Diario": 3.0})
    found = tonight(connection, model_id)
    assert found.difference is not None
    assert found.difference.p_value < 0.01
    assert found.difference.value > 0.02
    assert (found.n_segments, found.n_words) == (144, 2880)
    (programme, *kinds) = found.standouts
    assert (programme.kind, programme.name, programme.broadcaster) == (
        UnitKind.PROGRAMME,
        "Diario",
        owner.name,
    )
    assert programme.is_worse
    assert programme.is_own_reference
    assert programme.expected_rate == pytest.approx(0.12, abs=0.02)
    assert programme.rate == pytest.approx(0.36, abs=0.06)
    assert [(each.kind, each.name) for each in kinds] in ([], [(UnitKind.PROGRAMME_KIND, "radio")])
    assert found.n_tested == 6


def test_a_changed_mix_is_no_drift(connection: Connection, owner: Any, model_id: int) -> None:
    generator = np.random.default_rng(3)
    add_corrected(
        connection, owner.id, model_id, generator, 24, UNTIL - DAY / 2, programmes=["Serán", "Mesa", "Mesa"]
    )
    # within a kind: the strata cannot see it, and the programmes' own past does
    found = tonight(connection, model_id)
    assert found.difference is not None
    assert found.standouts == []


def test_a_changed_mix_of_kinds_moves_the_rate_and_not_the_difference(
    connection: Connection, owner: Any, model_id: int
) -> None:
    generator = np.random.default_rng(14)
    programmes = ["Diario", "Mesa", "Diario", "Mesa", "Diario", "Mesa", "Telexornal", "Serán"]
    add_corrected(connection, owner.id, model_id, generator, 48, UNTIL - DAY / 2, programmes=programmes)
    found = tonight(connection, model_id)
    assert found.difference is not None
    assert found.difference.crude_value > 0.01
    assert abs(found.difference.value) < 0.01
    assert abs(found.difference.z) < 2
    assert found.standouts == []


def made_window(
    generator: np.random.Generator, n_recordings: int, factors: dict[str, float] | None = None
) -> Scored:
    """As `add_corrected`, without a database."""
    segments, errors = [], []
    for number in range(n_recordings):
        programme = list(PROGRAMMES)[number % len(PROGRAMMES)]
        kind, rate = PROGRAMMES[programme]
        rate *= (factors or {}).get(programme, 1.0) * generator.gamma(9, 1 / 9)
        for n_errors in generator.binomial(20, min(rate, 1), 6):
            recording = uuid.UUID(int=number)
            segments.append(
                CorrectedSegment(len(segments), recording, "a", "b", programme, kind, True, "", "", FROM)
            )
            errors.append(n_errors)
    return Scored(tuple(segments), counts_of(np.array(errors), np.full(len(errors), 20)))


def test_what_stands_out_is_seldom_chance() -> None:
    generator = np.random.default_rng(8)
    trials = 40
    stable = [
        bool(find_standouts(made_window(generator, 60), made_window(generator, 24))[0]) for _ in range(trials)
    ]
    worse = [
        {
            each.name
            for each in find_standouts(
                made_window(generator, 160), made_window(generator, 24, {"Diario": 3.0})
            )[0]
        }
        for _ in range(trials)
    ]
    assert sum(stable) <= 4
    assert sum("Diario" in names for names in worse) >= 0.9 * trials
    assert sum(bool(names - {"Diario", "radio"}) for names in worse) <= 6


def test_what_people_choose_to_correct_makes_no_drift(
    connection: Connection, owner: Any, model_id: int
) -> None:
    """People choose what is wrong, and another day something else: drift is told of what was drawn."""
    generator = np.random.default_rng(5)
    wrong = dict.fromkeys(PROGRAMMES, 3.0)
    add_corrected(
        connection, owner.id, model_id, generator, 24, UNTIL - DAY / 2, factors=wrong, is_drawn=False
    )
    chosen = tonight(connection, model_id)
    assert chosen.difference is None
    assert chosen.why_not == "no segment that was drawn was corrected, only chosen ones"
    assert chosen.n_segments > 0, "they are shown"
    add_corrected(connection, owner.id, model_id, generator, 24, UNTIL - DAY / 3)
    both = tonight(connection, model_id)
    assert both.difference is not None
    assert both.basis == "drawn"
    assert abs(both.difference.z) < 2.5
    assert {stratum.name[2] for stratum in both.difference.strata} == {"drawn"}  # type: ignore[index]


def test_the_first_corrections_become_the_reference_once(connection: Connection, owner: Any) -> None:
    model_id = add_model(connection)
    generator = np.random.default_rng(6)
    add_corrected(connection, owner.id, model_id, generator, 20, FROM - 2 * DAY)
    add_corrected(connection, owner.id, model_id, generator, 8, UNTIL - DAY / 2)
    early = tonight(connection, model_id, reference_segments=121)
    assert (early.difference, early.reference_id, early.n_segments) == (None, None, 48)
    assert early.why_not is not None
    assert early.why_not.startswith("120 of the 121 corrected segments")
    assert early.wer is not None
    first = tonight(connection, model_id, reference_segments=120)
    reference = find_reference(connection, model_id)
    assert reference is not None
    assert first.reference_id == reference.id
    assert (reference.from_at, reference.until_at) == (FROM - 2 * DAY, FROM)
    assert first.difference is not None
    again = tonight(connection, model_id, reference_segments=10_000)
    assert (again.reference_id, again.difference) == (first.reference_id, first.difference)
    nothing = tonight(connection, model_id, from_at=UNTIL, until_at=UNTIL + DAY)
    assert (nothing.difference, nothing.why_not) == (None, "no segment was corrected")
    other = tonight(connection, add_model(connection, "another"))
    assert (other.n_segments, other.reference_id) == (0, None)


def test_a_segment_counts_once_with_its_newest_text(connection: Connection, owner: Any) -> None:
    model_id = add_model(connection)
    _, (segment_id,) = add_recording(
        connection, owner.id, model_id, [words(10, 5)], at=FROM - 3 * DAY, corrected_at=FROM - 3 * DAY
    )
    before = tonight(connection, model_id, from_at=FROM - 4 * DAY, until_at=FROM)
    assert before.wer == 0.5
    transcribed = words(10, 5).text
    store_correction(connection, owner.id, NewCorrection(segment_id, transcribed, "uxía"))
    now = connection.execute(text("SELECT now()")).scalar_one()
    later = tonight(connection, model_id, from_at=now - DAY, until_at=now + DAY)
    assert later.n_segments == 0
    mended = tonight(connection, model_id, from_at=FROM - 4 * DAY, until_at=FROM)
    assert (mended.n_segments, mended.wer) == (1, 0.0)


def test_the_rolling_window_is_cut_by_broadcaster_kind_and_programme(
    connection: Connection, owner: Any, model_id: int, make_broadcaster: Callable[..., Any]
) -> None:
    other = make_broadcaster("outra")
    add_recording(
        connection, other.id, model_id, [words(10, 1), words(10, 2, is_drawn=False)], at=UNTIL - 5 * DAY
    )
    add_recording(
        connection, owner.id, model_id, [words(10, 0)], at=UNTIL - 27 * DAY, programme="P", kind="radio"
    )
    add_recording(connection, owner.id, model_id, [words(10, 10)], at=UNTIL - 29 * DAY, programme="P")
    window = tonight(connection, model_id).window
    figures = {(each.kind, each.broadcaster, each.name): each for each in window.figures}
    assert list(figures) == [
        (UnitKind.ALL, None, "production"),
        (UnitKind.DRAWN, None, "drawn"),
        *sorted((UnitKind.BROADCASTER, name, name) for name in ("outra", owner.name)),
        (UnitKind.PROGRAMME_KIND, owner.name, "radio"),
        (UnitKind.PROGRAMME, owner.name, "P"),
    ]
    everything = figures[UnitKind.ALL, None, "production"]
    assert (everything.n_segments, everything.n_drawn, everything.n_recordings) == (3, 2, 2)
    assert everything.wer == pytest.approx(0.1)
    assert everything.low is not None
    assert figures[UnitKind.BROADCASTER, "outra", "outra"].low is None  # one recording
    assert figures[UnitKind.PROGRAMME, owner.name, "P"].wer == 0


def test_one_diligent_person_does_not_drown_the_others() -> None:
    def segment(number: int, programme: str, at: dt.datetime) -> CorrectedSegment:
        return CorrectedSegment(
            number, uuid.UUID(int=number), "a", "radio", programme, None, True, "a", "a", at
        )

    many = [segment(number, "Mesa", UNTIL - DAY / 2) for number in range(3 * MOST_SEGMENTS_A_DAY)]
    earlier = [segment(10**6 + number, "Mesa", UNTIL - 1.5 * DAY) for number in range(50)]
    few = [segment(10**7 + number, "Diario", UNTIL - DAY / 2) for number in range(50)]
    kept = limit_strata(many + earlier + few, UNTIL)
    assert len(kept) == MOST_SEGMENTS_A_DAY + 100
    assert limit_strata(reversed(many + earlier + few), UNTIL) == kept
    assert 400 < np.mean([each.segment_id for each in kept if each.segment_id < 10**6]) < 800


# --- measures without references ---------------------------------------------------------------------------


def add_night(connection: Connection, night: dt.date) -> tuple[dt.datetime, dt.datetime]:
    """A night's row; its window."""
    until_at = dt.datetime.combine(night, dt.time(1, 30), dt.UTC)
    connection.execute(
        text("INSERT INTO quality_nights (night, from_at, until_at) VALUES (:night, :from_at, :until_at)"),
        {"night": night, "from_at": until_at - DAY, "until_at": until_at},
    )
    return until_at - DAY, until_at


def by_key(measures: Sequence[StoredMeasure]) -> dict[tuple[str, str, str], StoredMeasure]:
    return {(each.unit_kind, each.unit, each.measure): each for each in measures}


def test_measures_are_ratios_of_sums(connection: Connection, owner: Any) -> None:
    model_id = add_model(connection)
    from_at, until_at = add_night(connection, NIGHT)
    texts = [
        Spoken("un dous tres", mean_logprob=-0.5, n_tokens=10),
        Spoken(" ", mean_logprob=-1.0, n_tokens=2),
    ]
    loop = [Spoken("la la la la", mean_logprob=-0.1, n_tokens=40, flags=("loop", "low_confidence"))]
    for spoken, year in ((texts, 1987), (loop, 1984), (texts, 1991)):
        add_recording(
            connection,
            owner.id,
            model_id,
            spoken,
            at=from_at,
            programme="P",
            broadcast_on=dt.date(year, 1, 2),
        )
    # outside of the window, and of another model
    add_recording(connection, owner.id, model_id, loop, at=until_at)
    add_recording(connection, owner.id, add_model(connection, "another"), loop, at=from_at)
    measures = measure_units(connection, night=NIGHT, model_id=model_id, from_at=from_at, until_at=until_at)
    found = by_key(measures)
    assert set(found) == {
        (kind, unit, measure)
        for kind, unit in (("broadcaster", owner.name), ("programme", "P"))
        for measure in ("mean_logprob", "words_per_s", "loop_rate", "empty_rate", "speech_share")
    }, "a decade with two recordings of three segments is not measured"
    values = {measure: found["programme", "P", measure].value for measure in ("mean_logprob", "words_per_s")}
    assert values == pytest.approx({"mean_logprob": (2 * -7 - 4) / 64, "words_per_s": 10 / 50}, rel=1e-6)
    assert found["programme", "P", "loop_rate"].value == pytest.approx(1 / 5)
    assert found["programme", "P", "empty_rate"].value == pytest.approx(2 / 5)
    assert found["programme", "P", "speech_share"].value == pytest.approx(10 / 12)
    error = found["programme", "P", "loop_rate"].standard_error
    # three recordings with 0 of 2, 1 of 1, 0 of 2: residuals -0.4, 0.8, -0.4
    assert error == pytest.approx(np.sqrt(1.5 * (0.16 + 0.64 + 0.16)) / 5)
    again = measure_units(connection, night=NIGHT, model_id=model_id, from_at=from_at, until_at=until_at)
    assert again == measures
    assert connection.scalar(text("SELECT count(*) FROM quality_measures")) == len(measures)


def test_a_programme_that_leaves_its_history_is_found(connection: Connection, owner: Any) -> None:
    model_id = add_model(connection)
    generator = np.random.default_rng(7)
    first = NIGHT - 13 * DAY
    found: list[StoredMeasure] = []
    for number in range(14):
        night = first + number * DAY
        from_at, until_at = add_night(connection, night)
        for programme in ("Mesa", "Diario", "Serán"):
            is_worse = programme == "Mesa" and number == 13
            for _ in range(6):
                level = generator.normal(-0.4 if is_worse else -0.2, 0.02)
                spoken = [
                    Spoken(
                        " ".join(["palabra"] * int(generator.integers(22, 28))),
                        mean_logprob=float(level + generator.normal(0, 0.02)),
                    )
                    for _ in range(4)
                ]
                add_recording(
                    connection,
                    owner.id,
                    model_id,
                    spoken,
                    at=from_at,
                    programme=programme,
                    broadcast_on=dt.date(1987, 1, 1),
                )
        measures = measure_units(
            connection, night=night, model_id=model_id, from_at=from_at, until_at=until_at
        )
        found = [each for each in measures if each.adjusted_p is not None]
        if number < 13:
            assert found == [], night
    assert ("programme", "Mesa", "mean_logprob") in by_key(found)
    mesa = by_key(found)["programme", "Mesa", "mean_logprob"]
    assert mesa.n_nights == 13
    assert mesa.centre == pytest.approx(-0.2, abs=0.02)
    assert mesa.value == pytest.approx(-0.4, abs=0.03)
    assert {each.measure for each in found} == {"mean_logprob"}
    assert not {each.unit for each in found} & {"Diario", "Serán"}
    rows = connection.execute(
        text("SELECT unit, adjusted_p FROM quality_measures WHERE adjusted_p IS NOT NULL AND night = :night"),
        {"night": NIGHT},
    ).all()
    assert {row.unit for row in rows} == {each.unit for each in found}
