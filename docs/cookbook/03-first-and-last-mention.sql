-- title: When was a name said for the first and the last time?
-- part: What was said
--
-- By day of broadcast, or of arrival where that is not known, and then by place in the recording.
WITH mentions AS (
    SELECT m.said_on, s.programme, s.recording, s.start_timecode, s.text,
           row_number() OVER (ORDER BY m.said_on, s.recording, s.start_s) AS number,
           count(*) OVER () AS n_mentions
    FROM archive.mentions('Vigo') m JOIN archive.segments s USING (segment_id)
)
SELECT number, said_on, programme, recording, start_timecode, text
FROM mentions
WHERE number IN (1, n_mentions)
ORDER BY number;
