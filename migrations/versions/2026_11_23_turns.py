"""Turns of recordings and segments in their queues, weights of broadcasters, and work that is held back.

Revision: 0008, after 0007. What waits already has turn 0 and so comes first, in the order in which it came.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_tables

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lock_tables("segments", "recordings", "batches", "broadcasters")
    # a constant default is kept in the catalogue: no table is rewritten
    for table in ("segments", "recordings"):
        op.add_column(table, sa.Column("turn", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("broadcasters", sa.Column("weight", sa.REAL(), server_default="1", nullable=False))
    op.create_check_constraint(
        op.f("ck_broadcasters_weight_known"), "broadcasters", "weight BETWEEN 0.001 AND 1000"
    )
    for table in ("batches", "broadcasters"):
        op.add_column(table, sa.Column("paused_at", sa.DateTime(timezone=True)))
    op.add_column("recordings", sa.Column("hold", sa.Text()))
    # of a column that is new: nothing is read to check it
    op.create_check_constraint(
        op.f("ck_recordings_hold_known"), "recordings", "hold IN ('asked', 'held', 'releasing')"
    )
    op.create_table(
        "paused_queues",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("queue IN ('split', 'transcribe')", name=op.f("ck_paused_queues_queue_known")),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_paused_queues")),
    )
    op.create_table(
        "turns",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("next_turn", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("queue IN ('split', 'transcribe')", name=op.f("ck_turns_queue_known")),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_turns_broadcaster_id")
        ),
        sa.PrimaryKeyConstraint("queue", "broadcaster_id", "priority", name=op.f("pk_turns")),
    )
    for table in ("turns", "paused_queues"):
        op.execute(f"ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    lock_tables("segments", "recordings", "batches", "broadcasters")
    # what is held back waits again
    op.execute("UPDATE segments SET priority = priority - 100 WHERE state = 'pending' AND priority >= 100")
    op.drop_table("turns")
    op.drop_table("paused_queues")
    op.drop_constraint(op.f("ck_recordings_hold_known"), "recordings")
    op.drop_column("recordings", "hold")
    for table in ("batches", "broadcasters"):
        op.drop_column(table, "paused_at")
    op.drop_constraint(op.f("ck_broadcasters_weight_known"), "broadcasters")
    op.drop_column("broadcasters", "weight")
    for table in ("recordings", "segments"):
        op.drop_column(table, "turn")
