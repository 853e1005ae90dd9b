"""An index for ranges of time over segments: a few kilobytes that tell which part of the table to read.

Revision: 0005, after 0004.
"""

from __future__ import annotations

from migrations.locks import create_index, drop_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index(
        "ix_segments_finished_at",
        "segments",
        ["finished_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
        postgresql_ops={"finished_at": "timestamptz_minmax_multi_ops"},
    )


def downgrade() -> None:
    drop_index("ix_segments_finished_at", "segments")
