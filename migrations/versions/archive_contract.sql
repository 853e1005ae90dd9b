-- Schema `archive`, contract 1.0: the views. Comments are in archive_contract_comments.sql.
--
-- Joins that only fetch a name are LEFT JOINs on a key: the planner leaves out those whose columns nobody asks for.
-- A correction is found by a partial index, for which it would not: that is a subquery instead.
-- Whose rows are seen is decided by the policies on the inner tables, never here.

DROP VIEW archive.quality_alerts, archive.quality_measures, archive.quality_daily, archive.quality_scores,
    archive.quality_runs, archive.corrections, archive.coverage, archive.segments, archive.transcripts,
    archive.recordings;

CREATE FUNCTION archive.version() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN '1.0'::text;

CREATE VIEW archive.broadcasters AS
SELECT o.id AS broadcaster_id, o.name AS broadcaster, o.created_at
FROM public.broadcasters o;

CREATE VIEW archive.batches AS
SELECT b.id AS batch_id, b.name AS batch, o.name AS broadcaster, b.priority,
       (SELECT count(*) FROM public.recordings r WHERE r.batch_id = b.id) AS n_recordings, b.created_at
FROM public.batches b
LEFT JOIN public.broadcasters o ON o.id = b.broadcaster_id;

CREATE VIEW archive.recordings AS
SELECT r.id AS recording_id, r.name AS recording, r.batch_id, b.name AS batch, o.name AS broadcaster,
       r.programme, r.programme_kind, r.broadcast_on, r.state, r.failure_code, r.failure_reason,
       round(r.duration_samples / 16000.0, 3) AS duration_s,
       round(r.timecode_offset_ms / 1000.0, 3) AS timecode_offset_s,
       r.size_bytes, encode(r.sha256, 'hex') AS sha256,
       r.media_info ->> 'container' AS container, r.media_info ->> 'codec' AS codec,
       (r.media_info ->> 'channels')::int AS n_channels,
       (r.media_info ->> 'sample_rate_hz')::int AS sample_rate_hz,
       r.created_at AS submitted_at, r.received_at, r.finished_at
FROM public.recordings r
LEFT JOIN public.batches b ON b.id = r.batch_id
LEFT JOIN public.broadcasters o ON o.id = r.broadcaster_id;

CREATE VIEW archive.transcripts AS
SELECT t.id AS transcript_id, t.recording_id, r.name AS recording, r.programme, o.name AS broadcaster, t.is_current,
       t.model_id, m.name AS model, m.is_demo AS is_demo_model, m.weights_sha256, t.prompt, t.decode_settings,
       t.splitter_version, t.code_version,
       round(t.duration_samples / 16000.0, 3) AS duration_s,
       round(t.transcribed_samples / 16000.0, 3) AS transcribed_s,
       round(t.no_speech_samples / 16000.0, 3) AS no_speech_s,
       round(t.failed_samples / 16000.0, 3) AS failed_s,
       t.done_segments AS n_done_segments, t.failed_segments AS n_failed_segments,
       t.created_at, t.finished_at
FROM public.transcripts t
LEFT JOIN public.recordings r ON r.id = t.recording_id
LEFT JOIN public.broadcasters o ON o.id = t.broadcaster_id
LEFT JOIN public.models m ON m.id = t.model_id;

CREATE VIEW archive.all_segments AS
SELECT s.id AS segment_id, s.transcript_id, s.recording_id, r.name AS recording, b.name AS batch,
       r.programme, r.programme_kind, r.broadcast_on, o.name AS broadcaster, s.index AS segment_index,
       round(s.start_sample / 16000.0, 3) AS start_s, round(s.end_sample / 16000.0, 3) AS end_s,
       round((s.end_sample - s.start_sample) / 16000.0, 3) AS duration_s,
       archive.timecode(round(s.start_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3))
           AS start_timecode,
       archive.timecode(round(s.end_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3))
           AS end_timecode,
       s.state, s.text, regexp_count(s.text, '\S+') AS n_words,
       round(exp(s.mean_logprob)::numeric, 3) AS confidence, s.mean_logprob, s.flags, s.failure_reason,
       m.name AS model, m.is_demo AS is_demo_model, s.finished_at,
       (SELECT c.text FROM public.corrections c WHERE c.segment_id = s.id AND c.is_current) AS corrected_text, t.is_current
FROM public.segments s
JOIN public.transcripts t ON t.id = s.transcript_id
LEFT JOIN public.recordings r ON r.id = s.recording_id
LEFT JOIN public.batches b ON b.id = r.batch_id
LEFT JOIN public.broadcasters o ON o.id = s.broadcaster_id
LEFT JOIN public.models m ON m.id = t.model_id;

CREATE VIEW archive.segments AS
SELECT s.id AS segment_id, s.transcript_id, s.recording_id, r.name AS recording, b.name AS batch,
       r.programme, r.programme_kind, r.broadcast_on, o.name AS broadcaster, s.index AS segment_index,
       round(s.start_sample / 16000.0, 3) AS start_s, round(s.end_sample / 16000.0, 3) AS end_s,
       round((s.end_sample - s.start_sample) / 16000.0, 3) AS duration_s,
       archive.timecode(round(s.start_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3))
           AS start_timecode,
       archive.timecode(round(s.end_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3))
           AS end_timecode,
       s.state, s.text, regexp_count(s.text, '\S+') AS n_words,
       round(exp(s.mean_logprob)::numeric, 3) AS confidence, s.mean_logprob, s.flags, s.failure_reason,
       m.name AS model, m.is_demo AS is_demo_model, s.finished_at,
       (SELECT c.text FROM public.corrections c WHERE c.segment_id = s.id AND c.is_current) AS corrected_text
FROM public.segments s
JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
LEFT JOIN public.recordings r ON r.id = s.recording_id
LEFT JOIN public.batches b ON b.id = r.batch_id
LEFT JOIN public.broadcasters o ON o.id = s.broadcaster_id
LEFT JOIN public.models m ON m.id = t.model_id;

-- a word's share of its segment is its share of the segment's letters, spaces left out
CREATE VIEW archive.words AS
SELECT s.id AS segment_id, s.transcript_id, s.recording_id, r.name AS recording, r.programme, r.broadcast_on,
       o.name AS broadcaster, s.index AS segment_index, w.word_index, w.word,
       round((s.start_sample + (s.end_sample - s.start_sample) * w.letters_before / w.letters) / 16000.0, 3)
           AS start_s,
       round((s.start_sample + (s.end_sample - s.start_sample) * (w.letters_before + length(w.word)) / w.letters)
           / 16000.0, 3) AS end_s,
       archive.timecode(round(
           (s.start_sample + (s.end_sample - s.start_sample) * w.letters_before / w.letters) / 16000.0
               + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3)) AS start_timecode,
       true AS is_time_estimated
FROM public.segments s
JOIN public.transcripts t ON t.id = s.transcript_id AND t.is_current
LEFT JOIN public.recordings r ON r.id = s.recording_id
LEFT JOIN public.broadcasters o ON o.id = s.broadcaster_id
CROSS JOIN LATERAL (
    SELECT (m.ordinality - 1)::int AS word_index, m.found[1] AS word,
           coalesce(sum(length(m.found[1])) OVER (ORDER BY m.ordinality
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS letters_before,
           sum(length(m.found[1])) OVER () AS letters
    FROM regexp_matches(s.text, '\S+', 'g') WITH ORDINALITY AS m (found, ordinality)
) w
WHERE s.state = 'done';

-- the segment is joined for its key: looked up by segment_id, it leads to the recording, by which attempts are found
CREATE VIEW archive.attempts AS
SELECT a.id AS attempt_id, CASE WHEN a.segment_id IS NULL THEN 'split' ELSE 'transcribe' END AS kind,
       o.name AS broadcaster, a.recording_id, r.name AS recording, s.id AS segment_id, a.attempt, a.worker_id,
       a.outcome, a.error_code, a.error_message, a.started_at, a.finished_at
FROM public.attempts a
LEFT JOIN public.segments s ON s.id = a.segment_id AND s.recording_id = a.recording_id
LEFT JOIN public.recordings r ON r.id = a.recording_id
LEFT JOIN public.broadcasters o ON o.id = a.broadcaster_id;

CREATE VIEW archive.models AS
SELECT m.id AS model_id, m.name AS model, m.weights_sha256, m.is_demo AS is_demo_model,
       m.config ->> 'layout' AS layout, (m.config ->> 'n_tensors')::int AS n_tensors,
       (m.config ->> 'n_bytes')::bigint AS size_bytes, m.created_at
FROM public.models m;

CREATE VIEW archive.coverage AS
SELECT t.recording_id, t.id AS transcript_id, r.name AS recording, r.programme, r.programme_kind, r.broadcast_on,
       o.name AS broadcaster, c.kind,
       round(c.start_sample / 16000.0, 3) AS start_s, round(c.end_sample / 16000.0, 3) AS end_s,
       round((c.end_sample - c.start_sample) / 16000.0, 3) AS duration_s,
       archive.timecode(round(c.start_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3))
           AS start_timecode,
       archive.timecode(round(c.end_sample / 16000.0 + coalesce(r.timecode_offset_ms, 0) / 1000.0, 3))
           AS end_timecode,
       c.reason
FROM public.transcripts t
LEFT JOIN public.recordings r ON r.id = t.recording_id
LEFT JOIN public.broadcasters o ON o.id = t.broadcaster_id
CROSS JOIN LATERAL (
    SELECT CASE s.state WHEN 'done' THEN 'transcribed' WHEN 'failed' THEN 'failed' ELSE 'waiting' END AS kind,
           s.start_sample, s.end_sample, s.failure_reason AS reason
    FROM public.segments s WHERE s.transcript_id = t.id
    UNION ALL
    SELECT g.kind, g.start_sample, g.end_sample, g.reason FROM public.gaps g WHERE g.transcript_id = t.id
) c
WHERE t.is_current;

CREATE VIEW archive.corrections AS
SELECT c.id AS correction_id, c.segment_id, s.transcript_id, c.recording_id, r.name AS recording, r.programme,
       r.programme_kind, o.name AS broadcaster, s.text AS transcribed, c.text AS corrected, c.is_drawn, c.is_current,
       c.corrected_by, c.created_at AS corrected_at
FROM public.corrections c
LEFT JOIN public.segments s ON s.id = c.segment_id
LEFT JOIN public.recordings r ON r.id = c.recording_id
LEFT JOIN public.broadcasters o ON o.id = c.broadcaster_id;

CREATE VIEW archive.quality_runs AS
SELECT e.id AS run_id, s.name AS held_out_set, s.content_sha256 AS set_sha256, s.n_utterances, e.purpose, e.night,
       m.name AS model, m.weights_sha256, m.is_demo AS is_demo_model, e.prompt, e.decode_settings, e.device,
       e.code_version, e.created_at, e.started_at, e.finished_at, e.abandoned_reason,
       EXISTS (SELECT FROM public.baselines b WHERE b.run_id = e.id AND b.retired_at IS NULL) AS is_baseline
FROM public.evaluation_runs e
JOIN public.held_out_sets s ON s.id = e.set_id
LEFT JOIN public.models m ON m.id = e.model_id;

CREATE VIEW archive.quality_scores AS
SELECT c.run_id, s.name AS held_out_set, m.name AS model, e.night, c.normalizer, c.n_utterances, c.n_failed,
       c.n_clusters, c.word_hits + c.word_substitutions + c.word_deletions AS n_words, c.word_hits,
       c.word_substitutions, c.word_deletions, c.word_insertions, c.insertions_on_empty,
       c.wer, c.wer_low, c.wer_high, c.cer, c.cer_low, c.cer_high, c.created_at AS scored_at
FROM public.evaluation_scores c
JOIN public.evaluation_runs e ON e.id = c.run_id
JOIN public.held_out_sets s ON s.id = e.set_id
LEFT JOIN public.models m ON m.id = e.model_id;

CREATE VIEW archive.quality_daily AS
SELECT v.night, v.question, v.subject, v.verdict, v.cause, v.sentence, m.name AS model, v.wer, v.wer_low, v.wer_high,
       v.baseline_wer, v.difference, v.difference_low, v.difference_high, v.p_value, v.effect, v.nights, v.margin,
       v.n_utterances, v.n_words, v.run_id, v.evidence
FROM public.quality_verdicts v
LEFT JOIN public.models m ON m.id = v.model_id;

CREATE VIEW archive.quality_measures AS
SELECT q.night, m.name AS model, q.unit_kind, o.name AS broadcaster, q.unit, q.measure, q.value, q.standard_error,
       q.n_segments, q.n_recordings, q.centre, q.n_nights, q.p_value, q.adjusted_p
FROM public.quality_measures q
JOIN public.models m ON m.id = q.model_id
LEFT JOIN public.broadcasters o ON o.id = q.broadcaster_id;

CREATE VIEW archive.quality_alerts AS
SELECT a.id AS alert_id, a.kind, a.subject, a.opened_night, a.opened_at, a.last_night, a.sentence, a.closed_at,
       a.closed_by, a.close_reason
FROM public.alerts a;
