"""Nights in a real database with predictions that nobody generated: what a model got wrong is said by the test."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine, text

from db.connect import transaction
from db.evaluation_runs import (
    NewHeldOutSet,
    NewPrediction,
    NewUtterance,
    Provenance,
    bind_run,
    create_nightly_run,
    find_missing,
    finish_run,
    register_set,
    store_predictions,
)
from db.nights import Schedule, begin_if_due, mark_prepared
from db.settings import Settings
from db.verdicts import VerdictRow, read_verdicts
from evaluation.night import settle

MADRID = Schedule.of("02:30", "Europe/Madrid")
FIRST = dt.date(2026, 11, 2)
WORDS = (
    "a",
    "casa",
    "do",
    "mar",
    "ten",
    "unha",
    "porta",
    "azul",
    "que",
    "mira",
    "cara",
    "ao",
    "norte",
    "e",
    "non",
)
PROGRAMMES = ("Diario", "Tempo", "Deportes", "Cultura")

Errors = Callable[[NewUtterance], float]
"""Share of words that the model gets wrong in an utterance."""


def made_set(name: str = "fixed", n: int = 480, *, seed: int = 1, word: str = "") -> NewHeldOutSet:
    """A set of `n` utterances by 80 speakers in 20 programmes of 4 kinds; `word` makes other references of it."""
    dice = random.Random(seed)
    utterances = []
    for index in range(n):
        speaker = index % 80
        reference = " ".join(dice.choices(WORDS, k=7)) + word
        utterances.append(
            NewUtterance(
                key=f"u{index:04d}",
                audio=f"{name}/u{index:04d}.wav",
                audio_sha256=f"{index:064x}",
                duration_samples=64_000,
                reference=reference,
                speaker=f"speaker-{speaker:02d}",
                programme=None if name == "speakers" else f"{PROGRAMMES[speaker % 4]} {speaker // 16}",
                kind=PROGRAMMES[speaker % 4],
            )
        )
    return NewHeldOutSet(name, f"{name}{seed}{word}", tuple(utterances))


@dataclass
class Nights:
    """Nights one after the other, each begun and settled as the worker does it."""

    engine: Engine
    settings: Settings
    next_night: dt.date = FIRST
    code_version: str = "1.0"
    models: dict[str, int] = field(default_factory=dict)

    def model(self, name: str) -> int:
        if name not in self.models:
            with self.engine.begin() as connection:
                self.models[name] = connection.execute(
                    text(
                        "INSERT INTO models (name, weights_sha256, is_demo, config) "
                        "VALUES (:name, :sha, false, '{}') RETURNING id"
                    ),
                    {"name": name, "sha": f"{len(self.models) + 10:x}" * 64},
                ).scalar_one()
        return self.models[name]

    def begin(self, *sets: NewHeldOutSet, day: dt.date | None = None) -> dict[str, uuid.UUID]:
        """Begin the next night (or that of `day`) with a run of each set."""
        self.next_night = day or self.next_night
        with transaction(self.engine) as tx:
            begun = begin_if_due(tx.connection, MADRID, now=MADRID.due_at(self.next_night))
            assert begun is not None
            runs = {
                each.name: create_nightly_run(tx.connection, begun.night, register_set(tx.connection, each))
                for each in sets
            }
            mark_prepared(tx.connection, begun.night)
        self.next_night = begun.night + dt.timedelta(days=1)
        return runs

    def generate(
        self,
        run_id: uuid.UUID,
        held_out: NewHeldOutSet,
        errors: Errors,
        *,
        model: str = "phi4-gl",
        seed: int = 0,
        failed: int = 0,
    ) -> None:
        """Store what a model made of a set: `failed` utterances without a text."""
        made_by = Provenance(self.model(model), "Transcribe.", {"beams": 1}, "cpu float32", self.code_version)
        by_key = {each.key: each for each in held_out.utterances}
        with transaction(self.engine) as tx:
            assert bind_run(tx.connection, run_id, made_by) == "ours"
            predictions = []
            for index, missing in enumerate(find_missing(tx.connection, run_id)):
                utterance = by_key[missing.key]
                if index < failed:
                    predictions.append(NewPrediction(missing.utterance_id, None, failure_reason="broken"))
                    continue
                # the same utterance errs in the same words each night, and worse rates err in more of them
                dice = random.Random(f"{seed} {utterance.key}")
                said = [
                    "xxx" if dice.random() < errors(utterance) else word
                    for word in utterance.reference.split()
                ]
                predictions.append(NewPrediction(missing.utterance_id, " ".join(said), mean_logprob=-0.1))
            store_predictions(tx.connection, run_id, made_by, predictions)
            assert finish_run(tx.connection, run_id)

    def settle(self, night: dt.date | None = None) -> dict[tuple[str, str], VerdictRow]:
        """Settle the newest night; its verdicts by question and subject."""
        night = night or self.next_night - dt.timedelta(days=1)
        with transaction(self.engine) as tx:
            settle(tx.connection, night, self.settings)
        with self.engine.connect() as connection:
            return {(row.question, row.subject): row for row in read_verdicts(connection, night)}

    def night(self, held_out: NewHeldOutSet, errors: Errors, **made: object) -> VerdictRow:
        """A whole night of one set; its verdict about regression."""
        runs = self.begin(held_out)
        self.generate(runs[held_out.name], held_out, errors, **made)  # type: ignore[arg-type]
        return self.settle()["regression", held_out.name]


def steady(rate: float = 0.1) -> Errors:
    """The same everywhere."""
    return lambda utterance: rate
