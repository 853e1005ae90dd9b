"""A made-up history of 30 nights in a real database, for the report: three fixed sets, production, alerts.

What happened in it (night 30 is the newest):
- *Transcrispeech* (programmes): night 28 on, the programme "A debate" has far more errors: regressed.
- *FLEURS* (speakers): a new model on night 21 with new decode settings, which changes little; ok.
- *Entrevistas*: its baseline was replaced on night 16; night 30 was not finished: not measured.
- Nights 12 and 13 were missed.
- Production drifts from night 20 on, most of all in "Magazine"; nobody corrected on night 9.
- One measure without references stands out; an alert is open, one new, one was closed.

Verdicts are made with the real statistics from texts that are the references with seeded mistakes.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, text

from evaluation.chart import ChartState, Residual, step, student_z
from evaluation.chart_json import to_json
from evaluation.compare import compare_counts
from evaluation.counts import EditCounts, count_many_words, count_texts
from evaluation.normalizer import NORMALIZERS
from evaluation.score import score_counts
from evaluation.verdict import Judgement, Measured, judge, measured

DEMO_SPEECH = Path(__file__).parents[2] / "data" / "demo-speech"
N_NIGHTS = 30
LAST = dt.date(2026, 11, 22)
SAMPLE_RATE_HZ = 16_000
MISSED = (12, 13)
PROGRAMMES = (
    "Informativo", "A debate", "Magazine", "Deportes", "O tempo", "Crónica da tarde",
    "Entre nós", "Libros", "A revista", "Corazón", "Mar adentro", "Labranza",
)  # fmt: skip
KINDS = ("radio", "televisión", "radio", "televisión", "televisión", "radio") * 2
PROMPT = "Transcribe the audio clip into text."


@cache
def _normalized(name: str, text: str) -> str:
    return NORMALIZERS[name](text).strip()


def normalized(texts: Sequence[str], name: str = "basic") -> list[str]:
    """Texts as a normaliser leaves them; nights repeat most of theirs."""
    return [_normalized(name, text) for text in texts]


def night_of(number: int) -> dt.date:
    """The date of a night, 1 to 30."""
    return LAST - dt.timedelta(days=N_NIGHTS - number)


def due_at(night: dt.date) -> dt.datetime:
    """When a night is due."""
    return dt.datetime.combine(night, dt.time(1, 30), dt.UTC)


@dataclass
class MadeUtterance:
    key: str
    audio: str
    reference: str
    duration_samples: int
    speaker: str | None
    programme: str | None
    kind: str | None
    utterance_id: int = 0


@dataclass
class MadeSet:
    """One fixed set and what its model makes of it."""

    name: str
    utterances: list[MadeUtterance]
    rate: float
    set_id: int = 0
    baseline_id: int | None = None
    baseline_run: uuid.UUID | None = None
    baseline_counts: EditCounts | None = None
    state: ChartState = field(default_factory=ChartState)

    @property
    def references(self) -> list[str]:
        return normalized([one.reference for one in self.utterances])

    @property
    def clusters(self) -> list[str]:
        return [one.programme or one.speaker or one.key for one in self.utterances]


def mistaken(reference: str, rate: float, generator: np.random.Generator) -> str:
    """The text as a recogniser might write it: each word wrong with a chance of `rate`."""
    written: list[str] = []
    for word in reference.split():
        if generator.random() >= rate:
            written.append(word)
            continue
        fate = generator.random()
        if fate < 0.6:
            written.append(_misheard(word, generator))
        elif fate < 0.85:
            continue
        else:
            written += [word, ("de", "que", "a", "e")[int(generator.integers(4))]]
    return " ".join(written)


def _misheard(word: str, generator: np.random.Generator) -> str:
    for before, after in (("o", "u"), ("e", "i"), ("a", "as"), ("n", "m"), ("s", "x")):
        if before in word and generator.random() < 0.7:
            return word.replace(before, after, 1)
    return word[:-1] or "a"


def make_sets(n: int) -> list[MadeSet]:
    """Three sets of `n` utterances of the demo speech."""
    rows = [json.loads(line) for line in (DEMO_SPEECH / "texts.jsonl").read_text().splitlines()]
    sets = []
    for name, rate, by_programme in (
        ("Transcrispeech", 0.11, True),
        ("FLEURS", 0.075, False),
        ("Entrevistas", 0.09, True),
    ):
        utterances = []
        for index in range(n):
            row = rows[(index * 7 + len(sets)) % len(rows)]
            number = index % len(PROGRAMMES)
            utterances.append(
                MadeUtterance(
                    key=f"{name.lower()[:3]}-{index:04d}",
                    audio=f"{name}/{row['file']}",
                    reference=row["text"],
                    duration_samples=round(row["duration_s"] * SAMPLE_RATE_HZ),
                    speaker=f"voz {index % 17}",
                    programme=PROGRAMMES[number] if by_programme else None,
                    kind=KINDS[number] if by_programme else None,
                )
            )
        sets.append(MadeSet(name, utterances, rate))
    # what is said where nothing is said, and a long utterance
    sets[0].utterances[3].reference = ""
    return sets


def copy_audio(sets: Sequence[MadeSet], datasets: Path) -> None:
    """The audio files of the sets under `datasets`; of the programme "A debate" one is missing, the others no audio."""
    for one in sets:
        (datasets / one.name).mkdir(parents=True)
        for name in {utterance.audio.split("/")[1] for utterance in one.utterances}:
            shutil.copy(DEMO_SPEECH / name, datasets / one.name / name)
    spoilt = [utterance.audio for utterance in sets[0].utterances if utterance.programme == "A debate"]
    (datasets / spoilt[0]).unlink()
    for audio in set(spoilt[1:]) - {spoilt[0]}:
        (datasets / audio).write_bytes(b"not audio at all")


class History:
    """Writes the nights."""

    def __init__(self, connection: Connection, sets: Sequence[MadeSet]) -> None:
        self.connection = connection
        self.sets = sets
        self.models = [
            self._one(
                "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES (:n, :w, :d, "
                "'{}') RETURNING id",
                n=name, w=weights * 64, d=is_demo,
            )
            for name, weights, is_demo in (("phi4-galician-1", "a", False), ("phi4-galician-2", "b", False))
        ]  # fmt: skip
        self.drift_state = ChartState()
        self.reference_id: int | None = None

    def _one(self, sql: str, **values: Any) -> Any:
        return self.connection.scalar(text(sql), values)

    def _run(self, sql: str, **values: Any) -> None:
        self.connection.execute(text(sql), values)

    def register(self) -> None:
        for one in self.sets:
            one.set_id = self._one(
                "INSERT INTO held_out_sets (name, content_sha256, n_utterances, duration_samples) "
                "VALUES (:name, 'c0ffee', :n, :samples) RETURNING id",
                name=one.name, n=len(one.utterances), samples=sum(u.duration_samples for u in one.utterances),
            )  # fmt: skip
            for index, utterance in enumerate(one.utterances):
                utterance.utterance_id = self._one(
                    "INSERT INTO held_out_utterances (set_id, index, key, audio, audio_sha256, "
                    "duration_samples, "
                    "reference, speaker, programme, kind) VALUES (:set_id, :index, :key, :audio, 'ab', :samples, "
                    ":reference, :speaker, :programme, :kind) RETURNING id",
                    set_id=one.set_id, index=index, key=utterance.key, audio=utterance.audio,
                    samples=utterance.duration_samples, reference=utterance.reference, speaker=utterance.speaker,
                    programme=utterance.programme, kind=utterance.kind,
                )  # fmt: skip

    def nights(self) -> None:
        for number in range(1, N_NIGHTS + 1):
            night = night_of(number)
            state = "missed" if number in MISSED else "done"
            self._run(
                "INSERT INTO quality_nights (night, state, from_at, until_at, failure_reason) "
                "VALUES (:night, :state, :from_at, :until_at, :reason)",
                night=night, state=state, from_at=due_at(night - dt.timedelta(days=1)), until_at=due_at(night),
                reason="folder roto: no utterances.jsonl in it" if number == N_NIGHTS else None,
            )  # fmt: skip
            if state == "missed":
                continue
            for one in self.sets:
                self._set_night(one, number)
            self._drift_night(number)
            self._unreferenced_night(number)
        self._alerts()

    def _texts(self, one: MadeSet, number: int) -> list[str]:
        """What the model writes: the same every night, but for a few utterances."""
        texts = []
        for index, utterance in enumerate(one.utterances):
            rate = one.rate * (0.4 + 1.2 * ((index * 5) % 11) / 10)
            fixed = np.random.default_rng([index, len(one.name), int(number >= 21 and index % 9 == 0)])
            if one.name == "Transcrispeech" and number >= 28:
                rate = min(0.6, rate * (2.2 if utterance.programme == "A debate" else 1.5) + 0.02)
                fixed = np.random.default_rng([index, len(one.name), 3])
            again = np.random.default_rng([number, index, len(one.name), 9])
            generator = again if again.random() < 0.03 else fixed
            if not utterance.reference:
                texts.append("grazas por ver" if number >= 28 else "")
                continue
            texts.append(mistaken(utterance.reference, rate, generator))
        if one.name == "Transcrispeech" and number >= 28:
            texts[1] = "e entón " * 8
        return texts

    def _set_night(self, one: MadeSet, number: int) -> None:
        night = night_of(number)
        model = self.models[number >= 21]
        decode = {"max_new_tokens": 256, "repetition_guard": number >= 21}
        is_lost = one.name == "Entrevistas" and number == N_NIGHTS
        run_id = self._one(
            "INSERT INTO evaluation_runs (set_id, purpose, night, model_id, prompt, decode_settings, device, "
            "code_version, started_at, finished_at, abandoned_reason) VALUES (:set_id, 'nightly', :night, :model, "
            ":prompt, CAST(:decode AS jsonb), 'cuda bfloat16', '0.1.0+made', :at, :finished, :reason) RETURNING id",
            set_id=one.set_id, night=night, model=model, prompt=PROMPT, decode=json.dumps(decode),
            at=due_at(night),
            finished=None if is_lost else due_at(night) + dt.timedelta(hours=1),
            reason="its run was not finished within 18 hours" if is_lost else None,
        )  # fmt: skip
        if is_lost:
            one.state = step(one.state, None)
            judgement = judge(one.name, one.state, None, baseline_rate=0.09)
            reason = {"reason": "its run was not finished within 18 hours"}
            self._verdict(night, "regression", one.name, judgement, None, model=model, run_id=run_id,
                          baseline_id=one.baseline_id, evidence=reason)  # fmt: skip
            return
        texts = self._texts(one, number)
        hypotheses = normalized(texts)
        counts = count_many_words(one.references, hypotheses)
        self._scores(one, run_id, texts, number)
        replaced = one.name == "Entrevistas" and number == 16
        if one.baseline_counts is None or replaced:
            if one.baseline_id is not None:
                self._run(
                    "UPDATE baselines SET retired_at = now(), retired_reason = 'by hand' WHERE id = :id",
                    id=one.baseline_id,
                )
            one.baseline_id = self._one(
                "INSERT INTO baselines (set_id, run_id, accepted_by, reason) "
                "VALUES (:set_id, :run_id, :by, :reason) RETURNING id",
                set_id=one.set_id, run_id=run_id, by="xoana" if replaced else "system",
                reason="references were proof-read" if replaced else "first run of this set",
            )  # fmt: skip
            one.baseline_run, one.baseline_counts, one.state = run_id, counts, ChartState()
            self._predictions(one, run_id, texts, number)
        elif number == N_NIGHTS:
            self._predictions(one, run_id, texts, number)
        difference = compare_counts(one.baseline_counts, counts, clusters=one.clusters)
        one.state = step(one.state, difference.residual)
        judgement = judge(one.name, one.state, measured(difference))
        evidence: dict[str, Any] = {}
        if one.name == "Transcrispeech" and judgement.verdict == "regressed":
            evidence = {
                "standouts": [
                    {"kind": "programme", "name": "A debate", "wer": 0.36, "expected": 0.12, "difference": 0.24,
                     "adjusted_p": 0.0004}
                ],
                "changes": {
                    "model": {"before": "phi4-galician-1 (aaaaaaaaaaaa)", "now": "phi4-galician-2 (bbbbbbbbbbbb)"},
                    "decode_settings": {"before": {"repetition_guard": False}, "now": {"repetition_guard": True}},
                },
            }  # fmt: skip
        score = score_counts(count_texts(one.references, hypotheses), clusters=one.clusters)
        self._verdict(
            night, "regression", one.name, judgement, score.wer, model=model, run_id=run_id,
            baseline_id=one.baseline_id, n_utterances=len(texts), n_words=counts.total.reference_length,
            evidence=evidence,
        )  # fmt: skip

    def _predictions(self, one: MadeSet, run_id: uuid.UUID, texts: Sequence[str], number: int) -> None:
        for index, (utterance, written) in enumerate(zip(one.utterances, texts, strict=True)):
            n_errors = sum(a != b for a, b in zip(utterance.reference.split(), written.split(), strict=False))
            self._run(
                "INSERT INTO predictions (run_id, utterance_id, text, mean_logprob, flags) "
                "VALUES (:run_id, :utterance_id, :text, :logprob, :flags)",
                run_id=run_id, utterance_id=utterance.utterance_id, text=written,
                logprob=-0.02 - 0.06 * min(n_errors, 12) - 0.01 * (index % 5),
                flags=["loop", "low_confidence"] if "entón e entón" in written else [],
            )  # fmt: skip

    def _scores(self, one: MadeSet, run_id: uuid.UUID, texts: Sequence[str], number: int) -> None:
        for name in NORMALIZERS if number == N_NIGHTS else ["basic"]:
            refs = normalized([utterance.reference for utterance in one.utterances], name)
            counts = count_texts(refs, normalized(texts, name))
            score = score_counts(counts, clusters=one.clusters)
            words, characters = score.wer.counts, score.cer.counts
            self._run(
                "INSERT INTO evaluation_scores VALUES (:run_id, :name, :n, 0, 6, :wh, :ws, :wd, "
                ":wi, :ch, :cs, :cd, :ci, "
                ":empty, :wer, :wer_low, :wer_high, :cer, :cer_low, :cer_high, now())",
                run_id=run_id, name=name, n=len(texts), wh=words.hits, ws=words.substitutions, wd=words.deletions,
                wi=words.insertions, ch=characters.hits, cs=characters.substitutions, cd=characters.deletions,
                ci=characters.insertions, empty=score.insertions_on_empty, wer=score.wer.value,
                wer_low=score.wer.low,
                wer_high=score.wer.high, cer=score.cer.value, cer_low=score.cer.low, cer_high=score.cer.high,
            )  # fmt: skip

    def _verdict(
        self, night: dt.date, question: str, subject: str, judgement: Judgement, wer: Any, **values: Any
    ) -> None:
        tonight = judgement.tonight
        row = {
            "night": night, "question": question, "subject": subject, "verdict": judgement.verdict.value,
            "cause": judgement.cause.value, "sentence": judgement.sentence, "model": None, "run_id": None,
            "baseline_id": None, "reference_id": None, "wer": wer.value if wer else None,
            "low": wer.low if wer else None, "high": wer.high if wer else None,
            "baseline_wer": tonight.baseline_rate if tonight else None,
            "d": tonight.difference if tonight else None, "dl": tonight.low if tonight else None,
            "dh": tonight.high if tonight else None, "p": tonight.p_value if tonight else None,
            "effect": judgement.effect, "nights": judgement.nights, "margin": judgement.margin, "n_utterances": 0,
            "n_words": 0,
        } | values  # fmt: skip
        row["evidence"] = json.dumps(values.get("evidence", {}))
        row["chart"] = json.dumps(to_json(judgement.state))
        self._run(
            "INSERT INTO quality_verdicts (night, question, subject, verdict, cause, sentence, "
            "model_id, run_id, "
            "baseline_id, reference_id, wer, wer_low, wer_high, baseline_wer, difference, difference_low, "
            "difference_high, p_value, effect, nights, margin, n_utterances, n_words, chart, evidence) VALUES "
            "(:night, :question, :subject, :verdict, :cause, :sentence, :model, :run_id, "
            ":baseline_id, :reference_id, "
            ":wer, :low, :high, :baseline_wer, :d, :dl, :dh, :p, :effect, :nights, :margin, :n_utterances, :n_words, "
            "CAST(:chart AS jsonb), CAST(:evidence AS jsonb))",
            **row,
        )

    def _drift_night(self, number: int) -> None:
        night = night_of(number)
        model = self.models[0]
        if self.reference_id is None:
            self.reference_id = self._one(
                "INSERT INTO drift_references (model_id, from_at, until_at, accepted_by, reason) VALUES "
                "(:model, :from_at, :until_at, 'system', 'the first 2,800 corrected segments') RETURNING id",
                model=model, from_at=due_at(night) - dt.timedelta(days=28), until_at=due_at(night),
            )  # fmt: skip
        if number == 9:
            self.drift_state = step(self.drift_state, None)
            self._verdict(night, "drift", "production", judge("production", self.drift_state, None), None,
                          model=model, reference_id=self.reference_id,
                          evidence={"reason": "no segment was corrected"})  # fmt: skip
            return
        generator = np.random.default_rng([number, 4])
        expected = 0.102 + 0.004 * float(generator.normal())
        error, lasting = 0.012, 0.004
        value = error * float(generator.normal()) * 0.8 + (0.026 if number >= 20 else 0.0)
        residual = Residual(value, error, lasting, student_z(value, error, 60))
        self.drift_state = step(self.drift_state, residual)
        tonight = Measured(value, value - 1.96 * error, value + 1.96 * error, 0.03, expected, False)
        judgement = judge("production", self.drift_state, tonight)
        standouts = [
            {"kind": "programme", "name": "Magazine", "broadcaster": "canle-local", "wer": 0.19, "expected": 0.1,
             "difference": 0.09, "adjusted_p": 0.002},
            {"kind": "programme_kind", "name": "radio", "broadcaster": "canle-local", "wer": 0.15, "expected": 0.1,
             "difference": 0.05, "adjusted_p": 0.01},
        ]  # fmt: skip
        rate = type(
            "Rate",
            (),
            {"value": expected + value, "low": expected + value - 0.02, "high": expected + value + 0.02},
        )
        self._verdict(
            night, "drift", "production", judgement, rate, model=model, reference_id=self.reference_id,
            n_utterances=100, n_words=2400 + number,
            evidence={"standouts": standouts} if judgement.verdict != "ok" else {},
        )  # fmt: skip

    def _unreferenced_night(self, number: int) -> None:
        night = night_of(number)
        is_found = number == N_NIGHTS
        self._run(
            "INSERT INTO quality_verdicts (night, question, subject, verdict, cause, sentence, "
            "model_id, nights, "
            "n_utterances, n_words, evidence) VALUES (:night, 'unreferenced', 'production', "
            ":verdict, :cause, 's', :model, "
            ":nights, 0, 0, '{}')",
            night=night, verdict="watch" if is_found else "ok", cause="one_night" if is_found else "nothing",
            model=self.models[0], nights=int(is_found),
        )  # fmt: skip
        if not is_found:
            return
        broadcaster = self._one("SELECT id FROM broadcasters WHERE name = 'canle-local'")
        for measure, value, p in (
            ("words_per_s", 2.61, 0.4),
            ("loop_rate", 0.081, 0.00002),
            ("mean_logprob", -0.11, 0.7),
        ):
            self._run(
                "INSERT INTO quality_measures (night, model_id, unit_kind, broadcaster_id, unit, "
                "measure, value, "
                "standard_error, n_segments, n_recordings, centre, p_value, adjusted_p, n_nights) VALUES "
                "(:night, :model, 'programme', :b, 'Magazine', :measure, :value, 0.01, 412, 9, "
                ":centre, :p, :adjusted, 25)",
                night=night, model=self.models[0], b=broadcaster, measure=measure, value=value,
                centre=0.012 if measure == "loop_rate" else value, p=p, adjusted=0.004 if p < 0.01 else None,
            )  # fmt: skip

    def _alerts(self) -> None:
        for kind, subject, opened, quiet, closed in (
            ("regression", "Transcrispeech", 28, 0, None),
            ("drift", "production", 24, 0, None),
            ("not_measured", "Entrevistas", 30, 0, None),
            ("regression", "FLEURS", 22, 2, "two nights in a row as good as the baseline"),
        ):
            self._run(
                "INSERT INTO alerts (kind, subject, opened_night, last_night, n_quiet_nights, "
                "sentence, evidence, "
                "closed_at, closed_by, close_reason) VALUES (:kind, :subject, :opened, :last, :quiet, 's', '{}', "
                ":closed_at, :closed_by, :reason)",
                kind=kind, subject=subject, opened=night_of(opened), last=LAST, quiet=quiet, reason=closed,
                closed_at=due_at(LAST) if closed else None, closed_by="system" if closed else None,
            )  # fmt: skip

    def production(self) -> None:
        """Two broadcasters with finished recordings, corrections over the last weeks, and a little that waits."""
        rows = [json.loads(line) for line in (DEMO_SPEECH / "texts.jsonl").read_text().splitlines()]
        for broadcaster, n_recordings in (("canle-local", 24), ("radio-costa", 8)):
            owner = self._one("INSERT INTO broadcasters (name) VALUES (:name) RETURNING id", name=broadcaster)
            batch = self._one(
                "INSERT INTO batches (broadcaster_id, name, request_sha256) VALUES (:o, 'arquivo', "
                "'') RETURNING id",
                o=owner,
            )
            for number in range(n_recordings):
                at = due_at(LAST) - dt.timedelta(days=number % 24, hours=1 + number % 20)
                is_waiting = number == n_recordings - 1
                duration = SAMPLE_RATE_HZ * (1800 + 60 * number)
                recording = self._one(
                    "INSERT INTO recordings (broadcaster_id, batch_id, name, programme, "
                    "programme_kind, priority, state, "
                    "size_bytes, duration_samples, finished_at) VALUES (:o, :b, :name, :programme, "
                    ":kind, 1, :state, 9, "
                    ":duration, :at) RETURNING id",
                    o=owner, b=batch, name=f"{number}.mp3", programme=PROGRAMMES[number % 12],
                    kind=KINDS[number % 12],
                    state="transcribing" if is_waiting else "completed", duration=duration,
                    at=None if is_waiting else at,
                )  # fmt: skip
                if is_waiting:
                    continue
                self._transcript(
                    owner, recording, duration, at, rows[number * 3 % 100 : number * 3 % 100 + 6]
                )

    def _transcript(
        self, owner: int, recording: uuid.UUID, duration: int, at: dt.datetime, rows: list[Any]
    ) -> None:
        transcript = self._one(
            "INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, "
            "splitter_version, code_version, "
            "duration_samples, transcribed_samples, no_speech_samples, failed_samples, "
            "finished_at) VALUES (:o, :r, true, "
            ":m, 'energy-1', '0.1.0', :d, :t, :n, :f, :at) RETURNING id",
            o=owner, r=recording, m=self.models[0], d=duration,
            t=duration - duration // 5 - 16_000, n=duration // 5,
            f=16_000, at=at,
        )  # fmt: skip
        for index, row in enumerate(rows):
            written = mistaken(row["text"], 0.12, np.random.default_rng([index, owner]))
            segment = self._one(
                "INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, "
                "start_sample, end_sample, "
                "state, priority, text) VALUES (:o, :r, :t, :i, :start, :end, 'done', 1, :text) RETURNING id",
                o=owner, r=recording, t=transcript, i=index, start=index * 160_000,
                end=index * 160_000 + 150_000, text=written,
            )  # fmt: skip
            self._run(
                "INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, "
                "is_current, corrected_by, "
                "created_at) VALUES (:o, :r, :s, :text, :drawn, true, 'xoana', :at)",
                o=owner, r=recording, s=segment, text=row["text"], drawn=index % 2 == 0,
                at=at - dt.timedelta(minutes=5),
            )  # fmt: skip


def make_history(engine: Engine, datasets: Path | None = None, n_utterances: int = 96) -> list[MadeSet]:
    """Write the whole history; the sets' audio goes to `datasets`."""
    sets = make_sets(n_utterances)
    if datasets is not None:
        copy_audio(sets, datasets)
    with engine.begin() as connection:
        history = History(connection, sets)
        history.register()
        history.production()
        history.nights()
    return sets
