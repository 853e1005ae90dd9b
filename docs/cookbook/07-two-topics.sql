-- title: In which recordings are two things spoken of, and where?
-- part: What was said
--
-- To have both in one segment, ask for both at once: `archive.mentions('folga acordo')`.
WITH a AS (
    SELECT s.recording_id, min(s.start_timecode) AS first_folga
    FROM archive.mentions('folga') JOIN archive.segments s USING (segment_id)
    GROUP BY s.recording_id
), b AS (
    SELECT s.recording_id, min(s.start_timecode) AS first_acordo
    FROM archive.mentions('acordo') JOIN archive.segments s USING (segment_id)
    GROUP BY s.recording_id
)
SELECT r.broadcast_on, r.programme, r.recording, a.first_folga, b.first_acordo
FROM a JOIN b USING (recording_id) JOIN archive.recordings r USING (recording_id)
ORDER BY r.broadcast_on, r.recording;
