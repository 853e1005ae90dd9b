-- title: Which segments should a person check first?
-- part: How good it is
--
-- A long doubtful passage is worth more than a short one, so confidence is weighted with length: `doubtful_s` grows
-- with both. What somebody has corrected already is left out. `flags` name the guards that tripped. The day is asked of
-- the transcripts, which have an index on it; segments have none.
SELECT s.recording, s.start_timecode, s.duration_s, s.confidence,
       round((1 - s.confidence) * s.duration_s, 2) AS doubtful_s, s.flags, s.text
FROM archive.transcripts t JOIN archive.segments s USING (transcript_id)
WHERE t.finished_at >= '2024-06-02' AND s.state = 'done' AND s.corrected_text IS NULL
ORDER BY doubtful_s DESC, s.recording, s.start_s
LIMIT 3;
