"""The SQL contract as a committed file, and the one command that writes it anew:

    python -m tests.db.contract_snapshot

It refuses when a view, column or function was removed or changed and `archive.version()` still has the same first
number: those who built on the contract would find out by an error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

SNAPSHOT = Path(__file__).with_name("archive_contract.json")

Contract = dict[str, Any]


def live_contract(connection: Connection) -> Contract:
    """Schema `archive` of a database: its version, views with their columns, and functions with their rows."""
    columns = connection.execute(
        text(
            """
            SELECT c.relname AS relation, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, c.relkind
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = 'archive'::regnamespace
            ORDER BY c.relname, a.attnum
            """
        )
    ).all()
    functions = connection.execute(
        text(
            """
            SELECT proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result
            FROM pg_proc WHERE pronamespace = 'archive'::regnamespace ORDER BY proname, 2
            """
        )
    )
    relations: dict[str, dict[str, str]] = {}
    for column in columns:
        relations.setdefault(column.relation, {})[column.name] = column.type
    kinds = {column.relation: column.relkind for column in columns}
    return {
        "version": connection.scalar(text("SELECT archive.version()")),
        "views": {name: found for name, found in relations.items() if kinds[name] == "v"},
        "rows": {name: found for name, found in relations.items() if kinds[name] != "v"},
        "functions": {f"{row.proname}({row.arguments})": row.result for row in functions},
    }


def breaking_changes(old: Contract, new: Contract) -> list[str]:
    """What of `old` is gone or different in `new`, a line each. Additions are none, nor is another order of columns."""
    found = []
    for part in ("views", "rows"):
        for relation, columns in old[part].items():
            if relation not in new[part]:
                found.append(f"archive.{relation} is gone")
                continue
            for name, kind in columns.items():
                now = new[part][relation].get(name)
                if now is None:
                    found.append(f"archive.{relation}.{name} is gone")
                elif now != kind:
                    found.append(f"archive.{relation}.{name} is {now}, was {kind}")
    for function, result in old["functions"].items():
        now = new["functions"].get(function)
        if now is None:
            found.append(f"archive.{function} is gone, or takes other arguments")
        elif now != result:
            found.append(f"archive.{function} returns {now}, returned {result}")
    return found


def refusal(old: Contract, new: Contract) -> str | None:
    """Why `new` may not take the place of `old`; None when it may."""
    breaking = breaking_changes(old, new)
    if not breaking or _first_number(new) > _first_number(old):
        return None
    return (
        f"the contract breaks, and its version is still {new['version']}:\n  " + "\n  ".join(breaking) + "\n"
        "Give it back, or raise the first number of archive.version() in a new migration"
    )


def _first_number(contract: Contract) -> int:
    return int(contract["version"].split(".")[0])


def as_text(contract: Contract) -> str:
    return json.dumps(contract, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the snapshot from a database that the migrations have just made."""
    from compose.local.postgres import EmbeddedPostgres
    from db.connect import make_engine
    from migrations.run import migrate

    with tempfile.TemporaryDirectory(prefix="fonoteca-contract-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "data", folder / "run", folder / "postgres.log", durable=False)
        server.start()
        try:
            engine = make_engine(
                server.url.replace("postgresql:", "postgresql+psycopg:"), application_name="contract"
            )
            migrate(engine)
            with engine.connect() as connection:
                new = live_contract(connection)
            engine.dispose()
        finally:
            server.stop()
    if SNAPSHOT.exists() and (reason := refusal(json.loads(SNAPSHOT.read_text()), new)):
        sys.exit(reason)
    SNAPSHOT.write_text(as_text(new))
    print(f"wrote {SNAPSHOT.name}: version {new['version']}")


if __name__ == "__main__":
    main()
