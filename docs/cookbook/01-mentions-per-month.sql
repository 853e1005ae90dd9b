-- title: How often is a place mentioned, per month and programme?
-- part: What was said
-- picture: mentions-per-month
--
-- `archive.mentions` gives every segment in which the words are said, in any inflected form, with or without accents
-- and capitals. A segment counts once, however often it says the word.
SELECT to_char(said_on, 'YYYY-MM') AS month, programme, count(*) AS n_mentions
FROM archive.mentions('Vigo', "from" => '2024-01-01', "to" => '2024-12-31')
GROUP BY month, programme
ORDER BY month, programme;
