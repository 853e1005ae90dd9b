"""What a search may be narrowed by, as a list to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

NEWEST_RECORDINGS = 2_000
"""So many are looked at: enough to name what is on air, and it costs the same in an archive of any size."""


@dataclass(frozen=True)
class Choices:
    """Suggestions, in alphabetical order; a search takes any other name as well."""

    programmes: tuple[str, ...]
    models: tuple[str, ...]


def find_choices(connection: Connection, broadcaster_id: int) -> Choices:
    """Programmes and models of the broadcaster's newest recordings."""
    row = connection.execute(
        text(
            """
            WITH newest AS (
                SELECT id, programme FROM recordings WHERE broadcaster_id = :id ORDER BY id DESC LIMIT :limit
            )
            SELECT (SELECT coalesce(array_agg(DISTINCT programme ORDER BY programme), '{}')
                    FROM newest WHERE programme IS NOT NULL) AS programmes,
                   (SELECT coalesce(array_agg(DISTINCT m.name ORDER BY m.name), '{}')
                    FROM newest n JOIN transcripts t ON t.recording_id = n.id AND t.is_current
                    JOIN models m ON m.id = t.model_id) AS models
            """
        ),
        {"id": broadcaster_id, "limit": NEWEST_RECORDINGS},
    ).one()
    return Choices(tuple(row.programmes), tuple(row.models))
