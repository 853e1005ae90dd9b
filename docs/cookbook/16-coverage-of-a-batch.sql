-- title: What became of a batch, and what failed, with reasons?
-- part: How good it is
--
-- Every second of every recording that could be opened, and below them the recordings that could not.
SELECT c.kind, c.reason, count(DISTINCT c.recording_id) AS n_recordings, sum(c.duration_s) AS seconds,
       round(100 * sum(c.duration_s) / sum(sum(c.duration_s)) OVER (), 1) AS percent
FROM archive.coverage c JOIN archive.recordings r USING (recording_id)
WHERE r.batch = 'cintas'
GROUP BY c.kind, c.reason
UNION ALL
SELECT 'not opened', failure_reason, count(*), NULL, NULL
FROM archive.recordings
WHERE batch = 'cintas' AND state = 'failed' AND duration_s IS NULL
GROUP BY failure_reason
ORDER BY seconds DESC NULLS LAST, reason;
