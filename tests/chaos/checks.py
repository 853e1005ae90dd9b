"""What must hold when all is over. Each check lists what is wrong; an empty list is what a user relies on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.chaos.system import System

FINAL = ("completed", "partial", "failed", "cancelled")


@dataclass(frozen=True)
class Told:
    """What the system says of one recording."""

    state: str
    failure_code: str | None
    duration_samples: int | None
    segments: tuple[tuple[Any, ...], ...]
    """(index, start, end, text, token ids) of each."""
    gaps: tuple[tuple[Any, ...], ...]
    """(kind, start, end, reason) of each."""


def n_open(system: System, batch_ids: Sequence[str]) -> int | None:
    """Recordings of the batches that are not finished; None while the database is away."""
    rows = system.query(
        "SELECT count(*) FILTER (WHERE state <> ALL(:final)) AS n FROM recordings "
        "WHERE batch_id = ANY(CAST(:ids AS uuid[]))",
        final=list(FINAL),
        ids=list(batch_ids),
    )
    return int(rows[0].n) if rows else None


def told(system: System, batch_ids: Sequence[str]) -> dict[str, Told]:
    """What the system says of each recording of the batches, by its name."""
    rows = system.query(
        """
        SELECT r.name, r.state, r.failure_code, r.duration_samples,
               (SELECT array_agg(jsonb_build_array(s.index, s.start_sample, s.end_sample, s.text, s.token_ids)
                                 ORDER BY s.index)
                FROM segments s JOIN transcripts t ON t.id = s.transcript_id
                WHERE s.recording_id = r.id AND t.is_current) AS segments,
               (SELECT array_agg(jsonb_build_array(g.kind, g.start_sample, g.end_sample, g.reason)
                                 ORDER BY g.start_sample)
                FROM gaps g JOIN transcripts t ON t.id = g.transcript_id
                WHERE t.recording_id = r.id AND t.is_current) AS gaps
        FROM recordings r WHERE r.batch_id = ANY(CAST(:ids AS uuid[]))
        """,
        ids=list(batch_ids),
    )
    return {
        row.name: Told(
            row.state,
            row.failure_code,
            row.duration_samples,
            tuple(tuple(map(_hashable, segment)) for segment in row.segments or ()),
            tuple(tuple(gap) for gap in row.gaps or ()),
        )
        for row in rows
    }


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def differences(calm: Mapping[str, Told], found: Mapping[str, Told]) -> dict[str, list[str]]:
    """How the recordings differ from those of a run without faults: `lost` and `differing`, by name."""
    lost = [
        f"{name}: {found[name].state if name in found else 'gone'}, not {before.state}"
        for name, before in calm.items()
        if name not in found or found[name].state != before.state
    ]
    differing = [
        f"{name}: {_first_difference(before, found[name])}"
        for name, before in calm.items()
        if name in found and found[name].state == before.state and found[name] != before
    ]
    return {"lost": lost, "differing": differing}


def _first_difference(before: Told, after: Told) -> str:
    for field in ("failure_code", "duration_samples", "gaps"):
        if getattr(before, field) != getattr(after, field):
            return f"{field} {getattr(after, field)}, not {getattr(before, field)}"
    pairs = zip(before.segments, after.segments, strict=False)
    return next((f"segment {new}, not {old}" for old, new in pairs if old != new), "number of segments")


_DOUBLED_SQL = {
    "segments stored more than once": """
        SELECT r.name FROM attempts a JOIN recordings r ON r.id = a.recording_id
        WHERE a.outcome = 'done' AND a.segment_id IS NOT NULL GROUP BY r.name, a.segment_id HAVING count(*) <> 1
    """,
    "recordings split more than once": """
        SELECT r.name FROM attempts a JOIN recordings r ON r.id = a.recording_id
        WHERE a.outcome = 'done' AND a.segment_id IS NULL GROUP BY r.name, r.id HAVING count(*) <> 1
    """,
    "recordings with more than one transcript": """
        SELECT r.name FROM transcripts t JOIN recordings r ON r.id = t.recording_id
        GROUP BY r.name, r.id HAVING count(*) <> 1
    """,
    "recordings whose end was told more than once": """
        SELECT r.name FROM events e JOIN recordings r ON r.id = e.recording_id
        WHERE e.kind = ANY(ARRAY['recording.completed', 'recording.partial', 'recording.failed'])
        GROUP BY r.name, r.id HAVING count(*) <> 1
    """,
}

_LEFT_SQL = {
    "seconds not accounted for": """
        SELECT transcript_id FROM archive.transcripts
        WHERE transcribed_s + no_speech_s + failed_s IS DISTINCT FROM duration_s
    """,
    "finished recordings whose end nobody told": """
        SELECT r.name FROM recordings r WHERE r.finished_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM events e WHERE e.recording_id = r.id AND e.kind = 'recording.' || r.state)
    """,
    "segments not done": "SELECT id FROM segments WHERE state <> 'done'",
    "segments in somebody's hand": "SELECT id FROM segments WHERE worker_id IS NOT NULL",
    "recordings in somebody's hand": "SELECT name FROM recordings WHERE worker_id IS NOT NULL",
    "attempts without an end": "SELECT id FROM attempts WHERE outcome = 'running'",
    "unfinished uploads": "SELECT id FROM uploads",
    "texts that search does not find": """
        SELECT s.id FROM segments s LEFT JOIN search_segments i ON i.segment_id = s.id
        WHERE s.state = 'done' AND s.text <> '' GROUP BY s.id HAVING count(i.segment_id) <> 1
    """,
}


def doubled(system: System) -> list[str]:
    """What exists twice."""
    return _found(system, _DOUBLED_SQL)


def left_over(system: System) -> list[str]:
    """Rows that should not be there, or say something else."""
    return _found(system, _LEFT_SQL)


def _found(system: System, statements: Mapping[str, str]) -> list[str]:
    problems = []
    for what, statement in statements.items():
        with system.engine.connect() as connection:
            rows = connection.exec_driver_sql(statement).all()
        if rows:
            problems.append(f"{what}: {len(rows)}, e.g. {rows[0][0]}")
    return problems


def orphan_files(system: System) -> list[str]:
    """Files that no row knows, and rows without their file."""
    with system.engine.connect() as connection:
        known = set(
            connection.exec_driver_sql(
                "SELECT media_key FROM recordings WHERE media_key IS NOT NULL "
                "UNION SELECT working_copy_key FROM recordings WHERE working_copy_key IS NOT NULL "
                "UNION SELECT regexp_replace(working_copy_key, '.flac$', '.dat') FROM recordings "
                "WHERE working_copy_key IS NOT NULL"
            ).scalars()
        )
    media = Path(unquote(urlsplit(system.stack.storage_url).path))
    there = {str(path.relative_to(media)) for path in media.rglob("*") if path.is_file()}
    unsent = [path for path in system.stack.upload_dir.rglob("*") if path.is_file()]
    return [
        *(f"no row knows {key}" for key in sorted(there - known)),
        *(f"{key} is gone" for key in sorted(known - there)),
        *(f"upload {path.name} is left" for path in unsent),
    ]


def scratch_files(home: Path) -> list[str]:
    """What workers left in their scratch folders."""
    return [str(path.relative_to(home)) for path in (home / "scratch").rglob("*") if path.is_file()]


def processes(home: Path) -> list[str]:
    """Processes that were started for this home and still run (Linux)."""
    mark = os.fsencode(f"FONOTECA_HOME={home}")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.name != str(os.getpid()) and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(
                    f"{folder.name}: {(folder / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}"
                )
    return found
