"""The lexicon of search: which forms of a word are found together. `db/make_lexicon.py` makes its file."""

from __future__ import annotations

import lzma
from pathlib import Path

from sqlalchemy import Connection

LEXICON_FILE = Path(__file__).with_name("lexicon_gl.tsv.xz")
"""A form and its stems per line. Made from simplemma's Galician dictionary: see `lexicon_gl.LICENSE`."""


def copy_lexicon(connection: Connection) -> None:
    """Put the lexicon's file into the table `search_lexicon`, in place of what it held."""
    lines = lzma.decompress(LEXICON_FILE.read_bytes()).decode()
    rows = "".join(
        f"{form}\t{{{','.join(stems.split(' '))}}}\n"
        for form, stems in (line.split("\t") for line in lines.splitlines())
    )
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor:
        cursor.execute("TRUNCATE public.search_lexicon")
        with cursor.copy("COPY public.search_lexicon (form, stems) FROM STDIN") as copy:
            copy.write(rows)
        cursor.execute("ANALYZE public.search_lexicon")
