"""How many of a transcript's segments are in which state, and what became of its seconds, without counting them all.

A batch may hold hundreds of thousands of segments and is asked about every second. So a finished transcript's counts
stand in its row, where `db.finishing` put them; a transcript that no model has begun has only waiting segments, the
last one's index tells how many, and what its gaps sum to stands in its row since the split; segments are counted only
where a model is at work, which are few transcripts at any time. Transcripts of before these were stored are counted
too, the finished ones until `fill_counts` has seen them.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

COUNTS_SQL = """
    SELECT 0 AS pending, 0 AS running, t.done_segments AS done, t.failed_segments AS failed,
           t.transcribed_samples, t.no_speech_samples, t.failed_samples
    WHERE t.finished_at IS NOT NULL AND t.done_segments IS NOT NULL
    UNION ALL
    SELECT coalesce((SELECT s.index + 1 FROM segments s WHERE s.transcript_id = t.id
                     ORDER BY s.index DESC LIMIT 1), 0),
           0, 0, 0, 0, t.no_speech_gap_samples, t.failed_gap_samples
    WHERE t.finished_at IS NULL AND t.model_id IS NULL AND t.no_speech_gap_samples IS NOT NULL
    UNION ALL
    SELECT s.pending, s.running, s.done, s.failed, s.transcribed, g.no_speech, s.lost + g.failed
    FROM (SELECT count(*) FILTER (WHERE s.state = 'pending') AS pending,
                 count(*) FILTER (WHERE s.state = 'running') AS running,
                 count(*) FILTER (WHERE s.state = 'done') AS done,
                 count(*) FILTER (WHERE s.state = 'failed') AS failed,
                 coalesce(sum(s.end_sample - s.start_sample) FILTER (WHERE s.state = 'done'), 0) AS transcribed,
                 coalesce(sum(s.end_sample - s.start_sample) FILTER (WHERE s.state = 'failed'), 0) AS lost
          FROM segments s WHERE s.transcript_id = t.id AND {counted}) s,
         (SELECT coalesce(sum(g.end_sample - g.start_sample) FILTER (WHERE g.kind = 'no_speech'), 0) AS no_speech,
                 coalesce(sum(g.end_sample - g.start_sample) FILTER (WHERE g.kind = 'failed'), 0) AS failed
          FROM gaps g WHERE g.transcript_id = t.id AND {counted}) g
    WHERE {counted}
""".format(
    counted="(CASE WHEN t.finished_at IS NULL THEN t.model_id IS NOT NULL OR t.no_speech_gap_samples IS NULL "
    "ELSE t.done_segments IS NULL END)"
)
"""One row for the transcript `t` of an outer query: segments by state, and samples of what became of it."""


def fill_counts(connection: Connection, *, limit: int) -> int:
    """Store the counts of up to `limit` transcripts that finished before counts were stored; how many it did.

    Safe on a live system and run twice at once: it takes few rows, which nothing else changes any more, and skips
    those that somebody holds. Reading is right before, between and after.
    """
    return connection.execute(
        text(
            """
            WITH picked AS (
                SELECT id FROM transcripts WHERE finished_at IS NOT NULL AND done_segments IS NULL
                ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE transcripts t SET done_segments = n.done, failed_segments = n.failed
            FROM picked CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE s.state = 'done') AS done,
                       count(*) FILTER (WHERE s.state = 'failed') AS failed
                FROM segments s WHERE s.transcript_id = picked.id) n
            WHERE t.id = picked.id
            """
        ),
        {"limit": limit},
    ).rowcount
