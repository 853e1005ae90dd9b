"""Schema `archive`, contract 1.0, and the rights of those who read it.

Revision: 0004, after 0003. docs/decisions/0018 says why the rights are made so.

Readers see the views, which belong to role `archive_owner`; what that role reads of the inner tables, policies
decide for whoever asks. The services connect as the tables' owner, whom policies do not concern.

Each table's policy is made in a transaction of its own: a table is locked for as long as its own change takes,
never while another is waited for. All of them can be run again, so a migration that a lock stopped is repeated.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FOLDER = Path(__file__).resolve().parent

ALL = "(SELECT public.visible_broadcasters()) IS NULL"
"""The caller reads all broadcasters. A subquery is computed once for a statement, not for every row."""
OWN = f"{ALL} OR {{column}} = ANY ((SELECT public.visible_broadcasters())::int[])"
SOME = "(SELECT public.visible_broadcasters()) IS DISTINCT FROM '{}'::int[]"

POLICIES: dict[str, str | None] = {
    "broadcasters": OWN.format(column="id"),
    "batches": OWN.format(column="broadcaster_id"),
    "recordings": OWN.format(column="broadcaster_id"),
    "transcripts": OWN.format(column="broadcaster_id"),
    "segments": OWN.format(column="broadcaster_id"),
    "gaps": OWN.format(column="broadcaster_id"),
    "attempts": OWN.format(column="broadcaster_id"),
    "corrections": OWN.format(column="broadcaster_id"),
    # a decade's measures have no broadcaster: they are of all
    "quality_measures": OWN.format(column="broadcaster_id"),
    "models": SOME,
    # held-out sets, and what is said of them and of all production, may name programmes of anybody
    "held_out_sets": ALL,
    "evaluation_runs": ALL,
    "evaluation_scores": ALL,
    "baselines": ALL,
    "quality_verdicts": ALL,
    "alerts": ALL,
    # no view reads these: without a policy, nobody but their owner does
    "api_keys": None,
    "correction_draws": None,
    "deployments": None,
    "drift_references": None,
    "events": None,
    "held_out_utterances": None,
    "messages": None,
    "predictions": None,
    "quality_nights": None,
    "quality_reports": None,
    "search_new_words": None,
    "search_segments": None,
    "search_words": None,
    "sql_users": None,
    "uploads": None,
    "workers": None,
}
"""Inner table -> whose rows `archive_owner` reads of it for the caller."""

UNMEASURED: dict[str, list[str]] = {
    "batches": ["name"],
    "recordings": [
        "name",
        "programme",
        "programme_kind",
        "media_key",
        "working_copy_key",
        "media_info",
        "failure_reason",
    ],
    "segments": ["text", "failure_reason"],
    "gaps": ["reason"],
    "attempts": ["error_message"],
    "corrections": ["text", "corrected_by"],
    "quality_measures": ["unit"],
    "held_out_sets": ["name", "content_sha256"],
    "quality_verdicts": ["subject", "sentence"],
    "alerts": ["subject", "sentence"],
}
"""Inner table -> columns with a broadcaster's words, of which the planner keeps no statistics.

It estimates with statistics of all rows, policies or not: EXPLAIN with `=`, `^@` or `<` would spell out the words of
others. No query of ours is planned by what these columns hold.
"""

PRIVATE = """
    public.recordings_check_transition, public.segments_check_transition, public.search_follow_segment,
    public.search_follow_transcript, public.search_follow_recording, public.search_fold, public.search_tokens,
    public.search_stems, public.search_unknown_stems, public.search_verb_stems, public.search_pair,
    public.search_programme_facet, public.search_day, public.search_document, public.search_snippet, public.visible_broadcasters, archive.timecode"""
"""Functions that 0001 to 0003 made and left open to PUBLIC."""

ROLES = """
DO $$ BEGIN
    CREATE ROLE archive_owner NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- roles belong to the whole server: another database of it has made the role
END $$;
DO $$ BEGIN
    -- to give views to a role one must be able to become it; a superuser always is
    IF NOT pg_has_role(current_user, 'archive_owner', 'SET') THEN
        EXECUTE format('GRANT archive_owner TO %I WITH INHERIT FALSE, SET TRUE', current_user);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'role % may not become archive_owner, which another role of this server has made', current_user
        USING ERRCODE = 'insufficient_privilege', HINT = format(
            'As a superuser: GRANT archive_owner TO %1$I WITH INHERIT FALSE, SET TRUE; '
            'GRANT archive_reader TO %1$I WITH ADMIN OPTION', current_user);
END $$;
"""

OWNERS_AND_GRANTS = """
REVOKE ALL ON ALL TABLES IN SCHEMA archive FROM PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA archive TO archive_reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA archive TO archive_reader;
-- policies are computed with the rights of whoever asks
GRANT EXECUTE ON FUNCTION public.visible_broadcasters TO archive_reader, archive_owner;

-- a view's new owner needs to be able to make one, once
GRANT USAGE, CREATE ON SCHEMA archive TO archive_owner;
DO $$ DECLARE relation regclass; BEGIN
    FOR relation IN SELECT oid FROM pg_class WHERE relnamespace = 'archive'::regnamespace AND relkind = 'v'
    LOOP
        EXECUTE format('ALTER VIEW %s OWNER TO archive_owner', relation);
    END LOOP;
END $$;
REVOKE CREATE ON SCHEMA archive FROM archive_owner;

-- the services, which owned the views so far, read on
DO $$ DECLARE services name := current_user; BEGIN
    SET LOCAL ROLE archive_owner;
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA archive TO %I', services);
    RESET ROLE;
END $$;

-- after a step back and up again: those whom 0003 knows read again
DO $$ DECLARE reader text; BEGIN
    FOR reader IN SELECT u.role_name FROM public.sql_users u JOIN pg_roles r ON r.rolname = u.role_name
    LOOP
        EXECUTE format('GRANT archive_reader TO %I WITH INHERIT TRUE, SET FALSE', reader);
    END LOOP;
END $$;
"""

NO_RIGHTS = """
-- the older views show every broadcaster to every reader: nobody made for one of them may read those
DO $$ DECLARE reader text; BEGIN
    FOR reader IN SELECT u.role_name FROM public.sql_users u JOIN pg_roles r ON r.rolname = u.role_name
    LOOP
        EXECUTE format('REVOKE archive_reader FROM %I', reader);
        IF pg_has_role(reader, 'archive_reader', 'USAGE') THEN
            RAISE EXCEPTION 'role % would read every broadcaster after this step back', reader
                USING HINT = format('Remove it first: fonoteca sql-user revoke %s', reader);
        END IF;
    END LOOP;
END $$;
"""

NO_GRANTS = """
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA archive FROM archive_reader;
REVOKE EXECUTE ON FUNCTION public.visible_broadcasters FROM archive_reader, archive_owner;
REVOKE USAGE ON SCHEMA archive FROM archive_owner;
COMMENT ON SCHEMA archive IS
    'What analysts query: stable views over the inner tables. Offsets are seconds from the start of the recording.';
"""


def protect(table: str, condition: str | None) -> str:
    """Statement that leaves of `table`, to everybody but its owner, the rows that `condition` says (None: none)."""
    steps = [
        f"ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY;",
        f"DROP POLICY IF EXISTS archive ON public.{table};",
    ]
    if condition is not None:
        steps += [
            f"CREATE POLICY archive ON public.{table} FOR SELECT TO archive_owner USING ({condition});",
            f"GRANT SELECT ON public.{table} TO archive_owner;",
        ]
    return f"DO $protect$ BEGIN {' '.join(steps)} END $protect$"


def unprotect(table: str) -> str:
    """Statement that undoes `protect`."""
    return (
        f"DO $protect$ BEGIN DROP POLICY IF EXISTS archive ON public.{table}; "
        f"ALTER TABLE public.{table} DISABLE ROW LEVEL SECURITY; "
        f"REVOKE ALL ON public.{table} FROM archive_owner; END $protect$"
    )


def leave_unmeasured(table: str) -> str:
    """Statement that drops the statistics of `table`'s columns with words, and has ANALYZE make no more.

    ANALYZE would leave those there are. Readers and writers go on meanwhile.
    """
    columns = UNMEASURED[table]
    steps = [f"ALTER TABLE public.{table} {', '.join(f'ALTER {name} SET STATISTICS 0' for name in columns)};"]
    steps += [f"PERFORM pg_clear_attribute_stats('public', '{table}', '{name}', false);" for name in columns]
    return f"DO $unmeasured$ BEGIN {' '.join(steps)} END $unmeasured$"


def measure_again(table: str) -> str:
    """Statement that undoes `leave_unmeasured`, from the next ANALYZE on."""
    return f"ALTER TABLE public.{table} " + ", ".join(
        f"ALTER {name} SET STATISTICS -1" for name in UNMEASURED[table]
    )


def upgrade() -> None:
    op.execute(ROLES)
    with op.get_context().autocommit_block():
        for table, condition in POLICIES.items():
            op.execute(protect(table, condition))
        for table in UNMEASURED:
            op.execute(leave_unmeasured(table))
    op.add_column(
        "sql_users",
        sa.Column("statement_timeout_s", sa.Integer(), server_default=sa.text("30"), nullable=False),
    )
    op.execute((FOLDER / "archive_contract.sql").read_text())
    op.execute((FOLDER / "archive_contract_comments.sql").read_text())
    op.execute(f"REVOKE EXECUTE ON FUNCTION archive.version, {PRIVATE} FROM PUBLIC")
    op.execute(OWNERS_AND_GRANTS)


def downgrade() -> None:
    op.execute(NO_RIGHTS)
    # what can be run again comes first: until the views are the older ones, readers are refused
    with op.get_context().autocommit_block():
        for table in POLICIES:
            op.execute(unprotect(table))
        for table in UNMEASURED:
            op.execute(measure_again(table))
    op.execute((FOLDER / "archive_before_contract.sql").read_text())
    op.execute(NO_GRANTS)
    op.execute(f"GRANT EXECUTE ON FUNCTION {PRIVATE} TO PUBLIC")
    op.drop_column("sql_users", "statement_timeout_s")
