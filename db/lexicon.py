"""The lexicon of search: which forms of a word are found together. `db/make_lexicon.py` makes its file."""

from __future__ import annotations

import lzma
from pathlib import Path

from sqlalchemy import Connection

LEXICON_FILE = Path(__file__).with_name("lexicon_gl.tsv.xz")
"""A form and its stems per line. Made from simplemma's Galician dictionary: see `lexicon_gl.LICENSE`."""


def copy_lexicon(connection: Connection) -> None:
    """Put the lexicon's file into the table `search_lexicon`, in place of what it held. Locks the table."""
    lines = lzma.decompress(LEXICON_FILE.read_bytes()).decode()
    # "form<tab>one two" as COPY reads an array: "form<tab>{one,two}"
    rows = lines.replace("\t", "\t{").replace(" ", ",").replace("\n", "}\n")
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor:
        cursor.execute("TRUNCATE public.search_lexicon")
        # the key is built at once from all rows, which is quicker than row by row
        cursor.execute("ALTER TABLE public.search_lexicon DROP CONSTRAINT pk_search_lexicon")
        with cursor.copy("COPY public.search_lexicon (form, stems) FROM STDIN (FREEZE)") as copy:
            copy.write(rows)
        cursor.execute(
            "ALTER TABLE public.search_lexicon ADD CONSTRAINT pk_search_lexicon PRIMARY KEY (form)"
        )
        cursor.execute("ANALYZE public.search_lexicon")
