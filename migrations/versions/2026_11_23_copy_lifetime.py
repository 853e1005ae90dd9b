"""When a working copy expired, and the objects that are still to be removed from the store.

Revision: 0015, after 0014.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_tables

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "object_removals",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_object_removals")),
    )
    op.execute("ALTER TABLE public.object_removals ENABLE ROW LEVEL SECURITY")
    lock_tables("recordings")
    # without a default: no row is written
    op.add_column("recordings", sa.Column("working_copy_expired_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    lock_tables("recordings")
    op.drop_column("recordings", "working_copy_expired_at")
    op.drop_table("object_removals")
