-- title: Where do two models read the same recording differently?
-- part: How good it is
--
-- `archive.all_segments` holds older transcripts too. Two splitters may cut differently, so passages are matched by
-- time, not by number.
SELECT a.start_timecode, a.text AS older, b.text AS newer
FROM archive.all_segments a
JOIN archive.all_segments b
  ON b.recording_id = a.recording_id AND b.start_s < a.end_s AND b.end_s > a.start_s AND b.model = 'phi4-galician-2'
WHERE a.recording = 'boletin-2024-01-08.wav' AND a.model = 'phi4-galician' AND a.text IS DISTINCT FROM b.text
ORDER BY a.start_s, b.start_s;
