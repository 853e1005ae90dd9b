"""An index over days: a search for old days goes on at their newest segment, and not through all newer ones.

Revision: 0007, after 0006.
"""

from __future__ import annotations

from migrations.locks import create_index, drop_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index("ix_search_segments_said_on", "search_segments", ["said_on", "segment_id"])


def downgrade() -> None:
    drop_index("ix_search_segments_said_on", "search_segments")
