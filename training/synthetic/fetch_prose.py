"""Makes `data/prose_gl.txt.xz`: sentences of real Galician prose from Debian's packages.

    python -m training.synthetic.fetch_prose [FOLDER]

Needed only to make that file again: it is in the repository, with its licences. Packages are fetched by their version
with `apt-get download`, unless they are in FOLDER, and checked by their SHA-256. Needs the extra `dev` (simplemma),
apt-get and dpkg-deb.
"""

from __future__ import annotations

import gettext
import hashlib
import html
import lzma
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.synthetic.spoken import spoken_text
from training.synthetic.texts import lexicon_words

OUT = Path(__file__).parent / "data" / "prose_gl.txt.xz"
SHORT_WORD, MAX_UNKNOWN = 4, 0.2
FOREIGN = re.compile(r"\b(the|of|and|you|is|to|for|with|el|los|las|una|y|del|there)\b|\b[a-z]*[kwyj][a-z]*\b")
SIGNS = re.compile(r"[@#$%^*_=\\/|{}<>\[\]~&+]|https?:|\w[.:][^\W\d]|--|\d{5,}")


@dataclass(frozen=True)
class Package:
    """A Debian package, and where its Galician prose lies."""

    name: str
    version: str
    sha256: str
    pattern: str
    seen_enough: int
    """A sentence is kept when one of its words stands in fewer sentences than that: manuals repeat themselves."""


PACKAGES = (
    Package(
        "wesnoth-1.16-data",
        "1:1.16.9-1",
        "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26",
        "*/locale/gl/LC_MESSAGES/wesnoth*.mo",
        8,
    ),
    Package(
        "stellarium-data",
        "0.22.2-1",
        "45aaebf39a814acbd6dcccea058c2f5651bcb5635599da03a215feeb51f4d5a5",
        "*/skycultures/*/description.gl.utf8",
        8,
    ),
    Package(
        "gnome-user-docs",
        "43.0-2",
        "0d635a840747958ca84da778b40d341f1155603851f922c9a171f5a181d6a39f",
        "*/help/gl/*/*.page",
        3,
    ),
    Package(
        "libreoffice-help-gl",
        "4:7.4.7-1+deb12u14",
        "c1cf71cc98ed2c08060bfcf55cbc03d3d72e0fe7c3f5192b034c87cbf6b6e679",
        "*/help/gl/text/*.html",
        2,
    ),
)


def main(kept: Path | None = None) -> int:
    """Fetch, choose sentences, and write the file; prints what came from where."""
    known = frozenset(lexicon_words())
    chosen: dict[str, None] = {}
    uses: Counter[str] = Counter()
    for package in PACKAGES:
        before = len(chosen)
        with tempfile.TemporaryDirectory() as folder:
            for raw in _texts(package, Path(folder), kept):
                for sentence in _sentences(raw):
                    words = re.findall(r"[^\W\d_]+", sentence.lower())
                    rare = any(uses[word] < package.seen_enough for word in words)
                    if rare and sentence not in chosen and _is_galician(sentence, known):
                        chosen[sentence] = None
                        uses.update(words)
        print(f"{package.name}: {len(chosen) - before} sentences")  # noqa: T201
    content = "\n".join(sorted(chosen)) + "\n"
    OUT.write_bytes(lzma.compress(content.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(chosen)} sentences, {len(uses)} different words, {OUT.stat().st_size} bytes")  # noqa: T201
    return 0


def _texts(package: Package, folder: Path, kept: Path | None) -> Iterator[str]:
    archive = next(iter(kept.glob(f"{package.name}_*.deb")), None) if kept else None
    if archive is None:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        [archive] = folder.glob("*.deb")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(
            f"{archive.name} has SHA-256 {found}, not {package.sha256}: a changed package, look at it"
        )
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--extract", str(archive), str(tree)], check=True)  # noqa: S607
    for path in sorted(tree.rglob("*")):
        if _matches(path, package.pattern):
            yield from _read(path)


def _matches(path: Path, pattern: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*")
    return path.is_file() and re.fullmatch(expression, str(path)) is not None


def _read(path: Path) -> Iterator[str]:
    """Paragraphs of a catalogue of translations, or of a marked-up page."""
    if path.suffix == ".mo":
        with path.open("rb") as stream:
            catalogue = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined] # noqa: SLF001
        yield from (text for key, text in sorted(catalogue.items(), key=str) if key and isinstance(text, str))
        return
    page = path.read_text(encoding="utf-8", errors="ignore")
    for paragraph in re.findall(r"<p\b[^>]*>(.*?)</p>", page, flags=re.DOTALL):
        yield html.unescape(paragraph)


def _sentences(raw: str) -> Iterator[str]:
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>|\([^)]*\)", " ", raw))
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-ZÁÉÍÓÚÑ«\"])", plain):
        if SIGNS.search(sentence):
            continue
        spoken = spoken_text(sentence)
        n_words = len(re.findall(r"[^\W\d_]+", spoken))
        if 3 <= n_words <= 26 and re.fullmatch(r"[^\W\d_][^\d_()\[\]]*[.!?]?", spoken):
            yield spoken[0].upper() + spoken[1:]


def _is_galician(sentence: str, known: frozenset[str]) -> bool:
    """Whether few of its words are neither in the lexicon, nor short, adverbs or names."""
    if (
        FOREIGN.search(sentence)
        or re.search(r"[^\s\w.,;:!?'-]", sentence)
        or re.search(r"[^\x00-\u017f]", sentence)
    ):
        return False
    words = [word for word in re.findall(r"[^\W\d_]+", sentence) if len(word) > SHORT_WORD]
    unknown = [word for word in words if word.lower() not in known and not word.endswith("mente")]
    return len(unknown) <= max(1.0, MAX_UNKNOWN * len(words))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
