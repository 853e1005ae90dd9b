-- title: Which words does a programme say most?
-- part: What was said
--
-- Words as they were said, without case and punctuation; short ones are left out. Name a programme or a period: it reads
-- every word that is left.
SELECT said.word, count(*) AS n_times, count(DISTINCT w.recording_id) AS n_recordings
FROM archive.words w
CROSS JOIN LATERAL (SELECT lower(regexp_replace(w.word, '[^[:alnum:]]', '', 'g')) AS word) AS said
WHERE w.programme = 'Boletín das oito' AND length(said.word) > 4
GROUP BY said.word
ORDER BY n_times DESC, said.word
LIMIT 3;
