"""What a database holds besides rows, as lines of text that can be compared; and fingerprints of the rows."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text

# "our" schemas: public, archive and whatever a migration adds; not PostgreSQL's own
_SCHEMAS = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
_GRANTS = """(SELECT string_agg(concat_ws(' ', coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ', '
                    ORDER BY g.rolname NULLS FIRST, x.privilege_type)
             FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) x
             LEFT JOIN pg_roles g ON g.oid = x.grantee)"""

CATALOGUE_SQL = f"""
    SELECT concat_ws(' | ', 'schema', n.nspname, pg_get_userbyid(n.nspowner),
                     {_GRANTS.format(acl="n.nspacl", kind="n", owner="n.nspowner")},
                     obj_description(n.oid, 'pg_namespace'))
    FROM pg_namespace n WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'relation', c.oid::regclass, c.relkind, pg_get_userbyid(c.relowner), c.relrowsecurity,
                     c.relforcerowsecurity, c.relpersistence, c.reloptions, c.relreplident,
                     {_GRANTS.format(acl="c.relacl", kind="r", owner="c.relowner")},
                     obj_description(c.oid, 'pg_class'), pg_get_partkeydef(c.oid),
                     pg_get_expr(c.relpartbound, c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_SCHEMAS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT concat_ws(' | ', 'sequence', c.oid::regclass, pg_get_userbyid(c.relowner), s.seqtypid::regtype, s.seqstart,
                     s.seqincrement, s.seqmax, {_GRANTS.format(acl="c.relacl", kind="s", owner="c.relowner")})
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
    WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'column', a.attrelid::regclass,
                     row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
                     format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attacl,
                     a.attstattarget, pg_get_expr(d.adbin, d.adrelid), nullif(a.attcollation, 0)::regcollation,
                     col_description(a.attrelid, a.attnum))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE {_SCHEMAS} AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT concat_ws(' | ', 'index', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indisclustered,
                     obj_description(i.indexrelid, 'pg_class'))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'constraint', nullif(k.conrelid, 0)::regclass, k.conname, pg_get_constraintdef(k.oid),
                     k.convalidated, k.conenforced, obj_description(k.oid, 'pg_constraint'))
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_SCHEMAS} AND NOT t.tgisinternal
    UNION ALL
    SELECT concat_ws(' | ', 'event trigger', e.evtname, e.evtevent, e.evtfoid::regproc, e.evttags)
    FROM pg_event_trigger e
    UNION ALL
    SELECT concat_ws(' | ', 'function', p.oid::regprocedure, pg_get_userbyid(p.proowner),
                     CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
                     {_GRANTS.format(acl="p.proacl", kind="f", owner="p.proowner")}, obj_description(p.oid, 'pg_proc'))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'view', c.oid::regclass, pg_get_viewdef(c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_SCHEMAS} AND c.relkind IN ('v', 'm')
    UNION ALL
    SELECT concat_ws(' | ', 'policy', p.polrelid::regclass, p.polname, p.polpermissive, p.polcmd,
                     (SELECT string_agg(r.rolname, ',' ORDER BY r.rolname) FROM pg_roles r
                      WHERE r.oid = ANY (p.polroles)),
                     pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p
    UNION ALL
    SELECT concat_ws(' | ', 'text search configuration', n.nspname, t.cfgname, m.maptokentype, m.mapseqno,
                     m.mapdict::regdictionary)
    FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace
    LEFT JOIN pg_ts_config_map m ON m.mapcfg = t.oid WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'text search dictionary', n.nspname, d.dictname, d.dictinitoption)
    FROM pg_ts_dict d JOIN pg_namespace n ON n.oid = d.dictnamespace WHERE {_SCHEMAS}
    UNION ALL
    SELECT concat_ws(' | ', 'type', t.oid::regtype, t.typtype, pg_get_userbyid(t.typowner),
                     (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e
                      WHERE e.enumtypid = t.oid))
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE {_SCHEMAS} AND t.typtype IN ('d', 'e', 'r') OR {_SCHEMAS} AND t.typtype = 'c'
      AND (SELECT relkind FROM pg_class WHERE oid = t.typrelid) = 'c'
    UNION ALL
    SELECT concat_ws(' | ', 'extension', e.extname, e.extversion) FROM pg_extension e
    UNION ALL
    SELECT concat_ws(' | ', 'extended statistics', pg_get_statisticsobjdef(s.oid)) FROM pg_statistic_ext s
    UNION ALL
    SELECT concat_ws(' | ', 'default privileges', pg_get_userbyid(d.defaclrole), d.defaclobjtype, d.defaclacl)
    FROM pg_default_acl d
    ORDER BY 1
"""


def catalogue(engine: Engine) -> list[str]:
    """Every schema, table, column, index, constraint, trigger, function, view, policy, grant, owner and comment.

    Without alembic's own table. Constraints of NOT NULL count by their column, as their names are made up.
    """
    with engine.connect() as connection:
        lines = connection.scalars(text(CATALOGUE_SQL)).all()
    return [line for line in lines if "alembic_version" not in line]


def tables(connection: Connection) -> list[str]:
    """Names of our tables with rows, without alembic's."""
    return list(
        connection.scalars(
            text(
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                f"WHERE {_SCHEMAS} AND c.relkind = 'r' AND c.relname <> 'alembic_version' ORDER BY 1"
            )
        )
    )


def columns(connection: Connection, table: str) -> list[str]:
    """Names of a table's columns, in order."""
    return list(
        connection.scalars(
            text(
                "SELECT quote_ident(attname) FROM pg_attribute "
                "WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            ),
            {"table": table},
        )
    )


def fingerprint(connection: Connection, table: str, of_columns: list[str] | None = None) -> tuple[int, int]:
    """(rows, sum of the rows' hashes) of a table: the same for the same rows in any order."""
    chosen = ", ".join(of_columns or columns(connection, table))
    row = connection.execute(
        text(
            f"SELECT count(*) AS n, coalesce(sum(hashtextextended(ROW({chosen})::text, 0)::numeric), 0) AS hash "
            f"FROM {table}"
        )
    ).one()
    return int(row.n), int(row.hash)
