"""Indexes by which work is claimed in the order of turns, in the place of those of before.

Revision: 0009, after 0008.
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations.locks import create_index, drop_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

PENDING, RECEIVED = sa.text("state = 'pending'"), sa.text("state = 'received'")
MAY_BE_SPLIT = sa.text("state = 'received' AND hold IS NULL")
MOVING = sa.text("hold IN ('asked', 'releasing')")
SUSPECT = sa.text("state = 'pending' AND losses >= 2")


def upgrade() -> None:
    create_index("ix_segments_turn", "segments", ["priority", "turn", "id"], postgresql_where=PENDING)
    create_index("ix_segments_suspect", "segments", ["priority", "turn", "id"], postgresql_where=SUSPECT)
    create_index(
        "ix_recordings_received_turn",
        "recordings",
        ["priority", "turn", "id"],
        postgresql_where=MAY_BE_SPLIT,
    )
    create_index("ix_recordings_moving", "recordings", ["id"], postgresql_where=MOVING)
    drop_index("ix_segments_pending", "segments")
    drop_index("ix_recordings_received", "recordings")


def downgrade() -> None:
    create_index("ix_segments_pending", "segments", ["priority", "id"], postgresql_where=PENDING)
    create_index(
        "ix_recordings_received", "recordings", ["priority", "received_at", "id"], postgresql_where=RECEIVED
    )
    drop_index("ix_recordings_moving", "recordings")
    drop_index("ix_recordings_received_turn", "recordings")
    drop_index("ix_segments_suspect", "segments")
    drop_index("ix_segments_turn", "segments")
