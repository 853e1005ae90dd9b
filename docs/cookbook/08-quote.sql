-- title: A quotation with its source
-- part: What was said
--
-- A phrase in quotes is found as it was said, word by word. `is_checked` tells whether a person has corrected or
-- confirmed the segment; what nobody has checked should be heard before it is printed.
SELECT format('«%s» (%s, %s, %s, %s)', coalesce(s.corrected_text, s.text), coalesce(s.programme, 'unknown programme'),
              s.broadcaster, coalesce(to_char(s.broadcast_on, 'YYYY-MM-DD'), 'undated'), s.start_timecode) AS quotation,
       s.recording, s.start_s, s.model, s.corrected_text IS NOT NULL AS is_checked
FROM archive.mentions('"lonxa de Vigo"') JOIN archive.segments s USING (segment_id)
ORDER BY s.broadcast_on, s.recording, s.start_s;
