"""What each worker process counts of its work: claims, seconds of claiming and of computing, audio transcribed.

Revision: 0012, after 0011.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_tables

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COUNTERS: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "claims": sa.BigInteger,
    "claim_s": sa.Double,
    "busy_s": sa.Double,
    "transcribed_samples": sa.BigInteger,
}


def upgrade() -> None:
    lock_tables("workers")
    # a constant default is kept in the catalogue: no table is rewritten
    for name, kind in COUNTERS.items():
        op.add_column("workers", sa.Column(name, kind(), server_default="0", nullable=False))


def downgrade() -> None:
    lock_tables("workers")
    for name in reversed(COUNTERS):
        op.drop_column("workers", name)
