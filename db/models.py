"""Models that were run or registered: one row for a name and its weights."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class NewModel:
    """A checkpoint, as it is registered."""

    name: str
    weights_sha256: str
    is_demo: bool
    config: dict[str, Any]
    """Layout and sizes; `location` and `base`: the folders it was last opened from."""


@dataclass(frozen=True)
class ModelRow:
    """A model that is known."""

    model_id: int
    name: str
    weights_sha256: str
    is_demo: bool
    location: str | None
    """Folder it was last opened from."""
    base: str | None
    created_at: dt.datetime
    deployed_at: dt.datetime | None
    """When it was last deployed."""
    n_runs: int
    """Finished evaluation runs."""
    n_transcripts: int


def register_model(connection: Connection, model: NewModel) -> int:
    """The id of this checkpoint's row, made on first sight; its folder is noted anew."""
    model_id: int = connection.execute(
        text(
            """
            INSERT INTO models (name, weights_sha256, is_demo, config)
            VALUES (:name, :weights_sha256, :is_demo, CAST(:config AS jsonb))
            ON CONFLICT (name, weights_sha256) DO UPDATE
            SET is_demo = EXCLUDED.is_demo, config = models.config || EXCLUDED.config
            RETURNING id
            """
        ),
        {
            "name": model.name,
            "weights_sha256": model.weights_sha256,
            "is_demo": model.is_demo,
            "config": json.dumps(model.config),
        },
    ).scalar_one()
    return model_id


_SELECT = """
    SELECT m.id, m.name, m.weights_sha256, m.is_demo, m.config ->> 'location', m.config ->> 'base', m.created_at,
           (SELECT max(d.deployed_at) FROM deployments d WHERE d.model_id = m.id),
           (SELECT count(*) FROM evaluation_runs r WHERE r.model_id = m.id AND r.finished_at IS NOT NULL),
           (SELECT count(*) FROM transcripts t WHERE t.model_id = m.id)
    FROM models m
"""


def list_models(connection: Connection) -> list[ModelRow]:
    """All models, the newest first."""
    return [ModelRow(*row) for row in connection.execute(text(f"{_SELECT} ORDER BY m.id DESC"))]


@dataclass(frozen=True)
class ModelPlace:
    """A model and where it lies."""

    model_id: int
    name: str
    weights_sha256: str
    location: str | None
    base: str | None


def find_left_behind(connection: Connection, model_id: int) -> list[ModelPlace]:
    """Other models that began transcripts whose segments wait: only they can finish them."""
    rows = connection.execute(
        text(
            """
            SELECT m.id, m.name, m.weights_sha256, m.config ->> 'location', m.config ->> 'base'
            FROM models m
            WHERE m.id <> :model_id AND EXISTS (
                SELECT FROM transcripts t JOIN segments s ON s.transcript_id = t.id
                WHERE t.model_id = m.id AND t.finished_at IS NULL AND s.state = 'pending')
            ORDER BY m.id
            """
        ),
        {"model_id": model_id},
    )
    return [ModelPlace(*row) for row in rows]


def has_begun_segments(connection: Connection, model_id: int) -> bool:
    """Whether segments wait of transcripts that this model began."""
    return bool(
        connection.scalar(
            text(
                """
                SELECT EXISTS (
                    SELECT FROM transcripts t JOIN segments s ON s.transcript_id = t.id
                    WHERE t.model_id = :model_id AND t.finished_at IS NULL AND s.state = 'pending')
                """
            ),
            {"model_id": model_id},
        )
    )
