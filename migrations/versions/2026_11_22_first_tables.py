"""First tables: broadcasters to events, the state triggers, and the `archive` schema that analysts read.

Revision: 0001, the first.

The SQL below is frozen: it is what this revision made, whatever db/states.py says today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TRIGGERS = """
CREATE OR REPLACE FUNCTION recordings_check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
            ('awaiting_media', 'cancelled'),
            ('awaiting_media', 'failed'),
            ('awaiting_media', 'received'),
            ('received', 'cancelled'),
            ('received', 'failed'),
            ('received', 'splitting'),
            ('splitting', 'cancelled'),
            ('splitting', 'completed'),
            ('splitting', 'failed'),
            ('splitting', 'received'),
            ('splitting', 'transcribing'),
            ('transcribing', 'cancelled'),
            ('transcribing', 'completed'),
            ('transcribing', 'failed'),
            ('transcribing', 'partial'),
            ('completed', 'received'),
            ('completed', 'transcribing'),
            ('partial', 'received'),
            ('partial', 'transcribing'),
            ('failed', 'awaiting_media'),
            ('failed', 'received'),
            ('failed', 'transcribing'),
            ('cancelled', 'awaiting_media'),
            ('cancelled', 'received'),
            ('cancelled', 'transcribing')) THEN
        RAISE EXCEPTION 'recordings %: illegal transition % -> %', NEW.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER recordings_transition BEFORE UPDATE OF state ON recordings FOR EACH ROW EXECUTE FUNCTION recordings_check_transition();

CREATE OR REPLACE FUNCTION segments_check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
            ('pending', 'failed'),
            ('pending', 'running'),
            ('running', 'done'),
            ('running', 'failed'),
            ('running', 'pending'),
            ('failed', 'pending')) THEN
        RAISE EXCEPTION 'segments %: illegal transition % -> %', NEW.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER segments_transition BEFORE UPDATE OF state ON segments FOR EACH ROW EXECUTE FUNCTION segments_check_transition();
"""

ARCHIVE = """
CREATE SCHEMA archive;
COMMENT ON SCHEMA archive IS
    'What analysts query: stable views over the inner tables. Offsets are seconds from the start of the recording.';

CREATE VIEW archive.recordings AS
SELECT r.id AS recording_id, o.name AS broadcaster, r.batch_id, b.name AS batch, r.name AS recording,
       r.programme, r.state, r.failure_code, r.failure_reason,
       round(r.duration_samples / 16000.0, 3) AS duration_s,
       r.created_at AS submitted_at, r.received_at, r.finished_at
FROM public.recordings r
JOIN public.batches b ON b.id = r.batch_id
JOIN public.broadcasters o ON o.id = r.broadcaster_id;
COMMENT ON VIEW archive.recordings IS 'One row per media file.';

CREATE VIEW archive.transcripts AS
SELECT t.id AS transcript_id, t.recording_id, r.name AS recording, o.name AS broadcaster, t.is_current,
       m.name AS model, m.is_demo AS is_demo_model, m.weights_sha256, t.prompt, t.decode_settings,
       t.splitter_version, t.code_version,
       round(t.duration_samples / 16000.0, 3) AS duration_s,
       round(t.transcribed_samples / 16000.0, 3) AS transcribed_s,
       round(t.no_speech_samples / 16000.0, 3) AS no_speech_s,
       round(t.failed_samples / 16000.0, 3) AS failed_s,
       t.created_at, t.finished_at
FROM public.transcripts t
JOIN public.recordings r ON r.id = t.recording_id
JOIN public.broadcasters o ON o.id = t.broadcaster_id
LEFT JOIN public.models m ON m.id = t.model_id;
COMMENT ON VIEW archive.transcripts IS 'One row per recording and model that transcribed it.';

CREATE VIEW archive.segments AS
SELECT s.id AS segment_id, s.transcript_id, s.recording_id, r.name AS recording, r.programme,
       o.name AS broadcaster, s.index AS segment_index,
       round(s.start_sample / 16000.0, 3) AS start_s, round(s.end_sample / 16000.0, 3) AS end_s,
       s.state, s.text, round(exp(s.mean_logprob)::numeric, 3) AS confidence, s.mean_logprob, s.flags,
       s.failure_reason, m.name AS model, m.is_demo AS is_demo_model, s.finished_at
FROM public.segments s
JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
JOIN public.recordings r ON r.id = s.recording_id
JOIN public.broadcasters o ON o.id = s.broadcaster_id
LEFT JOIN public.models m ON m.id = t.model_id;
COMMENT ON VIEW archive.segments IS 'Segments of each recording''s current transcript.';
COMMENT ON COLUMN archive.segments.confidence IS 'Geometric mean of the token probabilities, 0 to 1.';

CREATE VIEW archive.coverage AS
SELECT t.recording_id, t.id AS transcript_id, o.name AS broadcaster, c.kind,
       round(c.start_sample / 16000.0, 3) AS start_s, round(c.end_sample / 16000.0, 3) AS end_s, c.reason
FROM public.transcripts t
JOIN public.broadcasters o ON o.id = t.broadcaster_id
CROSS JOIN LATERAL (
    SELECT CASE s.state WHEN 'done' THEN 'transcribed' WHEN 'failed' THEN 'failed' ELSE 'waiting' END AS kind,
           s.start_sample, s.end_sample, s.failure_reason AS reason
    FROM public.segments s WHERE s.transcript_id = t.id
    UNION ALL
    SELECT g.kind, g.start_sample, g.end_sample, g.reason FROM public.gaps g WHERE g.transcript_id = t.id
) c
WHERE t.is_current;
COMMENT ON VIEW archive.coverage IS
    'Every second of each recording, once: transcribed, no_speech, failed (with the reason) or waiting.';

DO $$ BEGIN
    CREATE ROLE archive_reader NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- roles belong to the whole server: another database of it has made the role
END $$;
GRANT USAGE ON SCHEMA archive TO archive_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA archive TO archive_reader;
"""


def upgrade() -> None:
    op.create_table(
        "broadcasters",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name=op.f("ck_broadcasters_name_form")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_broadcasters")),
        sa.UniqueConstraint("name", name=op.f("uq_broadcasters_name")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weights_sha256", sa.Text(), nullable=False),
        sa.Column("is_demo", sa.Boolean(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", "weights_sha256", name=op.f("uq_models_name_weights_sha256")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_api_keys_broadcaster_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_id", name=op.f("uq_api_keys_key_id")),
    )
    op.create_index(op.f("ix_api_keys_broadcaster_id"), "api_keys", ["broadcaster_id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.UUID(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), server_default="normal", nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "priority IN ('urgent', 'normal', 'archive')", name=op.f("ck_batches_priority_known")
        ),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_batches_broadcaster_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint(
            "broadcaster_id", "idempotency_key", name=op.f("uq_batches_broadcaster_id_idempotency_key")
        ),
    )
    op.create_index("ix_batches_broadcaster_id_id", "batches", ["broadcaster_id", "id"], unique=False)
    op.create_table(
        "recordings",
        sa.Column("id", sa.UUID(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("programme", sa.Text(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="awaiting_media", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("media_key", sa.Text(), nullable=True),
        sa.Column("working_copy_key", sa.Text(), nullable=True),
        sa.Column("duration_samples", sa.BigInteger(), nullable=True),
        sa.Column("media_info", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("losses", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'splitting') = (worker_id IS NOT NULL)", name=op.f("ck_recordings_splitting_has_worker")
        ),
        sa.CheckConstraint(
            "state IN ('awaiting_media', 'received', 'splitting', 'transcribing', 'completed', 'partial', 'failed', 'cancelled')",
            name=op.f("ck_recordings_state_known"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('failed') OR failure_reason IS NOT NULL",
            name=op.f("ck_recordings_failure_has_reason"),
        ),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_recordings_size_positive")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_recordings_batch_id")),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_recordings_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_recordings_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recordings")),
        sa.UniqueConstraint("batch_id", "name", name=op.f("uq_recordings_batch_id_name")),
    )
    op.create_index(
        "ix_recordings_awaiting_media",
        "recordings",
        ["updated_at"],
        unique=False,
        postgresql_where=sa.text("state = 'awaiting_media'"),
    )
    op.create_index("ix_recordings_batch_id_id", "recordings", ["batch_id", "id"], unique=False)
    op.create_index("ix_recordings_broadcaster_id_id", "recordings", ["broadcaster_id", "id"], unique=False)
    op.create_index(
        "ix_recordings_broadcaster_id_state_id", "recordings", ["broadcaster_id", "state", "id"], unique=False
    )
    op.create_index(
        "ix_recordings_received",
        "recordings",
        ["priority", "received_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'received'"),
    )
    op.create_index(
        "ix_recordings_splitting",
        "recordings",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("state = 'splitting'"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.UUID(), nullable=True),
        sa.Column("recording_id", sa.UUID(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_events_batch_id")),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_events_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name=op.f("fk_events_recording_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_recording_id", "events", ["recording_id"], unique=False)
    op.create_table(
        "transcripts",
        sa.Column("id", sa.UUID(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("recording_id", sa.UUID(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("splitter_version", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=True),
        sa.Column("decode_settings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("duration_samples", sa.BigInteger(), nullable=False),
        sa.Column("transcribed_samples", sa.BigInteger(), nullable=True),
        sa.Column("no_speech_samples", sa.BigInteger(), nullable=True),
        sa.Column("failed_samples", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "finished_at IS NULL OR transcribed_samples + no_speech_samples + failed_samples = duration_samples",
            name=op.f("ck_transcripts_every_sample_accounted"),
        ),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_transcripts_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_transcripts_model_id")),
        sa.ForeignKeyConstraint(
            ["recording_id"], ["recordings.id"], name=op.f("fk_transcripts_recording_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transcripts")),
    )
    op.create_index("ix_transcripts_recording_id", "transcripts", ["recording_id"], unique=False)
    op.create_index(
        "uq_transcripts_current",
        "transcripts",
        ["recording_id"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.UUID(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("recording_id", sa.UUID(), nullable=False),
        sa.Column("length_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "offset_bytes BETWEEN 0 AND length_bytes", name=op.f("ck_uploads_offset_in_range")
        ),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_uploads_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name=op.f("fk_uploads_recording_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("recording_id", name=op.f("uq_uploads_recording_id")),
    )
    op.create_index("ix_uploads_updated_at", "uploads", ["updated_at"], unique=False)
    op.create_table(
        "gaps",
        sa.Column("transcript_id", sa.UUID(), nullable=False),
        sa.Column("start_sample", sa.BigInteger(), nullable=False),
        sa.Column("end_sample", sa.BigInteger(), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("kind <> 'failed' OR reason IS NOT NULL", name=op.f("ck_gaps_failure_has_reason")),
        sa.CheckConstraint("kind IN ('no_speech', 'failed')", name=op.f("ck_gaps_kind_known")),
        sa.CheckConstraint(
            "end_sample > start_sample AND start_sample >= 0", name=op.f("ck_gaps_span_positive")
        ),
        sa.ForeignKeyConstraint(["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_gaps_broadcaster_id")),
        sa.ForeignKeyConstraint(["transcript_id"], ["transcripts.id"], name=op.f("fk_gaps_transcript_id")),
        sa.PrimaryKeyConstraint("transcript_id", "start_sample", name=op.f("pk_gaps")),
    )
    op.create_table(
        "segments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("recording_id", sa.UUID(), nullable=False),
        sa.Column("transcript_id", sa.UUID(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("start_sample", sa.BigInteger(), nullable=False),
        sa.Column("end_sample", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("losses", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("token_ids", postgresql.ARRAY(sa.Integer()), nullable=True),
        sa.Column("token_logprobs", postgresql.ARRAY(sa.REAL()), nullable=True),
        sa.Column("mean_logprob", sa.REAL(), nullable=True),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'done') = (text IS NOT NULL)", name=op.f("ck_segments_done_has_text")),
        sa.CheckConstraint(
            "(state = 'running') = (worker_id IS NOT NULL)", name=op.f("ck_segments_running_has_worker")
        ),
        sa.CheckConstraint(
            "state <> 'failed' OR failure_reason IS NOT NULL", name=op.f("ck_segments_failure_has_reason")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done', 'failed')", name=op.f("ck_segments_state_known")
        ),
        sa.CheckConstraint(
            "end_sample > start_sample AND start_sample >= 0", name=op.f("ck_segments_span_positive")
        ),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_segments_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name=op.f("fk_segments_recording_id")),
        sa.ForeignKeyConstraint(
            ["transcript_id"], ["transcripts.id"], name=op.f("fk_segments_transcript_id")
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_segments_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
        sa.UniqueConstraint("transcript_id", "index", name=op.f("uq_segments_transcript_id_index")),
    )
    op.create_index(
        "ix_segments_pending",
        "segments",
        ["priority", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_segments_recording_id", "segments", ["recording_id"], unique=False)
    op.create_index(
        "ix_segments_running",
        "segments",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("recording_id", sa.UUID(), nullable=False),
        sa.Column("segment_id", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), server_default="running", nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('running', 'done', 'failed', 'lost', 'returned')",
            name=op.f("ck_attempts_outcome_known"),
        ),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_attempts_broadcaster_id")
        ),
        sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name=op.f("fk_attempts_recording_id")),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_attempts_segment_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_attempts_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint(
            "recording_id",
            "segment_id",
            "attempt",
            name=op.f("uq_attempts_recording_id_segment_id_attempt"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(
        "ix_attempts_running",
        "attempts",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("outcome = 'running'"),
    )
    # a batch of long recordings adds segments by the hundred thousand: plan with statistics that know them
    op.execute("ALTER TABLE segments SET (autovacuum_analyze_scale_factor = 0.01)")
    op.execute(TRIGGERS)
    op.execute(ARCHIVE)


def downgrade() -> None:
    op.execute("DROP SCHEMA archive CASCADE")
    op.drop_index(
        "ix_attempts_running", table_name="attempts", postgresql_where=sa.text("outcome = 'running'")
    )
    op.drop_table("attempts")
    op.drop_index("ix_segments_running", table_name="segments", postgresql_where=sa.text("state = 'running'"))
    op.drop_index("ix_segments_recording_id", table_name="segments")
    op.drop_index("ix_segments_pending", table_name="segments", postgresql_where=sa.text("state = 'pending'"))
    op.drop_table("segments")
    op.drop_table("gaps")
    op.drop_index("ix_uploads_updated_at", table_name="uploads")
    op.drop_table("uploads")
    op.drop_index("uq_transcripts_current", table_name="transcripts", postgresql_where=sa.text("is_current"))
    op.drop_index("ix_transcripts_recording_id", table_name="transcripts")
    op.drop_table("transcripts")
    op.drop_index("ix_events_recording_id", table_name="events")
    op.drop_table("events")
    op.drop_index(
        "ix_recordings_splitting", table_name="recordings", postgresql_where=sa.text("state = 'splitting'")
    )
    op.drop_index(
        "ix_recordings_received", table_name="recordings", postgresql_where=sa.text("state = 'received'")
    )
    op.drop_index("ix_recordings_broadcaster_id_id", table_name="recordings")
    op.drop_index(
        "ix_recordings_awaiting_media",
        table_name="recordings",
        postgresql_where=sa.text("state = 'awaiting_media'"),
    )
    op.drop_table("recordings")
    op.drop_index("ix_batches_broadcaster_id_id", table_name="batches")
    op.drop_table("batches")
    op.drop_index(op.f("ix_api_keys_broadcaster_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("workers")
    op.drop_table("models")
    op.drop_table("broadcasters")
    op.execute("DROP FUNCTION recordings_check_transition, segments_check_transition")
