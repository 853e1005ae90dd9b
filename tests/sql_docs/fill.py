"""Write the cookbook's archive into a database."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from db.broadcasters import create_broadcaster
from db.schema import SAMPLE_RATE_HZ
from tests.sql_docs.archive import (
    BAD_TAPE,
    BATCHES,
    BROADCASTERS,
    ENGINE_ERROR,
    FIRST_MODEL,
    HELD_OUT_SETS,
    NIGHTS,
    RECORDINGS,
    SCORES,
    SECOND_MODEL,
    UTC,
    Damage,
    Made,
    Say,
    Score,
    Silence,
    Span,
    june,
)


def fill(connection: Connection) -> None:
    """Write the archive into an empty, migrated database."""
    owners = {name: create_broadcaster(connection, name).id for name in BROADCASTERS}
    _fix_created(connection)
    models = {name: _add_model(connection, name) for name in (FIRST_MODEL, SECOND_MODEL)}
    worker_id: int = connection.execute(
        text(
            "INSERT INTO workers (role, host, pid, code_version, lease_until) "
            "VALUES ('gpu', 'gpu-1', 1, '0.1.0+test', now()) RETURNING id"
        )
    ).scalar_one()
    batches = {
        name: _add_batch(connection, number, name, owners[owner], priority)
        for number, (name, (owner, priority)) in enumerate(BATCHES.items(), 1)
    }
    for made in RECORDINGS:
        owner_id = owners[BATCHES[made.batch][0]]
        _Writer(connection, made, owner_id, models, worker_id).write(batches[made.batch])
    _add_quality(connection, models)


def _fix_created(connection: Connection) -> None:
    connection.execute(text("UPDATE broadcasters SET created_at = '2024-05-30 09:00+00'"))


def _add_model(connection: Connection, name: str) -> int:
    model_id: int = connection.execute(
        text(
            "INSERT INTO models (name, weights_sha256, is_demo, config, created_at) "
            "VALUES (:name, :weights, false, '{}', '2024-05-30 10:00+00') RETURNING id"
        ),
        {"name": name, "weights": ("a" if name == FIRST_MODEL else "b") * 64},
    ).scalar_one()
    return model_id


def _add_batch(connection: Connection, number: int, name: str, owner_id: int, priority: str) -> uuid.UUID:
    batch_id = uuid.UUID(f"018fcfff-0000-7000-8000-{number:012d}")
    connection.execute(
        text(
            "INSERT INTO batches (id, broadcaster_id, name, priority, request_sha256, created_at) "
            "VALUES (:id, :owner, :name, :priority, '', '2024-05-31 09:00+00')"
        ),
        {"id": batch_id, "owner": owner_id, "name": name, "priority": priority},
    )
    return batch_id


class _Writer:
    """Writes one recording with its transcripts, segments, gaps, corrections and attempts."""

    def __init__(
        self, connection: Connection, made: Made, owner_id: int, models: dict[str, int], worker_id: int
    ) -> None:
        self.connection = connection
        self.made = made
        self.owner = {"owner": owner_id, "recording": made.recording_id}
        self.models = models
        self.worker_id = worker_id

    def write(self, batch_id: uuid.UUID) -> None:
        made = self.made
        ranks = ["urgent", "normal", "archive"]
        self._run(
            """
            INSERT INTO recordings (id, broadcaster_id, batch_id, name, programme, programme_kind, broadcast_on,
                priority, state, size_bytes, sha256, media_key, duration_samples, media_info, failure_code,
                failure_reason, timecode_offset_ms, created_at, received_at, finished_at)
            SELECT :recording, :owner, :batch, :name, :programme, :kind, :broadcast_on, :priority, :state, :size_bytes,
                   decode(:sha256, 'hex'), 'key', :duration, CAST(:media_info AS jsonb), :code, :reason, :offset_ms,
                   submitted, CASE WHEN CAST(:state AS text) <> 'awaiting_media' THEN submitted + interval '1 min' END,
                   CAST(:done_at AS timestamptz)
            FROM (SELECT CASE WHEN CAST(:waits AS text) IS NULL THEN timestamptz '2024-05-31 09:00+00'
                              ELSE now() - CAST(:waits AS interval) END AS submitted) AS s
            """,
            batch=batch_id,
            name=made.name,
            programme=made.programme,
            kind=made.kind,
            broadcast_on=made.broadcast_on,
            priority=ranks.index(BATCHES[made.batch][1]),
            state=made.state,
            size_bytes=2 * _samples(made.seconds or 60),
            sha256=hashlib.sha256(str(made.sha256_of or made.number).encode()).hexdigest(),
            duration=_samples(made.seconds) or None,
            media_info=json.dumps({"container": made.name[-3:], "codec": "pcm_s16le", "channels": 1}),
            code=made.failure[0] if made.failure else None,
            reason=made.failure[1] if made.failure else None,
            offset_ms=made.timecode_offset_ms,
            done_at=made.done_at,
            waits=made.waits,
        )
        self._add_split_attempt()
        if made.older:
            replaced_at = june(1, 1, 10)
            self._add_transcript(
                made.older_transcript_id, made.older, FIRST_MODEL, replaced_at, is_current=False
            )
        if made.spans:
            self._add_transcript(made.transcript_id, made.spans, made.model, made.done_at, is_current=True)

    def _run(self, sql: str, **values: object) -> None:
        self.connection.execute(text(sql), self.owner | values)

    def _add_split_attempt(self) -> None:
        if self.made.state in ("received", "awaiting_media"):
            return
        failure = self.made.failure if self.made.state == "failed" else None
        self._run(
            """
            INSERT INTO attempts (broadcaster_id, recording_id, attempt, worker_id, outcome, error_code, error_message,
                started_at, finished_at)
            VALUES (:owner, :recording, 1, :worker, :outcome, :code, :message,
                    CAST(:at AS timestamptz) - interval '5 min', CAST(:at AS timestamptz) - interval '4 min')
            """,
            worker=self.worker_id,
            outcome="failed" if failure else "done",
            code=failure[0] if failure else None,
            message=failure[1] if failure else None,
            at=self.made.done_at or june(4, 1, 0),
        )

    def _add_transcript(
        self,
        transcript_id: uuid.UUID,
        spans: Sequence[Span],
        model: str | None,
        done_at: dt.datetime | None,
        *,
        is_current: bool,
    ) -> None:
        said = [span for span in spans if isinstance(span, Say)]
        done = [span for span in said if span.text is not None]
        sums = {
            "transcribed": sum(span.seconds for span in done),
            "no_speech": sum(span.seconds for span in spans if isinstance(span, Silence)),
            "failed": sum(
                span.seconds
                for span in spans
                if isinstance(span, Damage) or (isinstance(span, Say) and span.text is None)
            ),
        }
        self._run(
            """
            INSERT INTO transcripts (id, broadcaster_id, recording_id, is_current, model_id, splitter_version, prompt,
                code_version, duration_samples, transcribed_samples, no_speech_samples, failed_samples,
                done_segments, failed_segments, created_at, finished_at)
            VALUES (:id, :owner, :recording, :is_current, :model_id, 'silero-1', 'Transcribe the audio clip into text.',
                '0.1.0+test', :duration, :transcribed, :no_speech, :failed, :n_done, :n_failed,
                coalesce(CAST(:done_at AS timestamptz), now()), :done_at)
            """,
            id=transcript_id,
            is_current=is_current,
            model_id=self.models.get(model or ""),
            duration=_samples(sum(span.seconds for span in spans)),
            done_at=done_at,
            n_done=len(done) if done_at else None,
            n_failed=len(said) - len(done) if done_at else None,
            **{name: _samples(seconds) if done_at else None for name, seconds in sums.items()},
        )
        for index, (start, span) in enumerate(_placed(spans, Say)):
            assert isinstance(span, Say)
            self._add_segment(transcript_id, index, start, span, done_at or june(4, 1, 0))
        for start, gap in _placed(spans, (Silence, Damage)):
            is_damage = isinstance(gap, Damage)
            self._run(
                "INSERT INTO gaps (broadcaster_id, transcript_id, kind, start_sample, end_sample, reason) "
                "VALUES (:owner, :transcript, :kind, :start, :end, :reason)",
                transcript=transcript_id,
                kind="failed" if is_damage else "no_speech",
                start=_samples(start),
                end=_samples(start + gap.seconds),
                reason=BAD_TAPE if is_damage else None,
            )

    def _add_segment(
        self, transcript_id: uuid.UUID, index: int, start: float, say: Say, at: dt.datetime
    ) -> None:
        is_failed = say.text is None and not say.is_waiting
        segment_id = self.connection.execute(
            text(
                """
                INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                    state, priority, text, mean_logprob, flags, failure_code, failure_reason, finished_at)
                VALUES (:owner, :recording, :transcript, :index, :start, :end, :state, 1, :said, :logprob, :flags,
                    :code, :reason, :at)
                RETURNING id
                """
            ),
            self.owner
            | {
                "transcript": transcript_id,
                "index": index,
                "start": _samples(start),
                "end": _samples(start + say.seconds),
                "state": "pending" if say.is_waiting else "failed" if is_failed else "done",
                "said": say.text,
                "logprob": None if say.text is None else math.log(say.confidence),
                "flags": list(say.flags),
                "code": "engine_error" if is_failed else None,
                "reason": ENGINE_ERROR if is_failed else None,
                "at": None if say.is_waiting else at,
            },
        ).scalar_one()
        last = ("failed", "engine_error", ENGINE_ERROR) if is_failed else ("done", None, None)
        attempts = [] if say.is_waiting else [*say.failures, last]
        for number, (outcome, code, message) in enumerate(attempts, 1):
            self._run(
                """
                INSERT INTO attempts (broadcaster_id, recording_id, segment_id, attempt, worker_id, outcome, error_code,
                    error_message, started_at, finished_at)
                VALUES (:owner, :recording, :segment, :attempt, :worker, :outcome, :code, :message,
                        CAST(:at AS timestamptz) - interval '10 s', :at)
                """,
                segment=segment_id,
                attempt=number,
                worker=self.worker_id,
                outcome=outcome,
                code=code,
                message=message,
                at=at,
            )
        for number, corrected in enumerate(say.corrected, 1):
            self._run(
                """
                INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, is_current,
                    corrected_by, created_at)
                VALUES (:owner, :recording, :segment, :said, :is_drawn, :is_current, 'ana',
                        timestamptz '2024-06-04 10:00+00' + :number * interval '1 min')
                """,
                segment=segment_id,
                said=corrected,
                is_drawn=say.is_drawn,
                is_current=number == len(say.corrected),
                number=number,
            )


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _placed(spans: Sequence[Span], kinds: type | tuple[type, ...]) -> Iterator[tuple[float, Span]]:
    """Spans of these kinds with the second that each begins at."""
    start = 0.0
    for span in spans:
        if isinstance(span, kinds):
            yield start, span
        start += span.seconds


def _add_quality(connection: Connection, models: dict[str, int]) -> None:
    sets = {
        name: connection.execute(
            text(
                "INSERT INTO held_out_sets (name, content_sha256, n_utterances, duration_samples) "
                "VALUES (:name, :name, 200, 16000000) RETURNING id"
            ),
            {"name": name},
        ).scalar_one()
        for name in HELD_OUT_SETS
    }
    for night in NIGHTS:
        connection.execute(
            text(
                "INSERT INTO quality_nights (night, state, from_at, until_at, begun_at, finished_at) VALUES (:night, "
                "'done', :until - interval '1 day', :until, :until, :until + interval '1 hour')"
            ),
            {"night": night, "until": dt.datetime.combine(night, dt.time(2, 30), UTC)},
        )
    for number, score in enumerate(SCORES, 1):
        _add_score(connection, number, score, sets[score.held_out_set], models[score.model])
    connection.execute(
        text(
            """
            INSERT INTO quality_verdicts (night, question, subject, verdict, cause, sentence, model_id, nights,
                n_utterances, n_words, evidence)
            VALUES (:night, 'drift', 'production', 'watch', 'not_measured', 'Too few corrections to tell.', :model_id,
                0, 7, 60, '{}')
            """
        ),
        {"night": NIGHTS[-1], "model_id": models[SECOND_MODEL]},
    )


def _add_score(connection: Connection, number: int, score: Score, set_id: int, model_id: int) -> None:
    rate = score.n_errors / score.n_words
    values = {
        "run": uuid.UUID(f"018fd003-0000-7000-8000-{number:012d}"),
        "night": score.night,
        "set_id": set_id,
        "model_id": model_id,
        "at": dt.datetime.combine(score.night, dt.time(3), UTC),
        "hits": score.n_words - score.n_errors,
        "errors": score.n_errors,
        "n_words": score.n_words,
        "wer": rate,
        "low": rate - score.half_width,
        "high": rate + score.half_width,
        "set": score.held_out_set,
        "verdict": score.verdict,
        "sentence": score.sentence,
        "cause": "nothing" if score.verdict == "ok" else "one_night",
    }
    for statement in (
        """
        INSERT INTO evaluation_runs (id, set_id, purpose, night, model_id, created_at, started_at, finished_at)
        VALUES (:run, :set_id, 'nightly', :night, :model_id, :at, :at, :at)
        """,
        """
        INSERT INTO evaluation_scores (run_id, normalizer, n_utterances, n_failed, n_clusters, word_hits,
            word_substitutions, word_deletions, word_insertions, character_hits, character_substitutions,
            character_deletions, character_insertions, insertions_on_empty, wer, wer_low, wer_high, created_at)
        VALUES (:run, 'basic', 200, 0, 20, :hits, :errors, 0, 0, 0, 0, 0, 0, 0, :wer, :low, :high, :at)
        """,
        """
        INSERT INTO quality_verdicts (night, question, subject, verdict, cause, sentence, model_id, run_id, wer,
            wer_low, wer_high, nights, n_utterances, n_words, evidence)
        VALUES (:night, 'regression', :set, :verdict, :cause, :sentence, :model_id, :run, :wer, :low, :high, 0, 200,
            :n_words, '{}')
        """,
    ):
        connection.execute(text(statement), values)
