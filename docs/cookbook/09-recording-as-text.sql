-- title: A recording as plain text with timecodes
-- part: What was said
--
-- With what is missing named, so that nobody takes a gap for silence. In psql, `\pset format unaligned` and
-- `\pset tuples_only on` print it as it should stand in a file.
SELECT format('[%s] %s', archive.timecode(c.start_s + coalesce(r.timecode_offset_s, 0)),
              coalesce(s.corrected_text, s.text, format('(%s, %s s%s)', replace(c.kind, '_', ' '),
                                                        round(c.end_s - c.start_s, 1), ': ' || c.reason))) AS line
FROM archive.recordings r
JOIN archive.coverage c USING (recording_id)
LEFT JOIN archive.segments s ON s.recording_id = c.recording_id AND s.start_s = c.start_s
WHERE r.batch = 'cintas' AND r.recording = 'cinta-02.wav'
ORDER BY c.start_s;
