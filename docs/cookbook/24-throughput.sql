-- title: How much is transcribed per day, and how fast?
-- part: What is under way
--
-- Seconds of speech per clock hour in which anything was done: hours without work do not count against the workers.
SELECT a.finished_at::date AS day, count(*) AS n_segments, round(sum(s.duration_s), 1) AS speech_s,
       count(DISTINCT date_trunc('hour', a.finished_at)) AS hours_worked,
       round(sum(s.duration_s) / count(DISTINCT date_trunc('hour', a.finished_at)), 1) AS speech_s_per_hour
FROM archive.attempts a JOIN archive.all_segments s USING (segment_id)
WHERE a.outcome = 'done' AND a.started_at >= '2024-06-01' AND a.started_at < '2024-07-01'
GROUP BY day
ORDER BY day;
