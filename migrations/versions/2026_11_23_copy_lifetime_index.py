"""An index by which the sweep finds working copies that are due to expire.

Revision: 0016, after 0015.
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations.locks import create_index, drop_index

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

HAS_COPY = sa.text("working_copy_key IS NOT NULL AND finished_at IS NOT NULL")


def upgrade() -> None:
    create_index("ix_recordings_copies", "recordings", ["finished_at"], postgresql_where=HAS_COPY)


def downgrade() -> None:
    drop_index("ix_recordings_copies", "recordings")
