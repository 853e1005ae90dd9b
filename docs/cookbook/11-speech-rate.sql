-- title: How fast do people speak, by programme, kind and decade?
-- part: What the archive holds
-- picture: speech-rate
--
-- Words per minute of transcribed speech: pauses inside a segment (up to 30 s) count as speech, gaps between segments
-- do not. It reads every segment: add `broadcast_on` or `recording_id` where the archive is large.
SELECT CASE WHEN grouping(programme) = 0 THEN 'programme' WHEN grouping(programme_kind) = 0 THEN 'kind' ELSE 'decade' END AS unit,
       coalesce(programme, programme_kind, to_char(decade, 'YYYY"s"'), 'unknown') AS name,
       round(sum(duration_s) / 60, 2) AS minutes, sum(n_words) AS n_words,
       round(60 * sum(n_words) / sum(duration_s), 1) AS words_per_minute
FROM (
    SELECT programme, programme_kind, date_trunc('decade', broadcast_on) AS decade, duration_s, n_words
    FROM archive.segments WHERE state = 'done'
) AS s
GROUP BY GROUPING SETS (programme, programme_kind, decade)
ORDER BY unit DESC, words_per_minute DESC, name;
