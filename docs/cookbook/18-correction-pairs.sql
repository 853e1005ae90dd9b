-- title: Which words are corrected most often, and into what?
-- part: How good it is
--
-- Words at the same place in both texts, without case and punctuation, where both have the same number of words. Where
-- words were put in or left out, places no longer match; such segments are not looked at here.
WITH texts AS (
    SELECT correction_id,
           regexp_split_to_array(trim(regexp_replace(lower(transcribed), '[^[:alnum:]]+', ' ', 'g')), ' ') AS old,
           regexp_split_to_array(trim(regexp_replace(lower(corrected), '[^[:alnum:]]+', ' ', 'g')), ' ') AS new
    FROM archive.corrections
    WHERE is_current
)
SELECT w.old AS transcribed, w.new AS corrected, count(*) AS n_times, count(DISTINCT t.correction_id) AS n_segments
FROM texts t CROSS JOIN LATERAL unnest(t.old, t.new) AS w (old, new)
WHERE cardinality(t.old) = cardinality(t.new) AND w.old <> w.new
GROUP BY w.old, w.new
ORDER BY n_times DESC, w.old;
