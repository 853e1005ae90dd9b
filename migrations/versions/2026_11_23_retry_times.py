"""When work that failed is tried again.

Revision: 0011, after 0010.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_tables

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lock_tables("segments", "recordings")
    # without a default: no row is written
    for table in ("segments", "recordings"):
        op.add_column(table, sa.Column("retry_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    lock_tables("segments", "recordings")
    for table in ("segments", "recordings"):
        op.drop_column(table, "retry_at")
