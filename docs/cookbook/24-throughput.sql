-- title: How much is transcribed per day, and how fast?
-- part: What is under way
--
-- Seconds of speech per clock hour in which anything was done: hours without work do not count against the workers.
-- Replaced transcripts were work too, so this asks `all_segments`.
SELECT finished_at::date AS day, count(*) AS n_segments, round(sum(duration_s), 1) AS speech_s,
       count(DISTINCT date_trunc('hour', finished_at)) AS hours_worked,
       round(sum(duration_s) / count(DISTINCT date_trunc('hour', finished_at)), 1) AS speech_s_per_hour
FROM archive.all_segments
WHERE state = 'done' AND finished_at >= '2024-06-01' AND finished_at < '2024-07-01'
GROUP BY day
ORDER BY day;
