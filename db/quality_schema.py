"""The tables of evaluation, corrections and nightly quality. `docs/glossary.md` says what each word means.

Rates are fractions (0.0213 is 2.13 %); a rate that is not defined (no words, one cluster) is NULL, never NaN.
Positions in audio are samples at 16 kHz. Texts are kept as the model wrote them: every score can be made again.
"""

from __future__ import annotations

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, REAL
from sqlalchemy.orm import Mapped, mapped_column

from db.schema import Base, now_by_default, one_of, uuid_key


class RunPurpose(StrEnum):
    """Why an evaluation run was made."""

    NIGHTLY = "nightly"
    MANUAL = "manual"
    """By `fonoteca evaluate` or for a promotion."""


class NightState(StrEnum):
    """Where one night stands."""

    MEASURING = "measuring"
    """Its runs are being generated."""
    DONE = "done"
    """Scored, judged and reported."""
    MISSED = "missed"
    """Nobody was there to begin it; a later night took its production in."""


class Question(StrEnum):
    """What a verdict answers."""

    REGRESSION = "regression"
    """Has the system become worse on a fixed set?"""
    DRIFT = "drift"
    """Are there more errors in new material than in the reference window?"""
    UNREFERENCED = "unreferenced"
    """Do measures that need no references differ from their own history?"""


class AlertKind(StrEnum):
    """What an alert is about."""

    REGRESSION = "regression"
    DRIFT = "drift"
    NOT_MEASURED = "not_measured"
    """A question that should be answered every night was not, twice in a row."""


class Channel(StrEnum):
    """How a message leaves the house."""

    WEBHOOK = "webhook"
    EMAIL = "email"


class MessageKind(StrEnum):
    """What a message tells."""

    ALERT_OPENED = "alert_opened"
    ALERT_CLOSED = "alert_closed"
    REPORT = "report"


def rate() -> Mapped[float | None]:
    return mapped_column(Double)


class HeldOutSet(Base):
    """Audio with reference text, never trained on. Other texts or audio make another row."""

    __tablename__ = "held_out_sets"
    __table_args__ = (UniqueConstraint("name", "content_sha256"),)

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str]
    content_sha256: Mapped[str]
    """Over keys, references, audio hashes, speakers, programmes and kinds of all utterances, in order."""
    n_utterances: Mapped[int]
    duration_samples: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime] = now_by_default()


class HeldOutUtterance(Base):
    """One clip of a held-out set with what is said in it."""

    __tablename__ = "held_out_utterances"
    __table_args__ = (UniqueConstraint("set_id", "index"), UniqueConstraint("set_id", "key"))

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("held_out_sets.id"))
    index: Mapped[int]
    key: Mapped[str]
    """Name of the utterance inside its set."""
    audio: Mapped[str]
    """Where its audio lies, relative to FONOTECA_DATASETS; `file#row` inside a parquet file."""
    audio_sha256: Mapped[str]
    duration_samples: Mapped[int] = mapped_column(BigInteger)
    reference: Mapped[str]
    speaker: Mapped[str | None]
    programme: Mapped[str | None]
    kind: Mapped[str | None]
    """Kind of programme: radio, television, interview ..."""


class EvaluationRun(Base):
    """One model on one held-out set. Resumed from its predictions when interrupted."""

    __tablename__ = "evaluation_runs"
    __table_args__ = (
        one_of("purpose", RunPurpose),
        CheckConstraint("(purpose = 'nightly') = (night IS NOT NULL)", name="nightly_has_night"),
        CheckConstraint("finished_at IS NULL OR model_id IS NOT NULL", name="finished_has_model"),
        UniqueConstraint("night", "set_id"),
        Index("ix_evaluation_runs_set_id_model_id", "set_id", "model_id"),
        Index("ix_evaluation_runs_open", "created_at", postgresql_where=sql("finished_at IS NULL")),
    )

    id: Mapped[uuid.UUID] = uuid_key()
    set_id: Mapped[int] = mapped_column(ForeignKey("held_out_sets.id"))
    purpose: Mapped[str]
    night: Mapped[dt.date | None] = mapped_column(ForeignKey("quality_nights.night"))
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    """Bound by the first worker that takes the run: all its predictions come from one model."""
    prompt: Mapped[str | None]
    decode_settings: Mapped[dict[str, Any] | None]
    device: Mapped[str | None]
    """Kind of device and type of the weights, e.g. `cuda bfloat16`."""
    code_version: Mapped[str | None]
    created_at: Mapped[dt.datetime] = now_by_default()
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]
    abandoned_reason: Mapped[str | None]
    """Why it will never be finished, e.g. its set's files are gone."""


class Prediction(Base):
    """What a model wrote for one utterance, raw."""

    __tablename__ = "predictions"
    __table_args__ = (
        CheckConstraint("(text IS NULL) = (failure_reason IS NOT NULL)", name="text_or_reason"),
    )

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("evaluation_runs.id"), primary_key=True)
    utterance_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("held_out_utterances.id"), primary_key=True
    )
    text: Mapped[str | None]
    token_ids: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    token_logprobs: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    mean_logprob: Mapped[float | None] = mapped_column(REAL)
    flags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql("'{}'"))
    failure_reason: Mapped[str | None]
    created_at: Mapped[dt.datetime] = now_by_default()


class EvaluationScore(Base):
    """Error counts and rates of one run under one normaliser."""

    __tablename__ = "evaluation_scores"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("evaluation_runs.id"), primary_key=True)
    normalizer: Mapped[str] = mapped_column(primary_key=True)
    n_utterances: Mapped[int]
    n_failed: Mapped[int]
    """Utterances without a prediction that can be scored: left out of the rates."""
    n_clusters: Mapped[int]
    word_hits: Mapped[int]
    word_substitutions: Mapped[int]
    word_deletions: Mapped[int]
    word_insertions: Mapped[int]
    character_hits: Mapped[int]
    character_substitutions: Mapped[int]
    character_deletions: Mapped[int]
    character_insertions: Mapped[int]
    insertions_on_empty: Mapped[int]
    wer: Mapped[float | None] = rate()
    wer_low: Mapped[float | None] = rate()
    wer_high: Mapped[float | None] = rate()
    cer: Mapped[float | None] = rate()
    cer_low: Mapped[float | None] = rate()
    cer_high: Mapped[float | None] = rate()
    created_at: Mapped[dt.datetime] = now_by_default()


class Baseline(Base):
    """The accepted run that nights of a fixed set are paired with. One is in force per set."""

    __tablename__ = "baselines"
    __table_args__ = (
        Index("uq_baselines_in_force", "set_id", unique=True, postgresql_where=sql("retired_at IS NULL")),
        CheckConstraint("(retired_at IS NULL) = (retired_reason IS NULL)", name="retirement_has_reason"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("held_out_sets.id"))
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("evaluation_runs.id"))
    accepted_at: Mapped[dt.datetime] = now_by_default()
    accepted_by: Mapped[str]
    reason: Mapped[str]
    retired_at: Mapped[dt.datetime | None]
    retired_reason: Mapped[str | None]


class DriftReference(Base):
    """The window of corrected segments that newer ones are compared with. One is in force per model."""

    __tablename__ = "drift_references"
    __table_args__ = (
        Index(
            "uq_drift_references_in_force",
            "model_id",
            unique=True,
            postgresql_where=sql("retired_at IS NULL"),
        ),
        CheckConstraint("until_at > from_at", name="window_positive"),
        CheckConstraint("(retired_at IS NULL) = (retired_reason IS NULL)", name="retirement_has_reason"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    from_at: Mapped[dt.datetime]
    """Corrections made from here on ..."""
    until_at: Mapped[dt.datetime]
    """... and before here belong to it."""
    accepted_at: Mapped[dt.datetime] = now_by_default()
    accepted_by: Mapped[str]
    reason: Mapped[str]
    retired_at: Mapped[dt.datetime | None]
    retired_reason: Mapped[str | None]


class Correction(Base):
    """What a person says is said in a segment. The newest of a segment is current; older ones stay."""

    __tablename__ = "corrections"
    __table_args__ = (
        Index("uq_corrections_current", "segment_id", unique=True, postgresql_where=sql("is_current")),
        Index("ix_corrections_created_at", "created_at"),
        Index("ix_corrections_broadcaster_id_id", "broadcaster_id", "id"),
        Index("ix_corrections_recording_id", "recording_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    recording_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recordings.id"))
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"))
    text: Mapped[str]
    """The reference; equal to the segment's text where it was right, empty where nothing is said."""
    is_drawn: Mapped[bool]
    """The segment was drawn for correction, not chosen by the person: chosen ones hold more errors."""
    is_current: Mapped[bool]
    corrected_by: Mapped[str]
    created_at: Mapped[dt.datetime] = now_by_default()


class CorrectionDraw(Base):
    """A segment drawn for correction."""

    __tablename__ = "correction_draws"
    __table_args__ = (Index("ix_correction_draws_broadcaster_id_drawn_at", "broadcaster_id", "drawn_at"),)

    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"), primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    stratum: Mapped[str]
    """Kind of programme, or the programme itself where its kind is not known."""
    drawn_at: Mapped[dt.datetime] = now_by_default()


class QualityNight(Base):
    """One night of measuring: begun once, settled once."""

    __tablename__ = "quality_nights"
    __table_args__ = (
        one_of("state", NightState),
        CheckConstraint("until_at > from_at", name="window_positive"),
    )

    night: Mapped[dt.date] = mapped_column(primary_key=True)
    """Local date of the morning it ends in."""
    state: Mapped[str] = mapped_column(server_default=NightState.MEASURING.value)
    from_at: Mapped[dt.datetime]
    """Production and corrections from here on ..."""
    until_at: Mapped[dt.datetime]
    """... and before here are this night's. It is also when the night was due."""
    begun_at: Mapped[dt.datetime] = now_by_default()
    prepared_at: Mapped[dt.datetime | None]
    """When its held-out sets were read and their runs made."""
    finished_at: Mapped[dt.datetime | None]
    failure_reason: Mapped[str | None]
    """What kept a part of it from being measured, a line for each part."""


class QualityVerdict(Base):
    """One night's answer to one question about one subject, with its evidence."""

    __tablename__ = "quality_verdicts"
    __table_args__ = (
        one_of("question", Question),
        CheckConstraint("verdict IN ('ok', 'watch', 'regressed', 'improved')", name="verdict_known"),
        UniqueConstraint("night", "question", "subject"),
        Index("ix_quality_verdicts_question_subject_night", "question", "subject", "night"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    night: Mapped[dt.date] = mapped_column(ForeignKey("quality_nights.night"))
    question: Mapped[str]
    subject: Mapped[str]
    """Name of the held-out set, or `production`."""
    verdict: Mapped[str]
    cause: Mapped[str]
    """`evaluation.verdict.Cause`."""
    sentence: Mapped[str]
    """For a person, in English."""
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("evaluation_runs.id"))
    baseline_id: Mapped[int | None] = mapped_column(ForeignKey("baselines.id"))
    reference_id: Mapped[int | None] = mapped_column(ForeignKey("drift_references.id"))
    wer: Mapped[float | None] = rate()
    """Tonight's, over all words."""
    wer_low: Mapped[float | None] = rate()
    wer_high: Mapped[float | None] = rate()
    baseline_wer: Mapped[float | None] = rate()
    """The baseline's, or what the reference window lets expect."""
    difference: Mapped[float | None] = rate()
    difference_low: Mapped[float | None] = rate()
    difference_high: Mapped[float | None] = rate()
    p_value: Mapped[float | None] = rate()
    effect: Mapped[float | None] = rate()
    """The change that the verdict speaks of."""
    nights: Mapped[int]
    """Measured nights that the change has lasted; 0 without one."""
    margin: Mapped[float | None] = rate()
    """The smallest change that matters."""
    n_utterances: Mapped[int]
    n_words: Mapped[int]
    chart: Mapped[dict[str, Any] | None]
    """`evaluation.chart.ChartState` after this night."""
    evidence: Mapped[dict[str, Any]]
    """Which programmes, strata or measures the verdict rests on."""


class QualityMeasure(Base):
    """One measure without references, of one unit in one night, and how it compares with its history."""

    __tablename__ = "quality_measures"
    __table_args__ = (
        CheckConstraint("unit_kind IN ('broadcaster', 'programme', 'decade')", name="unit_kind_known"),
        UniqueConstraint(
            "night",
            "model_id",
            "unit_kind",
            "broadcaster_id",
            "unit",
            "measure",
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_quality_measures_model_id_night", "model_id", "night"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    night: Mapped[dt.date] = mapped_column(ForeignKey("quality_nights.night"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    unit_kind: Mapped[str]
    broadcaster_id: Mapped[int | None] = mapped_column(ForeignKey("broadcasters.id"))
    """Empty for a decade, which is of all broadcasters."""
    unit: Mapped[str]
    measure: Mapped[str]
    """mean_logprob, words_per_s, loop_rate, empty_rate or speech_share."""
    value: Mapped[float] = mapped_column(Double)
    standard_error: Mapped[float | None] = rate()
    n_segments: Mapped[int]
    n_recordings: Mapped[int]
    centre: Mapped[float | None] = rate()
    """Median of earlier nights; empty while there are too few."""
    p_value: Mapped[float | None] = rate()
    adjusted_p: Mapped[float | None] = rate()
    """After correction for all comparisons of the night; only where it is a finding."""
    n_nights: Mapped[int] = mapped_column(server_default="0")
    """Earlier nights it was compared with."""


class QualityReport(Base):
    """The report of one night: everything that its pages show."""

    __tablename__ = "quality_reports"

    night: Mapped[dt.date] = mapped_column(ForeignKey("quality_nights.night"), primary_key=True)
    document: Mapped[dict[str, Any]]
    storage_prefix: Mapped[str]
    """Where its pages lie in the object store."""
    created_at: Mapped[dt.datetime] = now_by_default()


class Alert(Base):
    """Something a person must look at: opened once, followed every night, closed with a reason."""

    __tablename__ = "alerts"
    __table_args__ = (
        one_of("kind", AlertKind),
        Index("uq_alerts_open", "kind", "subject", unique=True, postgresql_where=sql("closed_at IS NULL")),
        CheckConstraint("(closed_at IS NULL) = (close_reason IS NULL)", name="closing_has_reason"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    opened_night: Mapped[dt.date] = mapped_column(ForeignKey("quality_nights.night"))
    opened_at: Mapped[dt.datetime] = now_by_default()
    last_night: Mapped[dt.date] = mapped_column(ForeignKey("quality_nights.night"))
    """Newest night in which it was looked at again."""
    n_quiet_nights: Mapped[int] = mapped_column(server_default="0")
    """Nights in a row, up to the newest, whose verdict was ok or improved."""
    sentence: Mapped[str]
    """As of the newest night."""
    evidence: Mapped[dict[str, Any]]
    closed_at: Mapped[dt.datetime | None]
    closed_by: Mapped[str | None]
    close_reason: Mapped[str | None]


class Message(Base):
    """What is to leave the house, written in the transaction in which it happened; tried until it is delivered."""

    __tablename__ = "messages"
    __table_args__ = (
        one_of("kind", MessageKind),
        one_of("channel", Channel),
        UniqueConstraint(
            "kind", "alert_id", "night", "channel", "recipient", postgresql_nulls_not_distinct=True
        ),
        Index(
            "ix_messages_waiting",
            "next_attempt_at",
            postgresql_where=sql("delivered_at IS NULL AND gave_up_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str]
    alert_id: Mapped[int | None] = mapped_column(ForeignKey("alerts.id"))
    night: Mapped[dt.date | None] = mapped_column(ForeignKey("quality_nights.night"))
    channel: Mapped[str]
    recipient: Mapped[str]
    """E-mail address, or address of the webhook."""
    subject: Mapped[str]
    body: Mapped[dict[str, Any]]
    """`{"text": ...}` for e-mail; the JSON that is posted for a webhook."""
    created_at: Mapped[dt.datetime] = now_by_default()
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_attempt_at: Mapped[dt.datetime] = now_by_default()
    delivered_at: Mapped[dt.datetime | None]
    gave_up_at: Mapped[dt.datetime | None]
    last_error: Mapped[str | None]


class Deployment(Base):
    """A model put into service. The newest one is what workers open."""

    __tablename__ = "deployments"
    __table_args__ = (CheckConstraint("NOT is_forced OR reason IS NOT NULL", name="force_has_reason"),)

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    location: Mapped[str]
    """Folder of the checkpoint, as workers see it."""
    base: Mapped[str | None]
    """Whole checkpoint under it, where it holds `audio_embed` alone."""
    deployed_at: Mapped[dt.datetime] = now_by_default()
    deployed_by: Mapped[str]
    is_forced: Mapped[bool]
    reason: Mapped[str | None]
    evidence: Mapped[dict[str, Any]]
    """The paired comparison on each fixed set."""
