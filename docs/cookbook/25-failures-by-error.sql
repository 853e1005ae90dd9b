-- title: Which attempts fail, and why?
-- part: What is under way
--
-- An attempt that failed is not a loss: most segments are transcribed on the next one. `lost` ones ended with their
-- worker; `returned` ones were given back when it was told to stop.
SELECT kind, outcome, error_code, count(*) AS n_attempts, count(DISTINCT recording_id) AS n_recordings,
       min(error_message) AS example
FROM archive.attempts
WHERE outcome IN ('failed', 'lost', 'returned')
GROUP BY kind, outcome, error_code
ORDER BY n_attempts DESC, kind, error_code;
