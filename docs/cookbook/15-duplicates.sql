-- title: Which files were sent twice?
-- part: What the archive holds
--
-- The same bytes have the same SHA-256. Copies that still wait can be cancelled before they cost GPU time.
SELECT broadcaster, left(sha256, 12) || '…' AS sha256, count(*) AS n_copies,
       array_agg(batch || '/' || recording ORDER BY submitted_at, recording) AS recordings,
       array_agg(state ORDER BY submitted_at, recording) AS states
FROM archive.recordings AS r
WHERE sha256 IS NOT NULL
GROUP BY broadcaster, r.sha256
HAVING count(*) > 1
ORDER BY n_copies DESC, 2;
