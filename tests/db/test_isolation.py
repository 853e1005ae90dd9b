"""A login role of one broadcaster tries to see or change what is another's, or to harm the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import Connection, text

from db.connect import make_engine
from migrations.run import migrate
from tests.conftest import Databases
from tests.db.tenants import ALFA, BRAVO, MANY_WORDS, WORDS_OF_OTHERS, Tenants, drop_tenants, make_tenants

OPERATORS_VIEWS = {"quality_runs", "quality_scores", "quality_daily", "quality_alerts"}
"""Held-out sets and what is said of all production: readers of all broadcasters only."""
NOBODYS_VIEWS = {"models"}
"""Rows that are no broadcaster's, seen by every reader."""

OPEN_TABLES = {"alembic_version", "search_lexicon", "search_backfill"}
"""Inner tables with nothing of any broadcaster: no policy, and no grant either."""

CALLS = {
    "version": ["archive.version()"],
    "timecode": ["archive.timecode(1)"],
    "search": [
        "archive.search('segredo')",
        "archive.search('segredo', broadcaster => 'bravo')",
        "archive.search('bravo')",
        "archive.search('\"segredo de bravo\"')",
        "archive.search('bra*')",
        "archive.search('segredo', programme => 'segredo bravo')",
        "archive.search('segredo -alfa')",
        "archive.search('segredo', after => '999~9~999')",
    ],
    "mentions": [
        "archive.mentions('segredo')",
        "archive.mentions('segredo', 'bravo')",
        "archive.mentions('bravo')",
    ],
    "search_count": ["archive.search_count('bravo')", "archive.search_count('segredo', 'bravo')"],
}
"""Function of schema archive -> calls that ask for bravo's rows. A function without calls here fails the test."""


@pytest.fixture(scope="module")
def tenants(databases: Databases) -> Iterator[Tenants]:
    url = databases.make()
    tenants = make_tenants(make_engine(url, application_name="tests"), url)
    yield tenants
    drop_tenants(tenants)
    databases.drop(url)


@pytest.fixture
def alfa(tenants: Tenants) -> Iterator[psycopg.Connection[Any]]:
    """A session of alfa's role that has thrown off its read-only default."""
    with closing(tenants.connect(tenants.alfa)) as session:
        session.execute("SET default_transaction_read_only = off")
        yield session


def views(session: psycopg.Connection[Any]) -> list[str]:
    found = session.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'archive'::regnamespace "
        "AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1"
    ).fetchall()
    return [row[0] for row in found]


def everything(session: psycopg.Connection[Any], view: str) -> str:
    query = sql.SQL("SELECT string_agg(x::text, ' ') FROM archive.{} x").format(sql.Identifier(view))
    return str(session.execute(query).fetchone()[0] or "")


def test_a_broadcaster_sees_its_own_rows_in_every_view(tenants: Tenants) -> None:
    with (
        closing(tenants.connect(tenants.alfa)) as alfa,
        closing(tenants.connect(tenants.bravo)) as bravo,
        closing(tenants.connect(tenants.operator)) as operator,
        closing(tenants.connect(tenants.bare)) as bare,
    ):
        for view in views(alfa):
            assert everything(bare, view) == "", f"archive.{view} shows rows to a role that is nobody's"
            all_rows = everything(operator, view)
            if view in NOBODYS_VIEWS:
                assert everything(alfa, view) == all_rows != ""
                assert ALFA not in all_rows
                continue
            # a new view: give tests/db/tenants.py a row of each broadcaster for it
            assert ALFA in all_rows, f"the test has no row of alfa's in archive.{view}"
            assert BRAVO in all_rows, f"the test has no row of bravo's in archive.{view}"
            if view in OPERATORS_VIEWS:
                assert everything(alfa, view) == ""
                continue
            for session, own, other in ((alfa, ALFA, BRAVO), (bravo, BRAVO, ALFA)):
                seen = everything(session, view)
                assert own in seen, f"archive.{view} hides {own}'s own rows"
                assert other not in seen, f"archive.{view} shows {other}'s rows to {own}"
        assert "decade" in everything(operator, "quality_measures")
        assert "decade" not in everything(alfa, "quality_measures")


def test_the_operator_reads_one_broadcaster_at_will(tenants: Tenants) -> None:
    with closing(tenants.connect(tenants.operator)) as operator:
        operator.execute("PREPARE texts AS SELECT string_agg(text, ' ') FROM archive.all_segments")
        operator.execute("SET plan_cache_mode = force_generic_plan")
        for name, other in ((ALFA, BRAVO), (BRAVO, ALFA)):
            operator.execute("SELECT set_config('fonoteca.broadcaster', %s, false)", [name])
            seen = operator.execute("EXECUTE texts").fetchone()
            assert seen is not None
            assert name in seen[0]
            assert other not in seen[0]
            assert everything(operator, "quality_daily") == ""
        operator.execute("SELECT set_config('fonoteca.broadcaster', 'nobody', false)")
        assert operator.execute("EXECUTE texts").fetchone() == (None,)


def test_the_services_and_the_reader_role_itself(tenants: Tenants) -> None:
    with tenants.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM archive.segments")) == 2
        connection.execute(text("SET LOCAL ROLE archive_reader"))
        assert connection.scalar(text("SELECT count(*) FROM archive.segments")) == 0
        connection.execute(text("SET LOCAL ROLE archive_owner"))
        assert connection.scalar(text("SELECT count(*) FROM public.segments")) == 0


def test_functions_give_own_rows_only(tenants: Tenants, alfa: psycopg.Connection[Any]) -> None:
    known = alfa.execute(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'archive'::regnamespace"
    ).fetchall()
    assert {name for (name,) in known} == set(CALLS)
    for calls in CALLS.values():
        for call in calls:
            rows = str(alfa.execute(f"SELECT * FROM {call}").fetchall())
            assert BRAVO not in rows, call
    assert ALFA in str(alfa.execute("SELECT snippet FROM archive.search('segredo')").fetchall())
    assert ALFA in str(alfa.execute("SELECT broadcaster FROM archive.mentions('segredo')").fetchall())
    assert alfa.execute("SELECT n FROM archive.search_count('segredo')").fetchone() == (1,)
    assert alfa.execute("SELECT n FROM archive.search_count('bravo')").fetchone() == (0,)
    with closing(tenants.connect(tenants.bare)) as bare:
        assert bare.execute("SELECT * FROM archive.search('segredo')").fetchall() == []
        assert bare.execute("SELECT * FROM archive.mentions('segredo')").fetchall() == []


def test_nothing_inside_is_within_reach(tenants: Tenants, alfa: psycopg.Connection[Any]) -> None:
    inner = alfa.execute(
        "SELECT quote_ident(c.relname), c.relkind::text, c.relrowsecurity FROM pg_class c "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'v', 'm') ORDER BY 1"
    ).fetchall()
    assert len(inner) > 30
    for name, kind, is_protected in inner:
        attempts = [f"SELECT * FROM public.{name}"]
        if kind == "S":
            attempts += [f"SELECT nextval('public.{name}')"]
        else:
            assert is_protected or name in OPEN_TABLES, f"{name}: row-level security is off"
            attempts += [
                f"INSERT INTO public.{name} DEFAULT VALUES",
                f"DELETE FROM public.{name}",
                f"TRUNCATE public.{name}",
                f"COPY public.{name} TO STDOUT",
                f"SELECT * FROM ts_stat('SELECT to_tsvector(x::text) FROM public.{name} x')",
            ]
        for attempt in attempts:
            with pytest.raises(errors.InsufficientPrivilege):
                alfa.execute(attempt)
        if kind != "S":
            with pytest.raises(errors.InsufficientPrivilege), alfa.transaction():
                alfa.execute(f"LOCK TABLE public.{name} IN ACCESS SHARE MODE")
    callable_inside = alfa.execute(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
        "AND has_function_privilege(oid, 'EXECUTE')"
    ).fetchall()
    assert callable_inside == [("visible_broadcasters",)]
    with tenants.engine.connect() as connection:
        unsafe = connection.scalars(
            text(
                "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef "
                "AND pronamespace IN ('public'::regnamespace, 'archive'::regnamespace) "
                "AND NOT coalesce(proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)"
            )
        ).all()
        assert unsafe == [], "SECURITY DEFINER without a fixed search_path"
        owners = connection.scalars(
            text(
                "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class "
                "WHERE relnamespace = 'archive'::regnamespace AND relkind <> 'c'"
            )
        ).all()
        assert owners == ["archive_owner"]
        to_public = connection.scalars(
            text(
                "SELECT oid::regclass::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, "
                "'archive'::regnamespace) AND relkind <> 'i' AND relacl::text ~ '[{,]=' "
                "UNION ALL SELECT oid::regprocedure::text FROM pg_proc "
                "WHERE pronamespace IN ('public'::regnamespace, 'archive'::regnamespace) "
                "AND has_function_privilege('public', oid, 'EXECUTE')"
            )
        ).all()
        assert to_public == []


@pytest.mark.parametrize("condition", ["text LIKE '%bravo%'", "broadcaster = 'bravo'", "programme ~ 'bravo'"])
def test_conditions_that_raise_see_own_rows_only(alfa: psycopg.Connection[Any], condition: str) -> None:
    alfa.execute(
        f"SELECT * FROM archive.segments WHERE 1 / (CASE WHEN {condition} THEN 0 ELSE 1 END) = 1"
    ).fetchall()
    with pytest.raises(errors.InvalidTextRepresentation) as raised:
        alfa.execute("SELECT * FROM archive.all_segments WHERE text::int = 1")
    assert ALFA in str(raised.value)
    with pytest.raises(errors.InvalidTextRepresentation) as raised:
        alfa.execute("SELECT * FROM archive.recordings ORDER BY recording::int")
    assert ALFA in str(raised.value)


def test_functions_of_ones_own_see_own_rows_only(tenants: Tenants, alfa: psycopg.Connection[Any]) -> None:
    """Where temporary objects and code could not be taken from everybody, as on a managed server."""
    with pytest.raises(errors.InsufficientPrivilege):
        alfa.execute("CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE sql RETURN true")
    with pytest.raises(errors.InsufficientPrivilege):
        alfa.execute("DO $$ BEGIN PERFORM 1; END $$")
    with tenants.engine.begin() as connection:
        database = connection.scalar(text("SELECT quote_ident(current_database())"))
        connection.execute(text(f"GRANT TEMPORARY ON DATABASE {database} TO {tenants.alfa}"))
        connection.execute(text(f"GRANT USAGE ON LANGUAGE plpgsql TO {tenants.alfa}"))
    told: list[str] = []
    alfa.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
    alfa.execute(
        "CREATE FUNCTION pg_temp.tell(content text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ "
        "BEGIN RAISE NOTICE '%', content; RETURN true; END $$"
    )
    alfa.execute(
        "CREATE FUNCTION pg_temp.tell(content text, other text) RETURNS boolean LANGUAGE sql COST 0.0000001 "
        "RETURN pg_temp.tell(content)"
    )
    alfa.execute("CREATE OPERATOR pg_temp.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.tell)")
    for view, column in (
        ("segments", "text"),
        ("all_segments", "text"),
        ("segments", "corrected_text"),
        ("words", "word"),
        ("recordings", "recording"),
        ("batches", "batch"),
        ("broadcasters", "broadcaster"),
        ("attempts", "error_message"),
        ("coverage", "reason"),
        ("corrections", "corrected"),
        ("transcripts", "recording"),
        ("quality_measures", "unit"),
        ("quality_daily", "sentence"),
    ):
        alfa.execute(f"SELECT * FROM archive.{view} WHERE pg_temp.tell({column})")
        alfa.execute(f"SELECT * FROM archive.{view} WHERE {column} OPERATOR(pg_temp.===) 'x'")
        alfa.execute(
            f"SELECT count(*) FROM archive.{view} a JOIN archive.{view} b ON pg_temp.tell(a.{column} || b.{column})"
        )
    with pytest.raises(psycopg.Error):
        alfa.execute(
            "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF AS 'BEGIN RETURN true; END'"
        )
    assert any(ALFA in line for line in told)
    assert not any(BRAVO in line for line in told)
    with tenants.engine.begin() as connection:
        connection.execute(text(f"REVOKE TEMPORARY ON DATABASE {database} FROM {tenants.alfa}"))
        connection.execute(text(f"REVOKE USAGE ON LANGUAGE plpgsql FROM {tenants.alfa}"))


def test_other_ways_to_ask(tenants: Tenants, alfa: psycopg.Connection[Any]) -> None:
    for query in (
        "EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT * FROM archive.segments",
        "TABLE archive.segments",
        "SELECT query_to_xml('SELECT * FROM archive.segments', true, true, '')",
        "SELECT schema_to_xml('archive', true, true, '')",
        "SELECT table_to_xml('archive.segments', true, true, '')",
        "SELECT string_agg(x::text, '') FROM archive.segments x TABLESAMPLE SYSTEM (100)",
    ):
        try:
            assert BRAVO not in str(alfa.execute(query).fetchall()), query
        except (errors.WrongObjectType, errors.FeatureNotSupported):
            assert "TABLESAMPLE" in query or "xml" in query  # not for views; not in every build
    with alfa.cursor() as cursor, cursor.copy("COPY (SELECT * FROM archive.segments) TO STDOUT") as copied:
        content = b"".join(bytes(part) for part in copied).decode()
    assert ALFA in content
    assert BRAVO not in content
    with alfa.transaction():
        alfa.execute("DECLARE texts CURSOR WITH HOLD FOR SELECT text FROM archive.segments")
    alfa.execute("PREPARE texts AS SELECT text FROM archive.segments WHERE recording_id = $1")
    alfa.execute("SET plan_cache_mode = force_generic_plan")
    assert BRAVO not in str(alfa.execute("FETCH ALL FROM texts").fetchall())
    assert alfa.execute(f"EXECUTE texts ('{tenants.bravo_recording_id}')").fetchall() == []
    # without its security a query is refused, not answered
    alfa.execute("SET row_security = off")
    with pytest.raises(errors.InsufficientPrivilege):
        alfa.execute("SELECT * FROM archive.segments")


def test_nobody_becomes_somebody_else(tenants: Tenants, alfa: psycopg.Connection[Any]) -> None:
    with tenants.engine.connect() as connection:
        owner = connection.scalar(text("SELECT current_user"))
    for role in (
        owner,
        "archive_owner",
        "archive_reader",
        tenants.bravo,
        tenants.operator,
        "pg_read_all_data",
    ):
        for attempt in (
            f"SET ROLE {role}",
            f"SET SESSION AUTHORIZATION {role}",
            f"SELECT set_config('role', '{role}', false)",
            f"SELECT set_config('session_authorization', '{role}', false)",
            f"GRANT {role} TO {tenants.alfa}",
            f"ALTER ROLE {tenants.alfa} SET role = {role}",
        ):
            with suppress(psycopg.Error):  # some are allowed, and change nothing
                alfa.execute(attempt)
            assert alfa.execute("SELECT public.visible_broadcasters() = ARRAY[1]").fetchone() == (True,), (
                attempt
            )
    for reset in ("RESET ROLE", "RESET SESSION AUTHORIZATION", "RESET ALL", "DISCARD ALL", "SET ROLE NONE"):
        alfa.execute(reset)
        assert BRAVO not in everything(alfa, "segments")
    alfa.execute("SET default_transaction_read_only = off")
    for narrowed, n_seen in ((BRAVO, 0), (ALFA, 1), ("", 1), ("alfa,bravo", 0)):
        alfa.execute("SELECT set_config('fonoteca.broadcaster', %s, false)", [narrowed])
        assert alfa.execute("SELECT count(*) FROM archive.broadcasters").fetchone() == (n_seen,)
    for change in (
        "SUPERUSER",
        "BYPASSRLS",
        "CREATEROLE",
        "REPLICATION",
        "CONNECTION LIMIT 99",
        "VALID UNTIL 'infinity'",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            alfa.execute(f"ALTER ROLE {tenants.alfa} {change}")
    with pytest.raises((errors.InsufficientPrivilege, errors.FeatureNotSupported)):
        alfa.execute(f"ALTER ROLE {tenants.alfa} RENAME TO {tenants.alfa}_x")


def test_nothing_is_written(tenants: Tenants, alfa: psycopg.Connection[Any]) -> None:
    went_through = []
    for attempt in (
        "INSERT INTO archive.broadcasters (broadcaster) VALUES ('x')",
        "UPDATE archive.segments SET text = ''",
        "UPDATE archive.models SET model = ''",
        "DELETE FROM archive.broadcasters",
        "SELECT * FROM archive.broadcasters FOR UPDATE",
        "CREATE TABLE archive.mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "SELECT 1 INTO TEMPORARY mine",
        "CREATE VIEW public.mine AS SELECT 1",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        "CREATE EXTENSION file_fdw",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "CREATE PUBLICATION mine FOR ALL TABLES",
        "CREATE SUBSCRIPTION mine CONNECTION '' PUBLICATION p WITH (connect = false)",
        "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION public.search_follow_segment()",
        "CREATE OR REPLACE VIEW archive.broadcasters AS SELECT 1",
        "ALTER VIEW archive.segments SET (security_invoker = on)",
        "DROP VIEW archive.segments",
        "COMMENT ON VIEW archive.segments IS 'x'",
        "ALTER TABLE public.segments DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON public.segments USING (true)",
        "DROP POLICY archive ON public.segments",
        "ALTER FUNCTION public.visible_broadcasters() RESET ALL",
        "ALTER SYSTEM SET log_statement = 'all'",
        "ALTER ROLE ALL SET statement_timeout = 0",
        "CHECKPOINT",
        "LOAD 'auto_explain'",
        "SET temp_file_limit = -1",
        "SET session_replication_role = replica",
        "SET log_statement = 'none'",
        "REASSIGN OWNED BY archive_owner TO CURRENT_USER",
        "DROP OWNED BY archive_owner",
        # files and programs of the server
        "COPY (SELECT 1) TO '/tmp/fonoteca-leak'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_read_binary_file('PG_VERSION')",
        "SELECT * FROM pg_ls_dir('.')",
        "SELECT * FROM pg_ls_logdir()",
        "SELECT pg_stat_file('PG_VERSION')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_statistic",
        # what everybody may do on a server as it comes
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_logical_emit_message(false, 'x', 'x')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock(1179602511, 1)",
        "SELECT pg_advisory_unlock_all()",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_stat_get_activity(NULL)",
        "SELECT pg_stat_get_backend_activity(1)",
        "SELECT * FROM pg_stat_replication",
        "SELECT pg_stat_reset()",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT pg_switch_wal()",
        "SELECT pg_create_restore_point('x')",
        "SELECT pg_create_physical_replication_slot('x')",
    ):
        try:
            alfa.execute(attempt)
            went_through.append(attempt)
        except psycopg.Error as error:
            # not allowed, or not there to be allowed
            if error.sqlstate not in ("42501", "0A000", "55000", "55006", "25006", "42P17"):
                went_through.append(f"{attempt}: {error}")
    assert went_through == []
    alfa.execute("GRANT SELECT ON archive.segments TO PUBLIC")  # only warns
    assert alfa.execute("SELECT has_table_privilege('public', 'archive.segments', 'SELECT')").fetchone() == (
        False,
    )
    for mode in ("ACCESS EXCLUSIVE", "SHARE", "ROW EXCLUSIVE"):
        with pytest.raises(errors.InsufficientPrivilege), alfa.transaction():
            alfa.execute(f"LOCK TABLE archive.segments IN {mode} MODE")
    with tenants.engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(errors.InsufficientPrivilege):
            alfa.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_the_catalogue_tells_nothing_of_others(alfa: psycopg.Connection[Any]) -> None:
    """Every relation of the system that alfa may read, statistics of columns among them, read whole."""
    relations = alfa.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace IN "
        "('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND has_table_privilege(oid, 'SELECT') "
        # large, and texts of the server itself
        "AND relname NOT IN ('pg_description', 'pg_proc', 'pg_depend', 'pg_attribute', 'pg_operator', 'pg_collation',"
        " 'pg_ts_config_map', 'columns', 'parameters', 'pg_timezone_names', 'pg_settings', 'attributes')"
    ).fetchall()
    assert len(relations) > 100
    for (relation,) in relations:
        try:
            content = alfa.execute(f"SELECT string_agg(x::text, ' ') FROM {relation} x").fetchone()
        except errors.InsufficientPrivilege:
            continue
        assert content is not None
        assert BRAVO not in (content[0] or ""), relation


def test_the_planner_knows_no_words_of_a_broadcaster(tenants: Tenants) -> None:
    """Estimates are made with statistics of all rows: EXPLAIN would spell out the words of others."""
    with tenants.engine.connect() as connection:
        told = connection.execute(
            text(
                "SELECT DISTINCT s.tablename, s.attname FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename "
                "AND c.relnamespace = 'public'::regnamespace WHERE s.schemaname = 'public' "
                "AND coalesce((SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = c.oid), c.oid) IN "
                "(SELECT oid FROM pg_class WHERE has_table_privilege('archive_owner', oid, 'SELECT')) "
                "AND concat(s.most_common_vals, s.histogram_bounds, s.most_common_elems) ~ 'alfa|bravo' ORDER BY 1, 2"
            )
        ).all()
    # whether there is a broadcaster of a name can be found out: docs/sql-access.md says so
    assert [tuple(row) for row in told] == [("broadcasters", "name")]


def test_explain_does_not_spell_out_others_words(tenants: Tenants) -> None:
    with tenants.engine.connect() as connection:  # nothing of it is committed
        connection.execute(text(MANY_WORDS))
        for view, columns in WORDS_OF_OTHERS.items():
            for column in columns:
                for operator in ("=", "^@", "<"):
                    estimates = set()
                    for value in (
                        "un segredo de bravo",
                        "un segredo de brazo",
                        "un segredo de b",
                        "un segredo de c",
                    ):
                        connection.execute(text("SET LOCAL ROLE " + tenants.alfa))
                        plan = connection.scalar(
                            text(
                                f"EXPLAIN (FORMAT JSON) SELECT 1 FROM archive.{view} "
                                f"WHERE {column} {operator} '{value}'"
                            )
                        )
                        connection.execute(text("RESET ROLE"))
                        estimates.add(tuple(node["Plan Rows"] for node in scans(plan[0]["Plan"])))
                    assert len(estimates) == 1, f"archive.{view}.{column} {operator}: {estimates}"


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield node
    for child in node.get("Plans", ()):
        yield from scans(child)


MANY_ROWS = """
SET LOCAL session_replication_role = replica;
INSERT INTO recordings (id, broadcaster_id, batch_id, name, priority, size_bytes)
    SELECT md5('r' || n)::uuid, 2, batch_id, 'x' || n, 1, 1
    FROM generate_series(1, 3000) n, (SELECT batch_id FROM recordings LIMIT 1) r;
INSERT INTO transcripts (id, broadcaster_id, recording_id, is_current, splitter_version, code_version, duration_samples,
                         transcribed_samples, no_speech_samples, failed_samples, finished_at)
    SELECT md5('t' || n)::uuid, 2, md5('r' || n)::uuid, true, '1', '1', 1, 1, 0, 0, now() - n * interval '1 day'
    FROM generate_series(1, 3000) n;
INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample, state, priority,
                      text, finished_at)
    SELECT 2, md5('r' || n)::uuid, md5('t' || n)::uuid, k, k, k + 1, 'done', 1, repeat('a', 400),
           now() - n * interval '1 day'
    FROM generate_series(1, 3000) n, generate_series(0, 3) k;
INSERT INTO gaps (transcript_id, start_sample, end_sample, broadcaster_id, kind)
    SELECT md5('t' || n)::uuid, 5, 6, 2, 'no_speech' FROM generate_series(1, 3000) n;
INSERT INTO attempts (broadcaster_id, recording_id, segment_id, attempt, worker_id)
    SELECT 2, recording_id, id, 1, 1 FROM segments WHERE text ^@ 'aaa';
INSERT INTO corrections (broadcaster_id, recording_id, segment_id, text, is_drawn, is_current, corrected_by)
    SELECT 2, recording_id, id, '', false, true, '' FROM segments WHERE text ^@ 'aaa';
ANALYZE recordings, transcripts, segments, gaps, attempts, corrections
"""
"""Rows that take up some room, in a transaction that nobody else sees."""


def test_lookups_use_indexes_through_the_policies(tenants: Tenants) -> None:
    """A condition that is not leakproof, or a view that is in its way, would read every segment of the archive."""
    recording, segment = f"'{tenants.bravo_recording_id}'", tenants.bravo_segment_id
    recently = "finished_at > now() - interval '1 day'"
    large = {"recordings", "transcripts", "segments", "gaps", "attempts", "corrections"}
    with tenants.engine.connect() as connection:
        connection.exec_driver_sql(MANY_ROWS)
        connection.execute(text(f"SET LOCAL ROLE {tenants.alfa}"))
        for view, condition in (
            ("recordings", f"recording_id = {recording}"),
            ("transcripts", f"recording_id = {recording}"),
            ("transcripts", f"transcript_id = {recording}"),
            ("transcripts", recently),
            ("segments", f"segment_id = {segment}"),
            ("segments", f"segment_id BETWEEN {segment} AND {segment + 9}"),
            ("segments", f"recording_id = {recording}"),
            ("segments", f"transcript_id = {recording}"),
            ("segments", recently),
            ("all_segments", f"recording_id = {recording}"),
            ("all_segments", recently),
            ("words", f"segment_id = {segment}"),
            ("words", f"recording_id = {recording}"),
            ("coverage", f"recording_id = {recording}"),
            ("attempts", f"recording_id = {recording}"),
            ("attempts", f"segment_id = {segment}"),
            ("corrections", f"segment_id = {segment} AND is_current"),
            ("corrections", f"recording_id = {recording}"),
        ):
            plan = connection.scalar(
                text(f"EXPLAIN (FORMAT JSON) SELECT * FROM archive.{view} WHERE {condition}")
            )
            for node in scans(plan[0]["Plan"]):
                if node.get("Relation Name") in large:
                    found = "Index Cond" in node or "Recheck Cond" in node
                    assert found, f"archive.{view} WHERE {condition}: {node}"
        connection.rollback()


def test_a_step_back_leaves_no_reader_in(make_database: Callable[..., str]) -> None:
    """The older views showed every broadcaster to every reader."""
    url = make_database()
    engine = make_engine(url, application_name="tests")
    tenants = make_tenants(engine, url)
    try:
        with engine.connect() as connection:
            before = rights(connection)
        migrate(engine, "0003")
        with closing(tenants.connect(tenants.alfa)) as alfa, pytest.raises(errors.InsufficientPrivilege):
            alfa.execute("SELECT * FROM archive.segments")
        with engine.connect() as connection:
            assert {row.owner for row in rights(connection)}.isdisjoint({"archive_owner"})
            assert connection.scalar(text("SELECT count(*) FROM archive.segments")) == 2
            assert not connection.scalar(text("SELECT true FROM pg_policy LIMIT 1"))
        migrate(engine)
        with engine.connect() as connection:
            assert rights(connection) == before
        with closing(tenants.connect(tenants.alfa)) as alfa:
            assert alfa.execute("SELECT count(*) FROM archive.segments").fetchone() == (1,)
    finally:
        drop_tenants(tenants)


def rights(connection: Connection) -> list[Any]:
    """Owner, grants, definition and policies of every relation and function of ours."""
    rows = connection.execute(
        text(
            """
            SELECT c.oid::regclass::text AS name, pg_get_userbyid(c.relowner) AS owner, c.relrowsecurity,
                   ARRAY(SELECT a::text FROM unnest(coalesce(c.relacl, acldefault(
                       CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a ORDER BY 1) AS granted,
                   CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END AS definition,
                   ARRAY(SELECT pg_get_expr(p.polqual, c.oid) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
                   obj_description(c.oid, 'pg_class') AS comment
            FROM pg_class c
            WHERE c.relnamespace IN ('public'::regnamespace, 'archive'::regnamespace) AND c.relkind IN ('r', 'v', 'S')
            UNION ALL
            SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner), p.prosecdef,
                   ARRAY(SELECT a::text FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) a ORDER BY 1),
                   p.prosrc, ARRAY[]::text[], obj_description(p.oid, 'pg_proc')
            FROM pg_proc p WHERE p.pronamespace IN ('public'::regnamespace, 'archive'::regnamespace)
            ORDER BY 1
            """
        )
    )
    return list(rows)
