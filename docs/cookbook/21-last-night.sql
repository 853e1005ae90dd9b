-- title: What did last night say?
-- part: How good it is
--
-- What has changed comes first. `sentence` is what the report and the mail say.
SELECT night, question, subject, verdict, round(100 * wer::numeric, 2) AS wer_percent, sentence
FROM archive.quality_daily
WHERE night = (SELECT max(night) FROM archive.quality_daily)
ORDER BY array_position(ARRAY['regressed', 'watch', 'improved', 'ok'], verdict), question, subject;
