-- Schema `archive` as revisions 0001 and 0002 left it.

DROP VIEW archive.quality_alerts, archive.quality_measures, archive.quality_daily, archive.quality_scores,
    archive.quality_runs, archive.corrections, archive.coverage, archive.models, archive.attempts, archive.words,
    archive.segments, archive.all_segments, archive.transcripts, archive.recordings, archive.batches,
    archive.broadcasters;
DROP FUNCTION archive.version();

CREATE VIEW archive.recordings AS
SELECT r.id AS recording_id, o.name AS broadcaster, r.batch_id, b.name AS batch, r.name AS recording,
       r.programme, r.state, r.failure_code, r.failure_reason,
       round(r.duration_samples / 16000.0, 3) AS duration_s,
       r.created_at AS submitted_at, r.received_at, r.finished_at,
       r.programme_kind, r.broadcast_on
FROM public.recordings r
JOIN public.batches b ON b.id = r.batch_id
JOIN public.broadcasters o ON o.id = r.broadcaster_id;
COMMENT ON VIEW archive.recordings IS 'One row per media file.';
COMMENT ON COLUMN archive.recordings.programme_kind IS 'Radio, television, interview ...: what kind of programme it is.';
COMMENT ON COLUMN archive.recordings.broadcast_on IS 'Day of the first broadcast.';

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

GRANT SELECT ON ALL TABLES IN SCHEMA archive TO archive_reader;

COMMENT ON FUNCTION archive.timecode(numeric) IS 'Seconds as hh:mm:ss.mmm.';
COMMENT ON FUNCTION archive.search IS NULL;
COMMENT ON FUNCTION archive.mentions IS NULL;
COMMENT ON FUNCTION archive.search_count IS NULL;
COMMENT ON TYPE archive.search_hit IS NULL;
COMMENT ON COLUMN archive.search_hit.rank IS NULL;
COMMENT ON COLUMN archive.search_hit.segment_id IS NULL;
COMMENT ON COLUMN archive.search_hit.recording_id IS NULL;
COMMENT ON COLUMN archive.search_hit.recording IS NULL;
COMMENT ON COLUMN archive.search_hit.broadcaster IS NULL;
COMMENT ON COLUMN archive.search_hit.programme IS NULL;
COMMENT ON COLUMN archive.search_hit.broadcast_on IS NULL;
COMMENT ON COLUMN archive.search_hit.start_s IS NULL;
COMMENT ON COLUMN archive.search_hit.end_s IS NULL;
COMMENT ON COLUMN archive.search_hit.start_timecode IS NULL;
COMMENT ON COLUMN archive.search_hit.snippet IS NULL;
COMMENT ON COLUMN archive.search_hit.model IS NULL;
COMMENT ON COLUMN archive.search_hit.is_demo_model IS NULL;
COMMENT ON COLUMN archive.search_hit.cursor IS NULL;
COMMENT ON TYPE archive.mention IS NULL;
COMMENT ON COLUMN archive.mention.segment_id IS NULL;
COMMENT ON COLUMN archive.mention.recording_id IS NULL;
COMMENT ON COLUMN archive.mention.broadcaster IS NULL;
COMMENT ON COLUMN archive.mention.programme IS NULL;
COMMENT ON COLUMN archive.mention.programme_kind IS NULL;
COMMENT ON COLUMN archive.mention.broadcast_on IS NULL;
COMMENT ON COLUMN archive.mention.said_on IS NULL;
