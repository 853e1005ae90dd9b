"""Two broadcasters, alfa and bravo, with a row of each in everything that schema `archive` shows.

Every text of a broadcaster holds its name, so that a row in the wrong hands is found by looking for the word.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection, Engine, make_url, text

from db.sql_hardening import harden
from db.sql_users import create_sql_user

ALFA, BRAVO = "alfa", "bravo"

WORDS_OF_OTHERS = {
    "recordings": ("recording", "batch", "programme", "programme_kind"),
    "all_segments": ("text", "programme", "recording", "batch", "corrected_text"),
    "batches": ("batch",),
    "coverage": ("reason",),
    "attempts": ("error_message",),
    "corrections": ("corrected", "corrected_by"),
    "transcripts": ("recording",),
}
"""View -> columns with words that MANY_WORDS repeats."""

MANY_WORDS = """
SET LOCAL session_replication_role = replica;
INSERT INTO batches (id, broadcaster_id, name, request_sha256)
    SELECT md5('b' || n)::uuid, 2, 'un segredo de bravo ' || n, '' FROM generate_series(1, 1000) n;
INSERT INTO recordings (id, broadcaster_id, batch_id, name, programme, programme_kind, priority, size_bytes)
    SELECT md5('r' || n)::uuid, 2, md5('b' || n)::uuid, 'un segredo de bravo', 'un segredo de bravo',
           'un segredo de bravo', 1, 1
    FROM generate_series(1, 1000) n;
INSERT INTO transcripts (id, broadcaster_id, recording_id, is_current, splitter_version, code_version, duration_samples,
                         transcribed_samples, no_speech_samples, failed_samples, finished_at)
    SELECT md5('t' || n)::uuid, 2, md5('r' || n)::uuid, true, '1', '1', 1, 1, 0, 0, now()
    FROM generate_series(1, 1000) n;
INSERT INTO segments (id, broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample, state,
                      priority, text, finished_at)
    OVERRIDING SYSTEM VALUE
    SELECT 1000000 + n, 2, md5('r' || n)::uuid, md5('t' || n)::uuid, 0, 0, 1, 'done', 1, 'un segredo de bravo', now()
    FROM generate_series(1, 1000) n;
INSERT INTO gaps (transcript_id, start_sample, end_sample, broadcaster_id, kind, reason)
    SELECT md5('t' || n)::uuid, 5, 6, 2, 'no_speech', 'un segredo de bravo' FROM generate_series(1, 1000) n;
INSERT INTO attempts (broadcaster_id, recording_id, segment_id, attempt, worker_id, outcome, error_message)
    SELECT 2, md5('r' || n)::uuid, 1000000 + n, 1, 1, 'done', 'un segredo de bravo' FROM generate_series(1, 1000) n;
INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, is_current, corrected_by)
    SELECT 2, md5('r' || n)::uuid, 1000000 + n, 'un segredo de bravo', false, true, 'un segredo de bravo'
    FROM generate_series(1, 1000) n;
ANALYZE batches, recordings, transcripts, segments, gaps, attempts, corrections
"""
"""A thousand rows of bravo with the same words, and their statistics; for a transaction that is rolled back."""


@dataclass(frozen=True)
class Tenants:
    """A database with both broadcasters, and login roles that read it."""

    engine: Engine
    """The tables' owner: a superuser here."""
    url: str
    alfa: str
    """Role that reads alfa's rows."""
    bravo: str
    operator: str
    """Role that reads all."""
    bare: str
    """Role with the grants, and no row in sql_users."""
    bravo_recording_id: str
    bravo_segment_id: int

    def connect(self, role: str) -> psycopg.Connection[tuple[object, ...]]:
        """A session of `role`: nothing of it is committed unless asked."""
        url = make_url(self.url).set(drivername="postgresql", username=role)
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def make_tenants(engine: Engine, url: str) -> Tenants:
    """Fill a migrated, empty database."""
    with engine.begin() as connection:
        for number, name in enumerate((ALFA, BRAVO), start=1):
            _fill(connection, number, name)
        harden(connection)
        alfa, _ = create_sql_user(connection, ALFA)
        bravo, _ = create_sql_user(connection, BRAVO)
        operator, _ = create_sql_user(connection, None)
        bare = f"bare_{alfa}"
        connection.execute(text(f"CREATE ROLE {bare} LOGIN"))
        connection.execute(text(f"GRANT archive_reader TO {bare} WITH INHERIT TRUE, SET FALSE"))
        recording_id = connection.scalar(text("SELECT id::text FROM recordings WHERE name LIKE 'bravo%'"))
        segment_id = connection.scalar(text("SELECT id FROM segments WHERE text LIKE '%bravo%'"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    assert recording_id is not None
    assert segment_id is not None
    return Tenants(engine, url, alfa, bravo, operator, bare, recording_id, segment_id)


def drop_tenants(tenants: Tenants) -> None:
    """Drop the roles, which outlive the database."""
    with tenants.engine.begin() as connection:
        for role in (tenants.alfa, tenants.bravo, tenants.operator, tenants.bare):
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    tenants.engine.dispose()


def _fill(connection: Connection, number: int, name: str) -> None:
    def one(statement: str) -> object:
        return connection.scalar(text(statement), values)

    values: dict[str, object] = {"name": name, "night": f"2026-11-0{number}", "secret": f"segredo {name}"}
    values["broadcaster"] = one("INSERT INTO broadcasters (name) VALUES (:name) RETURNING id")
    values["worker"] = one(
        "INSERT INTO workers (role, host, pid, code_version, lease_until) "
        "VALUES ('gpu', :name, 1, '1', now()) RETURNING id"
    )
    values["model"] = one(
        "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES ('phi4', 'w', false, '{}') "
        "ON CONFLICT (name, weights_sha256) DO UPDATE SET is_demo = false RETURNING id"
    )
    values["batch"] = one(
        "INSERT INTO batches (broadcaster_id, name, request_sha256) VALUES (:broadcaster, :secret, '') RETURNING id"
    )
    values["recording"] = one(
        "INSERT INTO recordings (broadcaster_id, batch_id, name, programme, programme_kind, priority, state,"
        " size_bytes, duration_samples, received_at, timecode_offset_ms) "
        "VALUES (:broadcaster, :batch, :name || '.wav', :secret, :name, 1, 'completed', 1, 480000, now(), 36000000) "
        "RETURNING id"
    )
    values["transcript"] = one(
        "INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, splitter_version, code_version,"
        " duration_samples, transcribed_samples, no_speech_samples, failed_samples, finished_at) "
        "VALUES (:broadcaster, :recording, true, :model, '1', '1', 480000, 320000, 160000, 0, now()) RETURNING id"
    )
    values["segment"] = one(
        "INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample, state,"
        " priority, text, mean_logprob, finished_at) "
        "VALUES (:broadcaster, :recording, :transcript, 0, 0, 320000, 'done', 1, 'un segredo de ' || :name, -0.1,"
        " now()) RETURNING id"
    )
    values["set"] = one(
        "INSERT INTO held_out_sets (name, content_sha256, n_utterances, duration_samples) "
        "VALUES (:secret, :name, 1, 16000) RETURNING id"
    )
    one(
        "INSERT INTO quality_nights (night, from_at, until_at) "
        "VALUES (:night, now(), now() + interval '1 h') RETURNING 1"
    )
    values["run"] = one(
        "INSERT INTO evaluation_runs (set_id, purpose, night, model_id) "
        "VALUES (:set, 'nightly', :night, :model) RETURNING id"
    )
    for statement in (
        "INSERT INTO api_keys (broadcaster_id, key_id, secret_sha256, label) "
        "VALUES (:broadcaster, :name, '', :secret)",
        "INSERT INTO events (broadcaster_id, recording_id, kind, payload) "
        "VALUES (:broadcaster, :recording, :secret, '{}')",
        "INSERT INTO gaps (transcript_id, start_sample, end_sample, broadcaster_id, kind, reason) "
        "VALUES (:transcript, 320000, 480000, :broadcaster, 'no_speech', :secret)",
        "INSERT INTO attempts (broadcaster_id, recording_id, segment_id, attempt, worker_id, outcome, error_message) "
        "VALUES (:broadcaster, :recording, :segment, 1, :worker, 'done', :secret)",
        "INSERT INTO attempts (broadcaster_id, recording_id, attempt, worker_id, outcome, error_message) "
        "VALUES (:broadcaster, :recording, 1, :worker, 'done', :secret)",
        "INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, is_current, corrected_by) "
        "VALUES (:broadcaster, :recording, :segment, :secret, false, true, :name)",
        "INSERT INTO evaluation_scores (run_id, normalizer, n_utterances, n_failed, n_clusters, word_hits,"
        " word_substitutions, word_deletions, word_insertions, character_hits, character_substitutions,"
        " character_deletions, character_insertions, insertions_on_empty) "
        "VALUES (:run, 'basic', 1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0)",
        "INSERT INTO quality_verdicts (night, question, subject, verdict, cause, sentence, nights, n_utterances,"
        " n_words, evidence) VALUES (:night, 'drift', :name, 'ok', 'nothing', :secret, 0, 1, 1, '{}')",
        "INSERT INTO quality_measures (night, model_id, unit_kind, broadcaster_id, unit, measure, value, n_segments,"
        " n_recordings) VALUES (:night, :model, 'programme', :broadcaster, :secret, 'loop_rate', 0, 1, 1)",
        "INSERT INTO quality_measures (night, model_id, unit_kind, unit, measure, value, n_segments, n_recordings) "
        "VALUES (:night, :model, 'decade', '2020', 'loop_rate', 0, 1, 1)",
        "INSERT INTO alerts (kind, subject, opened_night, last_night, sentence, evidence) "
        "VALUES ('drift', :name, :night, :night, :secret, '{}')",
    ):
        connection.execute(text(statement), values)
