-- title: What was said in the minute before each mention?
-- part: What was said
--
-- Segments that reach into the 60 seconds before the mention, put together in order. NULL: nothing was said.
WITH mentions AS (
    SELECT s.recording_id, s.recording, s.start_s, s.start_timecode, s.text
    FROM archive.mentions('Rosalía') JOIN archive.segments s USING (segment_id)
)
SELECT m.recording, m.start_timecode, m.text AS mention, before.text AS minute_before
FROM mentions m
CROSS JOIN LATERAL (
    SELECT string_agg(b.text, ' ' ORDER BY b.start_s) AS text
    FROM archive.segments b
    WHERE b.recording_id = m.recording_id AND b.start_s < m.start_s AND b.end_s > m.start_s - 60
) AS before
ORDER BY m.recording, m.start_s;
