-- title: How much silence and music is there, by decade?
-- part: What the archive holds
-- picture: no-speech-by-decade
--
-- No speech is silence, music and noise together: the splitter keeps what somebody says and does not tell the rest
-- apart. Only finished transcripts, so that the shares add up to 100.
SELECT coalesce(to_char(date_trunc('decade', r.broadcast_on), 'YYYY"s"'), 'unknown') AS decade,
       round(sum(t.duration_s) / 60, 1) AS minutes,
       round(100 * sum(t.transcribed_s) / sum(t.duration_s), 1) AS transcribed_percent,
       round(100 * sum(t.no_speech_s) / sum(t.duration_s), 1) AS no_speech_percent,
       round(100 * sum(t.failed_s) / sum(t.duration_s), 1) AS failed_percent
FROM archive.transcripts t JOIN archive.recordings r USING (recording_id)
WHERE t.is_current AND t.finished_at IS NOT NULL
GROUP BY decade
ORDER BY decade;
