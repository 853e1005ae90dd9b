"""What a person says of a corpus: its folder, its name, and where the layout does not tell, a small TOML file.

The file is `corpus.toml` in the corpus's folder, or lies anywhere and names the folder:

```toml
folder = "/mnt/datasets/FalAI"      # not in a corpus.toml; a relative one counts from this file's folder
name = "FalAI"                      # dataset; else the folder's name
manifest = "metadata.csv"           # the file that lists the utterances, where it is not found by its name
audio_folder = "wavs"               # before the paths in it
audio_suffix = ".wav"               # after them
allow_empty_text = false            # true: an empty text means that nothing is said
[columns]                           # our column = the file's
audio = "file"                      # also: text, id, speaker, programme, split
[files]                             # one manifest a split, instead of `manifest`
train = "lists/train.csv"
[splits]                            # our split = the corpus's names for it
train = ["train", "validated"]
[only]                              # rows with these values, all others are left out and counted
validation = ["correct"]
[patterns]                          # a speaker or programme out of an utterance's id: the group of a regular expression
programme = "^([a-z]+_[0-9]{8})_"
```
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SETTINGS_FILE = "corpus.toml"
SPLITS = ("train", "validation", "test")
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
"""What corpora call their splits."""
COLUMNS = frozenset({"audio", "text", "id", "speaker", "programme", "split"})
_TEXTS = frozenset({"folder", "name", "manifest", "audio_folder", "audio_suffix"})
_TABLES = frozenset({"columns", "files", "splits", "only", "patterns"})
_NAME = re.compile(r"[^\s/\\,=#\x00-\x1f\x7f][^/\\,=#\x00-\x1f\x7f]{0,99}")


class CorpusError(ValueError):
    """A corpus that cannot be read at all. Names the file or folder, the reason and what to do."""


@dataclass(frozen=True)
class Description:
    """A corpus as a person describes it."""

    folder: Path
    name: str
    manifest: str | None = None
    audio_folder: str = ""
    audio_suffix: str = ""
    allow_empty_text: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    """Ours to the files'."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Split to manifest."""
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(SPLIT_NAMES))
    """Split to the corpus's names for it."""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column to the values that are taken."""
    patterns: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """`speaker` or `programme` to a regular expression with one group, searched in ids."""
    said_in: str = SETTINGS_FILE
    """The file that a person changes to say more."""

    def split_of(self, value: str) -> str | None:
        """Ours for a corpus's name of a split; None where it is not known."""
        return next((ours for ours, names in self.splits.items() if value.strip().lower() in names), None)


def describe(given: str) -> Description:
    """The corpus that a command line names: `FOLDER`, `NAME=FOLDER`, or a TOML file.

    Raises:
        CorpusError: there is no such folder, or its TOML file is not right.
    """
    path = Path(given)
    if path.suffix == ".toml" and path.is_file():
        return _from_file(path, folder=None)
    name, equals, rest = given.partition("=")
    folder = Path(rest) if equals and not path.is_dir() else path
    if not folder.is_dir():
        raise CorpusError(
            f"{folder}: no such folder. A corpus is given as FOLDER, as NAME=FOLDER, or as a .toml file that "
            "describes it"
        )
    settings = folder / SETTINGS_FILE
    own_name = name if folder is not path else None
    if settings.is_file():
        found = _from_file(settings, folder=folder)
        return replace(found, name=_name(own_name, given)) if own_name is not None else found
    return Description(folder, _name(own_name or folder.resolve().name, given), said_in=str(settings))


def _name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name):
        raise CorpusError(
            f"{where}: {name!r} cannot be a dataset's name: at most 100 signs, none of them / \\ , = #. "
            "Name it with NAME=FOLDER or `name` in its TOML file"
        )
    return name


def _from_file(file: Path, *, folder: Path | None) -> Description:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"{file}: {error}") from error
    _check(file, content)
    if folder is None:
        if "folder" not in content:
            raise CorpusError(f'{file}: it must say where the corpus lies: folder = "..."')
        folder = file.parent / content["folder"]
        if not folder.is_dir():
            raise CorpusError(f"{file}: {folder}: no such folder")
    elif "folder" in content:
        raise CorpusError(f"{file}: it describes the folder it lies in; take `folder` out")
    if content.get("files") and content.get("manifest"):
        raise CorpusError(f"{file}: `manifest` and [files] are both there; leave one")
    splits = {ours: _texts(file, "splits", names) for ours, names in content.get("splits", {}).items()}
    return Description(
        folder,
        _name(content.get("name", folder.resolve().name), str(file)),
        manifest=content.get("manifest"),
        audio_folder=content.get("audio_folder", ""),
        audio_suffix=content.get("audio_suffix", ""),
        allow_empty_text=content.get("allow_empty_text", False),
        columns=content.get("columns", {}),
        files=content.get("files", {}),
        splits={ours: tuple(name.strip().lower() for name in names) for ours, names in splits.items()}
        or dict(SPLIT_NAMES),
        only={column: _texts(file, "only", values) for column, values in content.get("only", {}).items()},
        patterns={key: _pattern(file, key, value) for key, value in content.get("patterns", {}).items()},
        said_in=str(file),
    )


def _check(file: Path, content: Mapping[str, Any]) -> None:
    known = _TEXTS | _TABLES | {"allow_empty_text"}
    if unknown := sorted(content.keys() - known):
        raise CorpusError(
            f"{file}: `{unknown[0]}` is no setting of a corpus (known: {', '.join(sorted(known))})"
        )
    if not isinstance(content.get("allow_empty_text", False), bool):
        raise CorpusError(f"{file}: `allow_empty_text` must be true or false")
    for key in sorted(_TEXTS & content.keys()):
        if not isinstance(content[key], str) or not content[key].strip():
            raise CorpusError(f"{file}: `{key}` must be a text")
    allowed = {"columns": COLUMNS, "files": SPLITS, "splits": SPLITS, "patterns": ("speaker", "programme")}
    for table in sorted(_TABLES & content.keys()):
        if not isinstance(content[table], dict):
            raise CorpusError(f"{file}: `{table}` must be a table, [{table}]")
        if table in allowed and (unknown := sorted(content[table].keys() - set(allowed[table]))):
            names = ", ".join(sorted(allowed[table]))
            raise CorpusError(f"{file}: [{table}] has no `{unknown[0]}` (known: {names})")
        for key, value in content[table].items():
            is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not isinstance(value, str) and not (table in ("splits", "only") and is_list):
                raise CorpusError(f"{file}: [{table}] `{key}` must be a text")


def _texts(file: Path, table: str, value: str | list[str]) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not texts:
        raise CorpusError(f"{file}: [{table}] has an empty list")
    return texts


def _pattern(file: Path, key: str, value: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise CorpusError(f"{file}: [patterns] `{key}` is no regular expression ({error})") from error
    if pattern.groups != 1:
        raise CorpusError(f"{file}: [patterns] `{key}` must have one group, (...), which is the {key}")
    return pattern
