-- title: Who covers a topic more?
-- part: What was said
--
-- Counts alone favour whoever is on air longer, so this divides by hours of speech. Those are summed when a transcript
-- is finished (`transcribed_s`): no segment has to be read for them.
WITH speech AS (
    SELECT r.broadcaster, r.programme, sum(t.transcribed_s) / 3600 AS hours
    FROM archive.transcripts t JOIN archive.recordings r USING (recording_id)
    WHERE t.is_current AND t.transcribed_s > 0
    GROUP BY r.broadcaster, r.programme
), mentions AS (
    SELECT broadcaster, programme, count(*) AS n_mentions
    FROM archive.mentions('folga')
    GROUP BY broadcaster, programme
)
SELECT s.broadcaster, s.programme, coalesce(m.n_mentions, 0) AS n_mentions, round(s.hours, 3) AS hours_of_speech,
       round(coalesce(m.n_mentions, 0) / s.hours, 1) AS mentions_per_hour
FROM speech s
LEFT JOIN mentions m ON m.broadcaster = s.broadcaster AND m.programme IS NOT DISTINCT FROM s.programme
ORDER BY mentions_per_hour DESC, s.broadcaster, s.programme;
