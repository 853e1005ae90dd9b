"""Evaluation runs, corrections, nightly quality, alerts and deployments, and their views in `archive`.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ARCHIVE = """
CREATE OR REPLACE VIEW archive.recordings AS
SELECT r.id AS recording_id, o.name AS broadcaster, r.batch_id, b.name AS batch, r.name AS recording,
       r.programme, r.state, r.failure_code, r.failure_reason,
       round(r.duration_samples / 16000.0, 3) AS duration_s,
       r.created_at AS submitted_at, r.received_at, r.finished_at,
       r.programme_kind, r.broadcast_on
FROM public.recordings r
JOIN public.batches b ON b.id = r.batch_id
JOIN public.broadcasters o ON o.id = r.broadcaster_id;
COMMENT ON COLUMN archive.recordings.programme_kind IS 'Radio, television, interview ...: what kind of programme it is.';
COMMENT ON COLUMN archive.recordings.broadcast_on IS 'Day of the first broadcast.';

CREATE VIEW archive.corrections AS
SELECT c.id AS correction_id, c.segment_id, c.recording_id, r.name AS recording, r.programme, r.programme_kind,
       o.name AS broadcaster, s.text AS transcribed, c.text AS corrected, c.is_drawn, c.is_current,
       c.corrected_by, c.created_at AS corrected_at
FROM public.corrections c
JOIN public.segments s ON s.id = c.segment_id
JOIN public.recordings r ON r.id = c.recording_id
JOIN public.broadcasters o ON o.id = c.broadcaster_id;
COMMENT ON VIEW archive.corrections IS 'What people say is said in segments, beside what was transcribed.';
COMMENT ON COLUMN archive.corrections.is_drawn IS
    'The segment was drawn for correction, not chosen by the person: chosen ones hold more errors.';

CREATE VIEW archive.quality_runs AS
SELECT e.id AS run_id, s.name AS held_out_set, s.content_sha256 AS set_sha256, s.n_utterances, e.purpose, e.night,
       m.name AS model, m.weights_sha256, m.is_demo AS is_demo_model, e.prompt, e.decode_settings, e.device,
       e.code_version, e.created_at, e.started_at, e.finished_at, e.abandoned_reason,
       EXISTS (SELECT FROM public.baselines b WHERE b.run_id = e.id AND b.retired_at IS NULL) AS is_baseline
FROM public.evaluation_runs e
JOIN public.held_out_sets s ON s.id = e.set_id
LEFT JOIN public.models m ON m.id = e.model_id;
COMMENT ON VIEW archive.quality_runs IS 'One row per model, held-out set and time that it was evaluated.';

CREATE VIEW archive.quality_scores AS
SELECT c.run_id, s.name AS held_out_set, m.name AS model, e.night, c.normalizer, c.n_utterances, c.n_failed,
       c.n_clusters, c.word_hits + c.word_substitutions + c.word_deletions AS n_words, c.word_hits,
       c.word_substitutions, c.word_deletions, c.word_insertions, c.insertions_on_empty,
       c.wer, c.wer_low, c.wer_high, c.cer, c.cer_low, c.cer_high, c.created_at AS scored_at
FROM public.evaluation_scores c
JOIN public.evaluation_runs e ON e.id = c.run_id
JOIN public.held_out_sets s ON s.id = e.set_id
LEFT JOIN public.models m ON m.id = e.model_id;
COMMENT ON VIEW archive.quality_scores IS 'Error counts and rates of each run under each normaliser. Rates are fractions.';
COMMENT ON COLUMN archive.quality_scores.wer_low IS 'Lower end of the 95 % interval, over clusters (speakers or programmes).';

CREATE VIEW archive.quality_daily AS
SELECT v.night, v.question, v.subject, v.verdict, v.cause, v.sentence, m.name AS model, v.wer, v.wer_low, v.wer_high,
       v.baseline_wer, v.difference, v.difference_low, v.difference_high, v.p_value, v.effect, v.nights, v.margin,
       v.n_utterances, v.n_words, v.run_id, v.evidence
FROM public.quality_verdicts v
LEFT JOIN public.models m ON m.id = v.model_id;
COMMENT ON VIEW archive.quality_daily IS 'Each night''s answer to each question: is it still as good as it was?';
COMMENT ON COLUMN archive.quality_daily.question IS
    'regression: a fixed set; drift: corrected segments of production; unreferenced: measures without references.';

CREATE VIEW archive.quality_measures AS
SELECT q.night, m.name AS model, q.unit_kind, o.name AS broadcaster, q.unit, q.measure, q.value, q.standard_error,
       q.n_segments, q.n_recordings, q.centre, q.n_nights, q.p_value, q.adjusted_p
FROM public.quality_measures q
JOIN public.models m ON m.id = q.model_id
LEFT JOIN public.broadcasters o ON o.id = q.broadcaster_id;
COMMENT ON VIEW archive.quality_measures IS
    'Nightly measures that need no references, per broadcaster, programme and decade, beside their own history.';

CREATE VIEW archive.quality_alerts AS
SELECT id AS alert_id, kind, subject, opened_night, opened_at, last_night, sentence, closed_at, closed_by, close_reason
FROM public.alerts;
COMMENT ON VIEW archive.quality_alerts IS 'Alerts: opened once, followed every night, closed with a reason.';

GRANT SELECT ON archive.corrections, archive.quality_runs, archive.quality_scores, archive.quality_daily,
    archive.quality_measures, archive.quality_alerts TO archive_reader;
"""

NO_ARCHIVE = """
DROP VIEW archive.quality_alerts, archive.quality_measures, archive.quality_daily, archive.quality_scores,
    archive.quality_runs, archive.corrections;
DROP VIEW archive.recordings;
CREATE VIEW archive.recordings AS
SELECT r.id AS recording_id, o.name AS broadcaster, r.batch_id, b.name AS batch, r.name AS recording,
       r.programme, r.state, r.failure_code, r.failure_reason,
       round(r.duration_samples / 16000.0, 3) AS duration_s,
       r.created_at AS submitted_at, r.received_at, r.finished_at
FROM public.recordings r
JOIN public.batches b ON b.id = r.batch_id
JOIN public.broadcasters o ON o.id = r.broadcaster_id;
COMMENT ON VIEW archive.recordings IS 'One row per media file.';
GRANT SELECT ON archive.recordings TO archive_reader;
"""


def upgrade() -> None:
    op.create_table(
        "held_out_sets",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_sha256", sa.Text(), nullable=False),
        sa.Column("n_utterances", sa.Integer(), nullable=False),
        sa.Column("duration_samples", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_out_sets")),
        sa.UniqueConstraint("name", "content_sha256", name=op.f("uq_held_out_sets_name_content_sha256")),
    )
    op.create_table(
        "quality_nights",
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), server_default="measuring", nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("prepared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('measuring', 'done', 'missed')", name=op.f("ck_quality_nights_state_known")
        ),
        sa.CheckConstraint("until_at > from_at", name=op.f("ck_quality_nights_window_positive")),
        sa.PrimaryKeyConstraint("night", name=op.f("pk_quality_nights")),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("opened_night", sa.Date(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_night", sa.Date(), nullable=False),
        sa.Column("n_quiet_nights", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('regression', 'drift', 'not_measured')", name=op.f("ck_alerts_kind_known")
        ),
        sa.CheckConstraint(
            "(closed_at IS NULL) = (close_reason IS NULL)", name=op.f("ck_alerts_closing_has_reason")
        ),
        sa.ForeignKeyConstraint(["last_night"], ["quality_nights.night"], name=op.f("fk_alerts_last_night")),
        sa.ForeignKeyConstraint(
            ["opened_night"], ["quality_nights.night"], name=op.f("fk_alerts_opened_night")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=True),
        sa.Column("deployed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deployed_by", sa.Text(), nullable=False),
        sa.Column("is_forced", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "NOT is_forced OR reason IS NOT NULL", name=op.f("ck_deployments_force_has_reason")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_deployments_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_table(
        "drift_references",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("accepted_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(retired_at IS NULL) = (retired_reason IS NULL)",
            name=op.f("ck_drift_references_retirement_has_reason"),
        ),
        sa.CheckConstraint("until_at > from_at", name=op.f("ck_drift_references_window_positive")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_drift_references_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_references")),
    )
    op.create_index(
        "uq_drift_references_in_force",
        "drift_references",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "evaluation_runs",
        sa.Column("id", sa.UUID(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("night", sa.Date(), nullable=True),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("prompt", sa.Text(), nullable=True),
        sa.Column("decode_settings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("code_version", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("abandoned_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(purpose = 'nightly') = (night IS NOT NULL)", name=op.f("ck_evaluation_runs_nightly_has_night")
        ),
        sa.CheckConstraint("purpose IN ('nightly', 'manual')", name=op.f("ck_evaluation_runs_purpose_known")),
        sa.CheckConstraint(
            "finished_at IS NULL OR model_id IS NOT NULL", name=op.f("ck_evaluation_runs_finished_has_model")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_evaluation_runs_model_id")),
        sa.ForeignKeyConstraint(["night"], ["quality_nights.night"], name=op.f("fk_evaluation_runs_night")),
        sa.ForeignKeyConstraint(["set_id"], ["held_out_sets.id"], name=op.f("fk_evaluation_runs_set_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_runs")),
        sa.UniqueConstraint("night", "set_id", name=op.f("uq_evaluation_runs_night_set_id")),
    )
    op.create_index(
        "ix_evaluation_runs_open",
        "evaluation_runs",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_evaluation_runs_set_id_model_id", "evaluation_runs", ["set_id", "model_id"], unique=False
    )
    op.create_table(
        "held_out_utterances",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("audio", sa.Text(), nullable=False),
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("duration_samples", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=True),
        sa.Column("programme", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["set_id"], ["held_out_sets.id"], name=op.f("fk_held_out_utterances_set_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_out_utterances")),
        sa.UniqueConstraint("set_id", "index", name=op.f("uq_held_out_utterances_set_id_index")),
        sa.UniqueConstraint("set_id", "key", name=op.f("uq_held_out_utterances_set_id_key")),
    )
    op.create_table(
        "quality_measures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("unit_kind", sa.Text(), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("standard_error", sa.Double(), nullable=True),
        sa.Column("n_segments", sa.Integer(), nullable=False),
        sa.Column("n_recordings", sa.Integer(), nullable=False),
        sa.Column("centre", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("adjusted_p", sa.Double(), nullable=True),
        sa.Column("n_nights", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "unit_kind IN ('broadcaster', 'programme', 'decade')",
            name=op.f("ck_quality_measures_unit_kind_known"),
        ),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_quality_measures_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_quality_measures_model_id")),
        sa.ForeignKeyConstraint(["night"], ["quality_nights.night"], name=op.f("fk_quality_measures_night")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_measures")),
        sa.UniqueConstraint(
            "night",
            "model_id",
            "unit_kind",
            "broadcaster_id",
            "unit",
            "measure",
            name=op.f("uq_quality_measures_night_model_id_unit_kind_broadcaster_id_unit_measure"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(
        "ix_quality_measures_model_id_night", "quality_measures", ["model_id", "night"], unique=False
    )
    op.create_table(
        "quality_reports",
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("storage_prefix", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["night"], ["quality_nights.night"], name=op.f("fk_quality_reports_night")),
        sa.PrimaryKeyConstraint("night", name=op.f("pk_quality_reports")),
    )
    op.create_table(
        "baselines",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("accepted_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(retired_at IS NULL) = (retired_reason IS NULL)", name=op.f("ck_baselines_retirement_has_reason")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["evaluation_runs.id"], name=op.f("fk_baselines_run_id")),
        sa.ForeignKeyConstraint(["set_id"], ["held_out_sets.id"], name=op.f("fk_baselines_set_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_baselines")),
    )
    op.create_index(
        "uq_baselines_in_force",
        "baselines",
        ["set_id"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "evaluation_scores",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("normalizer", sa.Text(), nullable=False),
        sa.Column("n_utterances", sa.Integer(), nullable=False),
        sa.Column("n_failed", sa.Integer(), nullable=False),
        sa.Column("n_clusters", sa.Integer(), nullable=False),
        sa.Column("word_hits", sa.Integer(), nullable=False),
        sa.Column("word_substitutions", sa.Integer(), nullable=False),
        sa.Column("word_deletions", sa.Integer(), nullable=False),
        sa.Column("word_insertions", sa.Integer(), nullable=False),
        sa.Column("character_hits", sa.Integer(), nullable=False),
        sa.Column("character_substitutions", sa.Integer(), nullable=False),
        sa.Column("character_deletions", sa.Integer(), nullable=False),
        sa.Column("character_insertions", sa.Integer(), nullable=False),
        sa.Column("insertions_on_empty", sa.Integer(), nullable=False),
        sa.Column("wer", sa.Double(), nullable=True),
        sa.Column("wer_low", sa.Double(), nullable=True),
        sa.Column("wer_high", sa.Double(), nullable=True),
        sa.Column("cer", sa.Double(), nullable=True),
        sa.Column("cer_low", sa.Double(), nullable=True),
        sa.Column("cer_high", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["evaluation_runs.id"], name=op.f("fk_evaluation_scores_run_id")),
        sa.PrimaryKeyConstraint("run_id", "normalizer", name=op.f("pk_evaluation_scores")),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("alert_id", sa.Integer(), nullable=True),
        sa.Column("night", sa.Date(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gave_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("channel IN ('webhook', 'email')", name=op.f("ck_messages_channel_known")),
        sa.CheckConstraint(
            "kind IN ('alert_opened', 'alert_closed', 'report')", name=op.f("ck_messages_kind_known")
        ),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name=op.f("fk_messages_alert_id")),
        sa.ForeignKeyConstraint(["night"], ["quality_nights.night"], name=op.f("fk_messages_night")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint(
            "kind",
            "alert_id",
            "night",
            "channel",
            "recipient",
            name=op.f("uq_messages_kind_alert_id_night_channel_recipient"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(
        "ix_messages_waiting",
        "messages",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("delivered_at IS NULL AND gave_up_at IS NULL"),
    )
    op.create_table(
        "predictions",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("utterance_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("token_ids", postgresql.ARRAY(sa.Integer()), nullable=True),
        sa.Column("token_logprobs", postgresql.ARRAY(sa.REAL()), nullable=True),
        sa.Column("mean_logprob", sa.REAL(), nullable=True),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(text IS NULL) = (failure_reason IS NOT NULL)", name=op.f("ck_predictions_text_or_reason")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["evaluation_runs.id"], name=op.f("fk_predictions_run_id")),
        sa.ForeignKeyConstraint(
            ["utterance_id"], ["held_out_utterances.id"], name=op.f("fk_predictions_utterance_id")
        ),
        sa.PrimaryKeyConstraint("run_id", "utterance_id", name=op.f("pk_predictions")),
    )
    op.create_table(
        "quality_verdicts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("run_id", sa.UUID(), nullable=True),
        sa.Column("baseline_id", sa.Integer(), nullable=True),
        sa.Column("reference_id", sa.Integer(), nullable=True),
        sa.Column("wer", sa.Double(), nullable=True),
        sa.Column("wer_low", sa.Double(), nullable=True),
        sa.Column("wer_high", sa.Double(), nullable=True),
        sa.Column("baseline_wer", sa.Double(), nullable=True),
        sa.Column("difference", sa.Double(), nullable=True),
        sa.Column("difference_low", sa.Double(), nullable=True),
        sa.Column("difference_high", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("effect", sa.Double(), nullable=True),
        sa.Column("nights", sa.Integer(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=True),
        sa.Column("n_utterances", sa.Integer(), nullable=False),
        sa.Column("n_words", sa.Integer(), nullable=False),
        sa.Column("chart", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "question IN ('regression', 'drift', 'unreferenced')",
            name=op.f("ck_quality_verdicts_question_known"),
        ),
        sa.CheckConstraint(
            "verdict IN ('ok', 'watch', 'regressed', 'improved')",
            name=op.f("ck_quality_verdicts_verdict_known"),
        ),
        sa.ForeignKeyConstraint(
            ["baseline_id"], ["baselines.id"], name=op.f("fk_quality_verdicts_baseline_id")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_quality_verdicts_model_id")),
        sa.ForeignKeyConstraint(["night"], ["quality_nights.night"], name=op.f("fk_quality_verdicts_night")),
        sa.ForeignKeyConstraint(
            ["reference_id"], ["drift_references.id"], name=op.f("fk_quality_verdicts_reference_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["evaluation_runs.id"], name=op.f("fk_quality_verdicts_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_verdicts")),
        sa.UniqueConstraint(
            "night", "question", "subject", name=op.f("uq_quality_verdicts_night_question_subject")
        ),
    )
    op.create_index(
        "ix_quality_verdicts_question_subject_night",
        "quality_verdicts",
        ["question", "subject", "night"],
        unique=False,
    )
    op.create_table(
        "correction_draws",
        sa.Column("segment_id", sa.BigInteger(), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("stratum", sa.Text(), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_correction_draws_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_correction_draws_segment_id")),
        sa.PrimaryKeyConstraint("segment_id", name=op.f("pk_correction_draws")),
    )
    op.create_index(
        "ix_correction_draws_broadcaster_id_drawn_at",
        "correction_draws",
        ["broadcaster_id", "drawn_at"],
        unique=False,
    )
    op.create_table(
        "corrections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("recording_id", sa.UUID(), nullable=False),
        sa.Column("segment_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("is_drawn", sa.Boolean(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("corrected_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_corrections_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(
            ["recording_id"], ["recordings.id"], name=op.f("fk_corrections_recording_id")
        ),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_corrections_segment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corrections")),
    )
    op.create_index("ix_corrections_broadcaster_id_id", "corrections", ["broadcaster_id", "id"], unique=False)
    op.create_index("ix_corrections_created_at", "corrections", ["created_at"], unique=False)
    op.create_index("ix_corrections_recording_id", "corrections", ["recording_id"], unique=False)
    op.create_index(
        "uq_corrections_current",
        "corrections",
        ["segment_id"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )
    op.add_column("recordings", sa.Column("programme_kind", sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("broadcast_on", sa.Date(), nullable=True))
    op.create_index(
        "ix_transcripts_finished_at",
        "transcripts",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_transcripts_begun",
        "transcripts",
        ["model_id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_attempts_started_at", "attempts", ["started_at"], unique=False, postgresql_using="brin"
    )
    op.execute(ARCHIVE)


def downgrade() -> None:
    op.execute(NO_ARCHIVE)
    op.drop_index("ix_attempts_started_at", table_name="attempts", postgresql_using="brin")
    op.drop_index(
        "ix_transcripts_begun",
        table_name="transcripts",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.drop_index(
        "ix_transcripts_finished_at",
        table_name="transcripts",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.drop_column("recordings", "broadcast_on")
    op.drop_column("recordings", "programme_kind")
    op.drop_index("uq_corrections_current", table_name="corrections", postgresql_where=sa.text("is_current"))
    op.drop_index("ix_corrections_recording_id", table_name="corrections")
    op.drop_index("ix_corrections_created_at", table_name="corrections")
    op.drop_index("ix_corrections_broadcaster_id_id", table_name="corrections")
    op.drop_table("corrections")
    op.drop_index("ix_correction_draws_broadcaster_id_drawn_at", table_name="correction_draws")
    op.drop_table("correction_draws")
    op.drop_index("ix_quality_verdicts_question_subject_night", table_name="quality_verdicts")
    op.drop_table("quality_verdicts")
    op.drop_table("predictions")
    op.drop_index(
        "ix_messages_waiting",
        table_name="messages",
        postgresql_where=sa.text("delivered_at IS NULL AND gave_up_at IS NULL"),
    )
    op.drop_table("messages")
    op.drop_table("evaluation_scores")
    op.drop_index(
        "uq_baselines_in_force", table_name="baselines", postgresql_where=sa.text("retired_at IS NULL")
    )
    op.drop_table("baselines")
    op.drop_table("quality_reports")
    op.drop_index("ix_quality_measures_model_id_night", table_name="quality_measures")
    op.drop_table("quality_measures")
    op.drop_table("held_out_utterances")
    op.drop_index("ix_evaluation_runs_set_id_model_id", table_name="evaluation_runs")
    op.drop_index(
        "ix_evaluation_runs_open",
        table_name="evaluation_runs",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.drop_table("evaluation_runs")
    op.drop_index(
        "uq_drift_references_in_force",
        table_name="drift_references",
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.drop_table("drift_references")
    op.drop_table("deployments")
    op.drop_index("uq_alerts_open", table_name="alerts", postgresql_where=sa.text("closed_at IS NULL"))
    op.drop_table("alerts")
    op.drop_table("quality_nights")
    op.drop_table("held_out_sets")
