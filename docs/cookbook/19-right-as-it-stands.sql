-- title: How many segments are right as they stand?
-- part: How good it is
--
-- Of those drawn at random only: segments that people choose hold more errors. Case and punctuation do not count. For
-- word error rates with intervals, see the nightly quality below.
SELECT programme_kind, count(*) AS n_drawn,
       count(*) FILTER (WHERE said.transcribed = said.corrected) AS n_right,
       round(100.0 * count(*) FILTER (WHERE said.transcribed = said.corrected) / count(*), 1) AS right_percent
FROM archive.corrections c
CROSS JOIN LATERAL (
    SELECT trim(regexp_replace(lower(c.transcribed), '[^[:alnum:]]+', ' ', 'g')) AS transcribed,
           trim(regexp_replace(lower(c.corrected), '[^[:alnum:]]+', ' ', 'g')) AS corrected
) AS said
WHERE c.is_current AND c.is_drawn
GROUP BY programme_kind
ORDER BY programme_kind;
