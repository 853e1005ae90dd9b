"""Make `db/lexicon_gl.tsv.xz`: which Galician forms search counts as one word.

    python -m db.make_lexicon DATABASE_URL

Two forms are one word when they have one stem. A form's stem is its lemma (simplemma's Galician dictionary) without
accents, put through PostgreSQL's Portuguese snowball stemmer. The file holds what the database does not find by itself
from the form:

- forms whose stem is another than that of the form without its accents;
- forms that only look like a verb with an attached pronoun (`perda`), so that they are not split;
- for a form that is a word only with its accents, the form as people type it without them.

Needs the extra `dev` (simplemma) and any PostgreSQL. The same package gives the same file.
"""

from __future__ import annotations

import argparse
import lzma
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg

LEXICON_FILE = Path(__file__).with_name("lexicon_gl.tsv.xz")
STEMMER = "CREATE TEXT SEARCH DICTIONARY pg_temp.stemmer (TEMPLATE = snowball, LANGUAGE = portuguese)"

PRONOUN_SHAPE = re.compile(
    "([áéíóú].*(me|te|che|lles?|[nv]os|se|l[oa]s?|n[oa]s?|[oa]s?)"
    "|(r|ndo|ou|eu|iu|ei|in|ron|ba|ra|se|n|mos|des)(me|te|che|lles?|[nv]os|se|l[oa]s?|nas?))$"
)
"""What the database takes for a verb with a pronoun where the lexicon knows nothing: `search_unknown_stems`."""


def fold(word: str) -> str:
    """Lower case, without accents: what `search_fold` does in the database."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(sign for sign in decomposed if not "\u0300" <= sign <= "\u036f")


def lemmas() -> dict[str, str]:
    """Every form of letters and digits alone in the dictionary, lower-case, with its lemma."""
    from simplemma.strategies.dictionaries.dictionary_factory import DefaultDictionaryFactory

    found: dict[str, str] = {}
    for form, lemma in DefaultDictionaryFactory().get_dictionary("gl").items():
        form, lemma = (item if isinstance(item, str) else item.decode() for item in (form, lemma))
        form = unicodedata.normalize("NFC", form)
        # forms written in lower case win over names of the same letters
        if form.isalnum() and (form.islower() or form.lower() not in found):
            found[form.lower()] = unicodedata.normalize("NFC", lemma)
    return found


def stems(words: set[str], connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Each word's stem, by PostgreSQL."""
    connection.execute(STEMMER)
    found: list[tuple[str, str]] = connection.execute(
        "SELECT w, (ts_lexize('pg_temp.stemmer', w))[1] FROM unnest(%s::text[]) w", [sorted(words)]
    ).fetchall()
    return dict(found)


def lexicon(connection: psycopg.Connection[Any]) -> dict[str, tuple[str, ...]]:
    """Form -> stems, for the forms whose stem is not found by stemming the form itself."""
    lemma_of = lemmas()
    unaccented: dict[str, set[str]] = defaultdict(set)
    for form, lemma in lemma_of.items():
        if fold(form) not in lemma_of:
            unaccented[fold(form)].add(fold(lemma))
    stem_of = stems({*map(fold, lemma_of), *map(fold, lemma_of.values())}, connection)
    found: dict[str, tuple[str, ...]] = {form: (stem_of[fold(lemma)],) for form, lemma in lemma_of.items()}
    found |= {form: tuple(sorted({stem_of[lemma] for lemma in all_})) for form, all_ in unaccented.items()}
    return {
        form: value
        for form, value in found.items()
        if value != (stem_of[fold(form)],) or PRONOUN_SHAPE.search(form)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("database_url")
    arguments = parser.parse_args()
    with psycopg.connect(arguments.database_url) as connection:
        found = lexicon(connection)
    lines = "".join(f"{form}\t{' '.join(value)}\n" for form, value in sorted(found.items()))
    LEXICON_FILE.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{LEXICON_FILE.name}: {len(found)} forms")  # noqa: T201


if __name__ == "__main__":
    main()
