-- title: Where does somebody speak longest without a pause?
-- part: What the archive holds
--
-- Segments less than a second apart are one stretch. Good for finding speeches, sermons and readings.
WITH marked AS (
    SELECT recording_id, recording, programme, start_s, end_s, start_timecode,
           start_s - lag(end_s) OVER (PARTITION BY recording_id ORDER BY start_s) < 1 AS goes_on
    FROM archive.segments WHERE state = 'done'
), numbered AS (
    SELECT *, count(*) FILTER (WHERE goes_on IS NOT TRUE) OVER (PARTITION BY recording_id ORDER BY start_s) AS stretch
    FROM marked
)
SELECT recording, programme, min(start_timecode) AS from_timecode, max(end_s) - min(start_s) AS seconds, count(*) AS n_segments
FROM numbered
GROUP BY recording_id, recording, programme, stretch
ORDER BY seconds DESC, recording
LIMIT 4;
