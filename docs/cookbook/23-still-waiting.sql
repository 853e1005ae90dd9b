-- title: What still waits, and for how long?
-- part: What is under way
--
-- `awaiting_media`: announced, but the file has not arrived. `received`: to be split. `transcribing`: in the queue of
-- the GPU workers.
SELECT r.broadcaster, b.priority, r.state, count(*) AS n_recordings,
       date_trunc('hour', now() - min(r.submitted_at)) AS oldest
FROM archive.recordings r JOIN archive.batches b USING (batch_id)
WHERE r.state IN ('awaiting_media', 'received', 'splitting', 'transcribing')
GROUP BY r.broadcaster, b.priority, r.state
ORDER BY oldest DESC;
