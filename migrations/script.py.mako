"""${message}

Revision: ${up_revision}, after ${down_revision | comma,n}.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.locks import create_index, lock_tables
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# On a system at work: every table that is changed goes into lock_tables() first, the busiest one foremost; no
# table is rewritten (no column type changed, no volatile default); constraints come NOT VALID and are validated
# in a later revision; indexes of tables with rows come by create_index(), in a revision that does nothing else.


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
