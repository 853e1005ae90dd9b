-- title: Which segments should a person check first?
-- part: How good it is
--
-- A long doubtful passage is worth more than a short one, so confidence is weighted with length: `doubtful_s` grows
-- with both. What somebody has corrected already is left out. `flags` name the guards that tripped.
SELECT recording, start_timecode, duration_s, confidence, round((1 - confidence) * duration_s, 2) AS doubtful_s, flags, text
FROM archive.segments
WHERE finished_at >= '2024-06-02' AND state = 'done' AND corrected_text IS NULL
ORDER BY doubtful_s DESC, recording, start_s
LIMIT 3;
