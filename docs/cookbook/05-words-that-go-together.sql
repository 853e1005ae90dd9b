-- title: Which words go together with a topic?
-- part: What was said
--
-- `lift` says how many times as often a word is said in segments about the topic as in all segments of the same year.
-- It reads every word of the period: name a period, a programme or both.
WITH topic AS (
    SELECT segment_id FROM archive.mentions('folga', "from" => '2024-01-01', "to" => '2024-12-31')
), year AS (
    SELECT s.segment_id, s.segment_id IN (SELECT segment_id FROM topic) AS is_topic
    FROM archive.segments s
    WHERE s.broadcast_on BETWEEN '2024-01-01' AND '2024-12-31' AND s.text IS NOT NULL
), said AS (
    SELECT w.word, count(DISTINCT y.segment_id) FILTER (WHERE y.is_topic) AS n_topic,
           count(DISTINCT y.segment_id) AS n_all
    FROM year y
    JOIN LATERAL (
        SELECT lower(regexp_replace(word, '[^[:alnum:]]', '', 'g')) AS word FROM archive.words WHERE segment_id = y.segment_id
    ) AS w ON length(w.word) > 3 AND w.word !~ '^folga'
    GROUP BY w.word
)
SELECT word, n_topic, n_all,
       round((n_topic::numeric / (SELECT count(*) FROM topic)) / (n_all::numeric / (SELECT count(*) FROM year)), 2) AS lift
FROM said
WHERE n_topic >= 2
ORDER BY lift DESC, word;
