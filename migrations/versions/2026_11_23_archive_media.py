"""What media files say of themselves, and which sound track was taken, in `archive.recordings`.

Revision: 0014, after 0013. The view alone, in a transaction of its own: who reads it holds the view before the tables,
and a migration that held a table and waited for the view would close a circle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

FOLDER = Path(__file__).resolve().parent

BEFORE = "r.created_at AS submitted_at, r.received_at, r.finished_at\n"
ADDED = """,
       r.audio_track AS audio_track_choice, (r.media_info ->> 'audio_track')::int AS audio_track,
       (r.media_info ->> 'n_audio_tracks')::int AS n_audio_tracks, r.media_info ->> 'title' AS file_title,
       r.media_info ->> 'programme' AS file_programme, r.media_info ->> 'date' AS file_date,
       r.media_info ->> 'timecode' AS file_timecode
"""

COMMENTS = {
    "timecode_offset_s": "What the clock showed at its first sample, in seconds: 36000 is 10:00:00; as submitted, else "
    "by the file''s own timecode; NULL where neither says (timecodes then begin at 0).",
    "audio_track_choice": "The sound track asked for: auto (the one with the most speech), mix (all of them), or its "
    "number, counted from 0.",
    "audio_track": "The sound track that was transcribed, counted from 0; NULL where all were mixed, and until it is "
    "split.",
    "n_audio_tracks": "Sound tracks in the original file; NULL until it is split.",
    "file_title": "Title, as a tag of the original file says it; NULL where none does.",
    "file_programme": "Programme (or album), as a tag of the original file says it; NULL where none does.",
    "file_date": "Date or year, as a tag of the original file says it, in whatever form; NULL where none does.",
    "file_timecode": "Timecode of the first moment, as the original file says it; NULL where it says none, or 0.",
}


def statement_of(script: str, begin: str) -> str:
    """The statement of a script that begins so."""
    at = script.index(begin)
    return script[at : script.index(";\n", at) + 2]


def view_before() -> str:
    return statement_of((FOLDER / "archive_contract.sql").read_text(), "CREATE VIEW archive.recordings AS")


@contextmanager
def as_owner() -> Iterator[None]:
    """What is done belongs to the views' owner, who may make one meanwhile."""
    op.execute("GRANT CREATE ON SCHEMA archive TO archive_owner")
    op.execute("SET LOCAL ROLE archive_owner")
    yield
    op.execute("RESET ROLE")
    op.execute("REVOKE CREATE ON SCHEMA archive FROM archive_owner")


def upgrade() -> None:
    view = view_before().replace(BEFORE, BEFORE.rstrip() + ADDED)
    with as_owner():
        op.execute(view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
        for column, comment in COMMENTS.items():
            op.execute(f"COMMENT ON COLUMN archive.recordings.{column} IS '{comment}'")


def downgrade() -> None:
    # columns of a view are not taken away: it is made anew, with the rights that it had
    comments = (FOLDER / "archive_contract_comments.sql").read_text()
    services = op.get_bind().exec_driver_sql("SELECT quote_ident(current_user)").scalar_one()
    with as_owner():
        op.execute("DROP VIEW archive.recordings")
        op.execute(view_before())
        op.execute(f"GRANT SELECT ON archive.recordings TO archive_reader, {services}")
        for line in comments.splitlines():
            if line.startswith(
                ("COMMENT ON VIEW archive.recordings ", "COMMENT ON COLUMN archive.recordings.")
            ):
                op.execute(line)
