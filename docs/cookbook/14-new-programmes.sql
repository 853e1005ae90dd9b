-- title: Which programmes were new in a month?
-- part: What the archive holds
SELECT broadcaster, programme, min(broadcast_on) AS first_on, count(*) AS n_recordings
FROM archive.recordings
WHERE programme IS NOT NULL
GROUP BY broadcaster, programme
HAVING min(broadcast_on) >= '2024-02-01' AND min(broadcast_on) < '2024-03-01'
ORDER BY first_on, programme;
