-- title: Word error rate by model over time, with intervals
-- part: How good it is
-- picture: wer-over-time
--
-- Rates are fractions in the views, and percent here. The interval is the 95 % one over clusters (speakers or
-- programmes); where two intervals overlap, the nightly verdict (next question) knows more: it pairs the two runs.
SELECT night, held_out_set, model, round(100 * wer::numeric, 2) AS wer_percent,
       round(100 * wer_low::numeric, 2) AS low, round(100 * wer_high::numeric, 2) AS high, n_words
FROM archive.quality_scores
WHERE normalizer = 'basic' AND night IS NOT NULL
ORDER BY held_out_set, night;
