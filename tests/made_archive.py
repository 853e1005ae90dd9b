"""Finished recordings written straight into the tables, many at once: material for statistics with a known truth."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

SAMPLE_RATE_HZ = 16_000
SEGMENT_S = 10
GAP_S = 2


@dataclass(frozen=True)
class Spoken:
    """One transcribed segment of 10 s."""

    text: str
    corrected: str | None = None
    """None: nobody corrected it."""
    is_drawn: bool = True
    mean_logprob: float = -0.1
    n_tokens: int = 20
    flags: tuple[str, ...] = ()


def words(n_words: int, n_errors: int = 0, **segment: object) -> Spoken:
    """A corrected segment of `n_words`, of which the model wrote `n_errors` wrongly."""
    said = [f"palabra{index}" for index in range(n_words)]
    wrong = ["erro" if index < n_errors else word for index, word in enumerate(said)]
    return Spoken(" ".join(wrong), " ".join(said), **segment)  # type: ignore[arg-type]


def add_model(connection: Connection, name: str = "phi4-galician") -> int:
    """A model; its id."""
    model_id: int = connection.execute(
        text(
            "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES (:name, :name, false, '{}') "
            "RETURNING id"
        ),
        {"name": name},
    ).scalar_one()
    return model_id


def add_recording(
    connection: Connection,
    broadcaster_id: int,
    model_id: int,
    spoken: Sequence[Spoken],
    *,
    at: dt.datetime,
    corrected_at: dt.datetime | None = None,
    programme: str | None = None,
    kind: str | None = None,
    broadcast_on: dt.date | None = None,
) -> tuple[uuid.UUID, list[int]]:
    """A recording finished `at`, 10 s of speech and 2 s of none by turns; its id and its segments'."""
    duration = (SEGMENT_S + GAP_S) * len(spoken) * SAMPLE_RATE_HZ
    ids = connection.execute(
        text(
            """
            WITH b AS (
                INSERT INTO batches (broadcaster_id, name, request_sha256) VALUES (:owner, 'made', '') RETURNING id
            ), r AS (
                INSERT INTO recordings (broadcaster_id, batch_id, name, programme, programme_kind, broadcast_on,
                    priority, state, size_bytes, working_copy_key, duration_samples, finished_at)
                SELECT :owner, id, id::text, :programme, :kind, :broadcast_on, 1, 'completed', 1, 'made/working-1.flac',
                       :duration, :at FROM b RETURNING id
            ), t AS (
                INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, splitter_version,
                    code_version, duration_samples, transcribed_samples, no_speech_samples, failed_samples, finished_at)
                SELECT :owner, id, true, :model_id, 'made', 'made', :duration, :spoken,
                       CAST(:duration AS bigint) - :spoken, 0, :at FROM r RETURNING id, recording_id
            )
            SELECT recording_id, id AS transcript_id FROM t
            """
        ),
        {
            "owner": broadcaster_id,
            "programme": programme,
            "kind": kind,
            "broadcast_on": broadcast_on,
            "duration": duration,
            "spoken": SEGMENT_S * len(spoken) * SAMPLE_RATE_HZ,
            "model_id": model_id,
            "at": at,
        },
    ).one()
    segment_ids = list(
        connection.scalars(
            text(
                """
                INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                    state, priority, text, token_ids, mean_logprob, flags, finished_at)
                SELECT :owner, :recording_id, :transcript_id, s.place - 1, (s.place - 1) * :step,
                       (s.place - 1) * :step + :length, 'done', 1, s.said, array_fill(1, ARRAY[s.n_tokens]),
                       s.mean_logprob, string_to_array(s.flags, ','), :at
                FROM unnest(CAST(:texts AS text[]), CAST(:tokens AS int[]), CAST(:logprobs AS real[]),
                            CAST(:flags AS text[])) WITH ORDINALITY AS s(said, n_tokens, mean_logprob, flags, place)
                RETURNING id
                """
            ),
            {
                "owner": broadcaster_id,
                "recording_id": ids.recording_id,
                "transcript_id": ids.transcript_id,
                "step": (SEGMENT_S + GAP_S) * SAMPLE_RATE_HZ,
                "length": SEGMENT_S * SAMPLE_RATE_HZ,
                "at": at,
                "texts": [each.text for each in spoken],
                "tokens": [each.n_tokens for each in spoken],
                "logprobs": [each.mean_logprob for each in spoken],
                "flags": [",".join(each.flags) for each in spoken],
            },
        )
    )
    corrected = [
        (segment_id, each)
        for segment_id, each in zip(segment_ids, spoken, strict=True)
        if each.corrected is not None
    ]
    if corrected:
        connection.execute(
            text(
                """
                INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, is_current,
                    corrected_by, created_at)
                SELECT :owner, :recording_id, c.segment_id, c.said, c.is_drawn, true, 'ana', :corrected_at
                FROM unnest(CAST(:ids AS bigint[]), CAST(:texts AS text[]), CAST(:drawn AS bool[]))
                     AS c(segment_id, said, is_drawn)
                """
            ),
            {
                "owner": broadcaster_id,
                "recording_id": ids.recording_id,
                "corrected_at": corrected_at or at,
                "ids": [segment_id for segment_id, _ in corrected],
                "texts": [each.corrected for _, each in corrected],
                "drawn": [each.is_drawn for _, each in corrected],
            },
        )
    return ids.recording_id, segment_ids
