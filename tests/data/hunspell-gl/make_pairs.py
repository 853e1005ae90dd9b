"""Draws the inflection pairs and look-alike lemmas of this folder from hunspell's Galician dictionary.

    python tests/data/hunspell-gl/make_pairs.py [FOLDER WITH gl_ES.dic AND gl_ES.aff]     (about a minute)

The dictionary comes with Debian's package `hunspell-gl` (README.md says which version and its licence). Running
this on the same version writes the same files. Stems are drawn without regard to how often they are said, so that
rare verbs weigh as much as `facer`: a hard sample, and one that no frequency list can flatter.
"""

from __future__ import annotations

import argparse
import difflib
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 20261122
N_NOUN_PAIRS = 1_000
N_VERB_PAIRS = 1_000
N_CLITIC_PAIRS = 500
N_LOOKALIKE_LEMMAS = 500
LOOKALIKES_EACH = 10

NEED_AFFIX = "666"
NOUNS = re.compile(r"(substantivo|adxectivo)(_|s$|$)")
PRONOUNS = {"me", "te", "che", "lle", "nos", "vos", "lles", "se", "o", "a", "os", "as"}
PRONOUNS |= {"lo", "la", "los", "las", "no", "na", "nas"}
LETTERS = re.compile(r"[a-záéíóúàèìòùâêîôûïüçñ]{3,}")


@dataclass(frozen=True)
class Suffix:
    """One line of the .aff file."""

    strip: str
    add: str
    next_flags: tuple[str, ...]
    condition: re.Pattern[str]
    kind: str
    """The first two letters of its description: `is` inflects, `pa` attaches a pronoun, `ds` derives."""

    def apply(self, word: str) -> str | None:
        """The word with this suffix; None where its condition does not hold."""
        if not word.endswith(self.strip) or not self.condition.search(word):
            return None
        return word.removesuffix(self.strip) + self.add


def read_suffixes(path: Path) -> dict[str, list[Suffix]]:
    """The suffixes of each flag."""
    suffixes: dict[str, list[Suffix]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) < 5 or fields[0] != "SFX":
            continue
        flag, strip, added, condition = fields[1:5]
        add, _, flags = added.partition("/")
        rest = [field for field in fields[5:] if field != "."]
        suffixes[flag].append(
            Suffix(
                "" if strip == "0" else strip,
                "" if add == "0" else add,
                tuple(flags.split(",")) if flags else (),
                re.compile(condition + "$"),
                rest[0][:2] if rest else "",
            )
        )
    return suffixes


def fold(word: str) -> str:
    """Without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(c))


def inflect(stem: str, flags: tuple[str, ...], suffixes: dict[str, list[Suffix]]) -> set[str]:
    """The stem's own form and its inflected forms, participles inflected too; no attached pronouns."""
    forms = set() if NEED_AFFIX in flags else {stem}
    for flag in flags:
        for suffix in suffixes.get(flag, ()):
            form = suffix.apply(stem) if suffix.kind == "is" else None
            if form is None:
                continue
            if NEED_AFFIX not in suffix.next_flags:
                forms.add(form)
            for next_flag in suffix.next_flags:
                for second in suffixes.get(next_flag, ()):
                    if second.kind == "is" and (longer := second.apply(form)):
                        forms.add(longer)
    return forms


def with_pronoun(stem: str, flags: tuple[str, ...], suffixes: dict[str, list[Suffix]]) -> set[str]:
    """Forms that carry one attached pronoun, as `faloulle`. Those that carry two or three are rarely said."""
    forms = set()
    for flag in flags:
        for suffix in suffixes.get(flag, ()):
            form = suffix.apply(stem) if suffix.kind == "is" else None
            if form is None:
                continue
            for next_flag in suffix.next_flags:
                for second in suffixes.get(next_flag, ()):
                    if second.kind == "pa" and second.add in PRONOUNS and (longer := second.apply(form)):
                        forms.add(longer)
    return forms


@dataclass
class Lexicon:
    """What the dictionary says of nouns and adjectives, and of verbs: lemma -> forms."""

    nouns: dict[str, set[str]]
    verbs: dict[str, set[str]]
    verb_stems: dict[str, list[tuple[str, tuple[str, ...]]]]
    """Stems and flags of each verb."""
    suffixes: dict[str, list[Suffix]]

    def with_pronoun(self, verb: str) -> set[str]:
        """Forms of a verb with an attached pronoun: hundreds, so they are made only for those drawn."""
        return {
            form for stem, flags in self.verb_stems[verb] for form in with_pronoun(stem, flags, self.suffixes)
        }


def read_lexicon(folder: Path) -> Lexicon:
    """Every lemma with its forms. Irregular stems (`st:` names their lemma) are counted to their verb."""
    suffixes = read_suffixes(folder / "gl_ES.aff")
    nouns: dict[str, set[str]] = defaultdict(set)
    verbs: dict[str, set[str]] = defaultdict(set)
    verb_stems: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    stems: list[tuple[str, str, tuple[str, ...]]] = []
    for line in (folder / "gl_ES.dic").read_text(encoding="utf-8").splitlines()[1:]:
        entry, *fields = line.split()
        word, _, listed = entry.partition("/")
        flags = tuple(listed.split(",")) if listed else ()
        if not LETTERS.fullmatch(word):
            continue
        classes = [field[3:] for field in fields if field.startswith("po:")]
        if classes and all(NOUNS.match(name) for name in classes):
            nouns[word] |= inflect(word, flags, suffixes)
        elif classes and all(name.startswith("verbo") for name in classes):
            verbs[word] |= inflect(word, flags, suffixes)
            verb_stems[word].append((word, flags))
        elif not classes:
            stems.extend((field[3:], word, flags) for field in fields if field.startswith("st:"))
    for lemma, stem, flags in stems:
        if lemma in verbs:
            verbs[lemma] |= inflect(stem, flags, suffixes)
            verb_stems[lemma].append((stem, flags))
    return Lexicon(dict(nouns), dict(verbs), dict(verb_stems), suffixes)


def draw_pairs(
    forms_of: dict[str, set[str]],
    n: int,
    rng: random.Random,
    texts_of: Callable[[str], set[str]] | None = None,
) -> list[tuple[str, str, str]]:
    """(lemma, query, form in the text), one of each lemma. Half of the queries are the lemma itself.

    A pair whose two forms differ in accents and case alone is not drawn: folding finds it without any grammar.
    """
    lemmas = sorted(forms_of)
    rng.shuffle(lemmas)
    pairs: list[tuple[str, str, str]] = []
    for lemma in lemmas:
        if len(pairs) == n:
            break
        forms = sorted(form for form in forms_of[lemma] if LETTERS.fullmatch(form))
        texts = sorted(texts_of(lemma) if texts_of else forms)
        query = lemma if rng.random() < 0.5 else rng.choice(forms or [lemma])
        others = [form for form in texts if LETTERS.fullmatch(form) and fold(form) != fold(query)]
        if others:
            pairs.append((lemma, query, rng.choice(others)))
    return pairs


def draw_lookalikes(lexicon: Lexicon, rng: random.Random) -> list[tuple[str, str, str, bool]]:
    """(class, lemma, another lemma that begins like it, whether the two share a form), nearest first."""
    forms_of: dict[str, set[str]] = defaultdict(set)
    for table in (lexicon.nouns, lexicon.verbs):
        for lemma, forms in table.items():
            forms_of[lemma] |= {fold(form) for form in forms}
    by_beginning: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for lemma in sorted(forms_of):
        folded = fold(lemma)
        by_beginning[folded[:3]].append((folded, lemma))
    rows = []
    for name, table in (("noun", lexicon.nouns), ("verb", lexicon.verbs)):
        for lemma in sorted(rng.sample(sorted(table), N_LOOKALIKE_LEMMAS)):
            folded = fold(lemma)
            beginning = folded[: max(3, len(folded) - 4)]
            near = [
                (-difflib.SequenceMatcher(None, folded, key).ratio(), other)
                for key, other in by_beginning[folded[:3]]
                if key.startswith(beginning) and other != lemma and abs(len(key) - len(folded)) <= 4
            ]
            for _, other in sorted(near)[:LOOKALIKES_EACH]:
                rows.append((name, lemma, other, bool(forms_of[lemma] & forms_of[other])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("/usr/share/hunspell"))
    lexicon = read_lexicon(parser.parse_args().folder)
    rng = random.Random(SEED)
    rows = [("noun", *pair) for pair in draw_pairs(lexicon.nouns, N_NOUN_PAIRS, rng)]
    rows += [("verb", *pair) for pair in draw_pairs(lexicon.verbs, N_VERB_PAIRS, rng)]
    rows += [
        ("clitic", *pair)
        for pair in draw_pairs(lexicon.verbs, N_CLITIC_PAIRS, random.Random(SEED + 1), lexicon.with_pronoun)
    ]
    write("pairs.tsv", ("class", "lemma", "query", "text"), rows)
    lookalikes = draw_lookalikes(lexicon, random.Random(SEED + 2))
    write(
        "lookalikes.tsv",
        ("class", "lemma", "other", "shares_a_form"),
        [(name, lemma, other, "yes" if shares else "no") for name, lemma, other, shares in lookalikes],
    )
    print(
        f"{len(lexicon.nouns)} nouns and adjectives, {len(lexicon.verbs)} verbs; "
        f"{len(rows)} pairs, {len(lookalikes)} look-alikes"
    )


def write(name: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = ["\t".join(unicodedata.normalize("NFC", field) for field in row) for row in [header, *rows]]
    (HERE / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
