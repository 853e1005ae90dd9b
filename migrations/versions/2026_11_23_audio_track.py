"""The sound track that a submitter asks for.

Revision: 0013, after 0012. Recordings of before have `auto`, which a file with one track reads as ever.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.locks import lock_tables

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lock_tables("recordings")
    # a constant default is kept in the catalogue: the table is not rewritten
    op.add_column("recordings", sa.Column("audio_track", sa.Text(), server_default="auto", nullable=False))
    # read once to check it, a second for some million recordings
    op.create_check_constraint(
        op.f("ck_recordings_audio_track_known"), "recordings", "audio_track ~ '^(auto|mix|[0-9]{1,3})$'"
    )


def downgrade() -> None:
    lock_tables("recordings")
    op.drop_constraint(op.f("ck_recordings_audio_track_known"), "recordings")
    op.drop_column("recordings", "audio_track")
