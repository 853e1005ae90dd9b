"""Deployments: which model is in service. The newest is what workers open; older ones stay, with their evidence."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

PIN_LOCK_CLASS = 0x464F5049
"""First key ("FOPI") of the advisory locks by which pinned workers are known; the second is the id of the model that
they have open. Shared, and held as long as the worker and its connection live."""


@dataclass(frozen=True)
class Deployment:
    """A model put into service."""

    deployment_id: int
    model_id: int
    model: str
    weights_sha256: str
    is_demo: bool
    location: str
    """Folder of the checkpoint, as workers see it."""
    base: str | None
    deployed_at: dt.datetime
    deployed_by: str
    is_forced: bool
    reason: str | None
    evidence: dict[str, Any]


_SELECT = """
    SELECT d.id, d.model_id, m.name, m.weights_sha256, m.is_demo, d.location, d.base, d.deployed_at, d.deployed_by,
           d.is_forced, d.reason, d.evidence
    FROM deployments d JOIN models m ON m.id = d.model_id
"""


def deploy(
    connection: Connection,
    *,
    model_id: int,
    location: str,
    base: str | None,
    deployed_by: str,
    evidence: dict[str, Any],
    is_forced: bool = False,
    reason: str | None = None,
) -> int:
    """Put a model into service; the deployment's id. Workers notice between two pieces of work."""
    deployment_id: int = connection.execute(
        text(
            """
            INSERT INTO deployments (model_id, location, base, deployed_by, is_forced, reason, evidence)
            VALUES (:model_id, :location, :base, :deployed_by, :is_forced, :reason, CAST(:evidence AS jsonb))
            RETURNING id
            """
        ),
        {
            "model_id": model_id,
            "location": location,
            "base": base,
            "deployed_by": deployed_by,
            "is_forced": is_forced,
            "reason": reason,
            "evidence": json.dumps(evidence, allow_nan=False),
        },
    ).scalar_one()
    return deployment_id


def deployed(connection: Connection) -> Deployment | None:
    """The model in service by deployment: the newest; None while nothing was deployed."""
    row = connection.execute(text(f"{_SELECT} ORDER BY d.id DESC LIMIT 1")).one_or_none()
    return Deployment(*row) if row is not None else None


def count_pinned_workers(connection: Connection) -> dict[str, int]:
    """How many running workers follow no deployment, as FONOTECA_MODEL pins them, by the model that they have open."""
    rows = connection.execute(
        text(
            """
            SELECT m.name, count(*) AS n_workers
            FROM pg_locks l JOIN models m ON m.id = l.objid::bigint
            WHERE l.locktype = 'advisory' AND l.classid = CAST(:class AS oid) AND l.objsubid = 2 AND l.granted
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            GROUP BY m.name ORDER BY m.name
            """
        ),
        {"class": PIN_LOCK_CLASS},
    )
    return {row.name: row.n_workers for row in rows}
