"""A candidate is deployed where it is shown to do no harm, set by set; what is not shown is named."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event, text

from db.baselines import list_baselines
from db.connect import transaction
from db.evaluation_runs import Provenance, find_newest_run, open_manual_run, register_set
from db.settings import Settings
from evaluation.counts import EditCounts
from evaluation.promotion import Outcome, Promotion, decide, judge_harm
from evaluation.verdict import Margin
from tests.evaluation.made_nights import FixedSet, counts_of
from tests.evaluation.night_factory import Errors, Nights, made_set, steady


def both(errors: np.ndarray, other: np.ndarray, words: int = 20) -> tuple[EditCounts, EditCounts]:
    return counts_of(errors, np.full(len(errors), words)), counts_of(other, np.full(len(errors), words))


# --- the test itself ---------------------------------------------------------------------------------------


def test_the_same_texts_are_harmless_whatever_the_size() -> None:
    errors = np.array([1, 0, 2, 1])
    found = judge_harm(*both(errors, errors), clusters=list("abcd"))
    assert (found.outcome, found.difference, found.upper, found.p_value) == (Outcome.HARMLESS, 0, 0, 1)


def test_a_worse_candidate_is_harmful_and_a_better_one_harmless() -> None:
    errors = np.arange(400) % 5
    worse = errors + (np.arange(400) % 3 == 0)
    found = judge_harm(*both(errors, worse), clusters=list(range(400)))
    assert found.outcome is Outcome.HARMFUL
    assert found.low > 0
    assert found.difference == pytest.approx(134 / 8_000)
    assert judge_harm(*both(worse, errors), clusters=list(range(400))).outcome is Outcome.HARMLESS


def test_no_difference_found_on_a_small_set_shows_nothing_and_says_how_many_more() -> None:
    errors = np.array([2, 3, 1, 4, 2, 3, 1, 4] * 5)
    other = errors + np.array([1, -1, 0, 0, -1, 1, 0, 0] * 5)
    found = judge_harm(*both(errors, other), clusters=list(range(40)))
    assert found.p_value == pytest.approx(1)
    assert found.outcome is Outcome.UNDECIDED
    assert found.more_utterances is not None
    n = 1 + found.more_utterances // 40
    many = judge_harm(
        *both(np.tile(errors, n + 1), np.tile(other, n + 1)), clusters=list(range(40 * (n + 1)))
    )
    assert many.outcome is Outcome.HARMLESS
    few = max(1, n // 2)
    half = judge_harm(*both(np.tile(errors, few), np.tile(other, few)), clusters=list(range(40 * few)))
    assert half.outcome is Outcome.UNDECIDED


def test_what_no_number_of_utterances_would_settle_has_none() -> None:
    errors = np.array([2, 3, 1, 4] * 3)
    other = errors + np.array([3, 0, 0, -1] * 3)
    found = judge_harm(*both(errors, other), clusters=list(range(12)))
    assert (found.outcome, found.more_utterances) == (Outcome.UNDECIDED, None)


def test_one_cluster_shows_nothing() -> None:
    errors = np.array([1, 0, 2, 1])
    found = judge_harm(*both(errors, np.zeros(4, int)), clusters=["ana"] * 4)
    assert found.outcome is Outcome.UNDECIDED
    assert math.isnan(found.upper)


def test_a_sure_harm_is_harm_even_below_the_margin() -> None:
    errors = np.full(3_000, 4)
    other = errors + (np.arange(3_000) % 20 == 0)
    found = judge_harm(*both(errors, other), clusters=list(range(3_000)), margin=Margin(0.05, 0.001))
    assert found.upper < found.margin
    assert found.outcome is Outcome.HARMFUL


def test_a_tenth_more_errors_hardly_ever_pass_and_equal_ones_mostly() -> None:
    generator = np.random.default_rng(3)
    passed = {1.0: 0, 1.1: 0}
    for _ in range(60):
        made = FixedSet.make(generator)
        deployed = made.decode(generator)
        for factor in passed:
            candidate = made.again(deployed, generator, 0.2, factor)
            a, b = counts_of(deployed, made.words), counts_of(candidate, made.words)
            passed[factor] += judge_harm(a, b, made.speakers).outcome is Outcome.HARMLESS
    assert passed[1.1] <= 3
    assert passed[1.0] >= 50


# --- on stored runs ----------------------------------------------------------------------------------------


@pytest.fixture
def nights(engine: Engine, settings: Settings) -> Nights:
    return Nights(engine, settings)


def evaluate(nights: Nights, held_out: object, model: str, errors: Errors, **made: int) -> uuid.UUID:
    """A finished manual run."""
    with transaction(nights.engine) as tx:
        set_id = register_set(tx.connection, held_out)  # type: ignore[arg-type]
        by = Provenance(nights.model(model), "Transcribe.", {"beams": 1}, "cpu float32", nights.code_version)
        run_id = open_manual_run(tx.connection, set_id, by, again=True)
    nights.generate(run_id, held_out, errors, model=model, **made)  # type: ignore[arg-type]
    return run_id


def decided(nights: Nights, candidate: str = "candidate", deployed: str | None = "phi4-gl") -> Promotion:
    def sha256(name: str) -> str:
        with nights.engine.connect() as connection:
            return str(
                connection.exec_driver_sql(
                    "SELECT weights_sha256 FROM models WHERE id = %s", (nights.model(name),)
                ).scalar_one()
            )

    with nights.engine.connect() as connection:
        return decide(
            connection,
            candidate_sha256=sha256(candidate),
            deployed_sha256=sha256(deployed) if deployed else None,
        )


def test_every_fixed_set_must_pass(nights: Nights) -> None:
    one, other = made_set("one"), made_set("other", seed=2)
    runs = nights.begin(one, other)
    for held_out in (one, other):
        nights.generate(runs[held_out.name], held_out, steady(0.1))
    nights.settle()
    with nights.engine.connect() as connection:
        assert [row.set_name for row in list_baselines(connection)] == ["one", "other"]

    found = decided(nights)
    assert not found.is_allowed
    assert [(each.outcome, each.missing) for each in found.sets] == [
        (Outcome.NOT_MEASURED, ("candidate",))
    ] * 2

    evaluate(nights, one, "candidate", steady(0.1))
    better = evaluate(nights, other, "candidate", steady(0.05))
    found = decided(nights)
    assert found.is_allowed
    assert found.sets[1].candidate_run is not None
    assert found.sets[1].candidate_run.run_id == better
    assert found.sets[1].test is not None
    assert found.sets[1].test.difference < 0
    assert "no harm" in found.sets[0].sentence

    evaluate(nights, other, "candidate", steady(0.2))  # the newest run counts
    found = decided(nights)
    assert [each.outcome for each in found.sets] == [Outcome.HARMLESS, Outcome.HARMFUL]
    assert not found.is_allowed
    json.dumps(found.evidence, allow_nan=False)


def test_without_a_deployment_the_baselines_model_is_the_one_to_beat(nights: Nights) -> None:
    held_out = made_set()
    nights.night(held_out, steady(0.1))
    evaluate(nights, held_out, "candidate", steady(0.1))
    assert decided(nights, deployed=None).is_allowed


def test_without_any_fixed_set_nothing_is_shown(nights: Nights) -> None:
    nights.model("candidate")
    assert not decided(nights, deployed=None).is_allowed


def test_silence_is_no_way_to_avoid_errors(nights: Nights) -> None:
    held_out = made_set(n=480)
    nights.night(held_out, lambda utterance: 0.9 if utterance.key < "u0004" else 0.0)
    evaluate(nights, held_out, "candidate", steady(0.0), failed=4)
    test = decided(nights).sets[0].test
    assert test is not None
    assert test.n_utterances == 480
    assert test.candidate_wer == pytest.approx(4 * 7 / (480 * 7)), "each of their words counts as left out"

    evaluate(nights, held_out, "candidate", steady(0.0), failed=40)
    found = decided(nights).sets[0]
    assert found.outcome is Outcome.NOT_MEASURED
    assert "no text for 40 of 480 utterances" in found.sentence


def test_other_conditions_are_named(nights: Nights) -> None:
    held_out = made_set()
    nights.night(held_out, steady(0.1))
    nights.code_version = "2.0"
    evaluate(nights, held_out, "candidate", steady(0.1))
    assert "the runs differ in code 1.0 -> 2.0" in decided(nights).sets[0].sentence


def test_a_run_of_older_texts_does_not_count(nights: Nights) -> None:
    evaluate(nights, made_set(word=" antes"), "candidate", steady(0.0))
    nights.night(made_set(), steady(0.1))
    assert decided(nights).sets[0].missing == ("candidate",)
    with nights.engine.connect() as connection:
        assert find_newest_run(connection, decided(nights).sets[0].set_id, "nothing") is None


def test_only_the_newest_run_is_counted(nights: Nights) -> None:
    held_out = made_set(n=40)
    for _ in range(4):
        nights.night(held_out, steady(0.1))
    executed: list[tuple[str, Any]] = []
    with nights.engine.connect() as connection:
        set_id, sha256 = connection.execute(
            text(
                "SELECT r.set_id, m.weights_sha256 FROM evaluation_runs r JOIN models m ON m.id = r.model_id"
            )
        ).first() or (0, "")
        event.listen(connection, "before_cursor_execute", lambda *given: executed.append(given[2:4]))
        run = find_newest_run(connection, set_id, sha256)
        assert run is not None
        assert run.n_predicted == 40
        statement, values = executed[0]
        (plan,) = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values
        ).scalar_one()

    def counted(node: dict[str, Any]) -> int:
        own = node["Actual Loops"] if node["Node Type"] == "Aggregate" else 0
        return own + sum(counted(child) for child in node.get("Plans", []))

    assert counted(plan["Plan"]) == 1, "not once for each run that there ever was"
