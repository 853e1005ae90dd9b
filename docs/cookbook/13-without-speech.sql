-- title: Which recordings hold no speech at all?
-- part: What the archive holds
--
-- Nothing failed in them and nothing waits: nobody speaks, or the model heard nothing in what was taken for speech.
-- Often music, a test tone, or an empty tape.
SELECT r.broadcaster, r.programme, r.recording, t.duration_s, t.no_speech_s
FROM archive.transcripts t JOIN archive.recordings r USING (recording_id)
WHERE t.is_current AND t.finished_at IS NOT NULL AND t.failed_s = 0
  AND (t.transcribed_s = 0
       OR NOT EXISTS (SELECT FROM archive.segments s WHERE s.recording_id = t.recording_id AND s.text <> ''))
ORDER BY t.duration_s DESC, r.recording;
