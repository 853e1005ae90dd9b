"""Held-out sets: folders of audio with reference texts, in the layouts that speech corpora come in.

What a folder holds is found by its files, or said by its `set.toml`; docs/evaluation.md lists the layouts. Texts are
kept as given (NFC only). Everything that is wrong is told with file, line and reason before anything is measured: a set
that silently lost half of its rows would still give a figure.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from db.evaluation_runs import NewHeldOutSet, NewUtterance, register_set
from db.settings import Settings
from evaluation.held_out_audio import AudioIndex, load_clip
from evaluation.manifests import COLUMNS, HeldOutError, Layout, Row, find_layout, read_rows

__all__ = [
    "HeldOutError",
    "HeldOutSet",
    "SetFolder",
    "Unreadable",
    "cache_folder",
    "find_sets",
    "load_clip",
    "nightly_names",
    "read_nightly_sets",
    "read_set",
    "register_nightly_sets",
]

log = structlog.get_logger(__name__)

SETTINGS_FILE = "set.toml"
IGNORED_FOLDERS = frozenset({"lost+found"})
_KNOWN_SETTINGS = frozenset(
    {"name", "dataset", "nightly", "manifest", "split", "kind", "programme", "columns"}
)
_NAME = re.compile(r"[^\s/\\,\x00-\x1f\x7f][^/\\,\x00-\x1f\x7f]{0,99}")


@dataclass(frozen=True)
class SetFolder:
    """A folder that should hold a held-out set."""

    path: Path
    name: str
    dataset: str
    """What the model card calls it, or its own name."""
    is_nightly: bool = True
    manifest: str | None = None
    """File that lists the utterances, relative to the folder; None: found by its name."""
    split: str = "test"
    kind: str | None = None
    """Kind of programme of every utterance that does not name one."""
    programme: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    """(our column, the file's)."""
    problem: str | None = None
    """Why it cannot be read, where that is known already."""


@dataclass(frozen=True)
class HeldOutSet(NewHeldOutSet):
    """A held-out set that was read, ready to be registered."""

    folder: SetFolder
    layout: str
    """How it was found, for a person: `Common Voice: test.tsv`."""

    @property
    def is_nightly(self) -> bool:
        return self.folder.is_nightly

    @property
    def dataset(self) -> str:
        return self.folder.dataset

    @property
    def duration_samples(self) -> int:
        return sum(utterance.duration_samples for utterance in self.utterances)


@dataclass(frozen=True)
class Unreadable:
    """A set that cannot be measured, and why."""

    name: str
    path: Path
    reason: str


def cache_folder(settings: Settings) -> Path:
    """Where hashes and durations of audio files are kept, so that unchanged files are not read again every night."""
    return settings.home / "held-out"


def find_sets(datasets: Path) -> list[SetFolder]:
    """The folders in `datasets`, in order of their names. What is wrong with one is its `problem`.

    Raises:
        HeldOutError: `datasets` is not a folder, or cannot be listed.
    """
    try:
        entries = sorted(datasets.iterdir())
    except OSError as error:
        raise HeldOutError(
            f"{datasets}: the folder of the held-out sets cannot be read ({error.strerror or error}); "
            "see FONOTECA_DATASETS"
        ) from error
    folders = [
        _describe(path)
        for path in entries
        if path.is_dir() and not path.name.startswith(".") and path.name not in IGNORED_FOLDERS
    ]
    by_name: dict[str, SetFolder] = {}
    found = []
    for folder in folders:
        first = by_name.setdefault(folder.name, folder)
        if first is not folder:
            reason = f"{folder.path}: the set {folder.name!r} is in {first.path} already; name one in {SETTINGS_FILE}"
            folder = replace(folder, problem=folder.problem or reason)
        found.append(folder)
    return found


def read_set(folder: SetFolder, cache: Path) -> HeldOutSet:
    """Read a set: its rows, and hash and duration of each clip.

    Args:
        cache: folder in which hashes and durations of unchanged files are remembered.

    Raises:
        HeldOutError: naming the file, the line and the reason.
    """
    if folder.problem:
        raise HeldOutError(folder.problem)
    layout = _layout(folder)
    rows = read_rows(layout)
    if not rows:
        raise HeldOutError(f"{layout.shown}: no utterances")
    _check_keys(rows)
    with AudioIndex(cache, folder.path) as index:
        facts = index.look_at([(row.audio, row.where) for row in rows])
    utterances = tuple(
        NewUtterance(
            key=row.key,
            audio=f"{folder.path.name}/{row.audio}",
            audio_sha256=fact.sha256,
            duration_samples=fact.duration_samples,
            reference=row.text,
            speaker=row.speaker,
            programme=row.programme or folder.programme,
            kind=row.kind or folder.kind,
        )
        for row, fact in zip(rows, facts, strict=True)
    )
    return HeldOutSet(
        name=folder.name,
        content_sha256=content_sha256(utterances),
        utterances=utterances,
        folder=folder,
        layout=layout.describe(),
    )


def content_sha256(utterances: Sequence[NewUtterance]) -> str:
    """Hash of everything that a score depends on, in order; not of where the files lie."""
    digest = hashlib.sha256()
    for utterance in utterances:
        parts = [
            utterance.key,
            utterance.reference,
            utterance.audio_sha256,
            utterance.speaker,
            utterance.programme,
            utterance.kind,
        ]
        digest.update(json.dumps(parts, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def read_nightly_sets(settings: Settings) -> tuple[list[HeldOutSet], list[Unreadable]]:
    """The sets that are measured every night, and those that should be and cannot be read.

    Reads every new audio file once: the first time takes minutes for a large set, and needs no database.
    """
    if settings.datasets is None:
        return [], []
    try:
        folders = find_sets(settings.datasets)
    except HeldOutError as error:
        return [], [Unreadable(settings.datasets.name, settings.datasets, str(error))]
    chosen = folders_of_the_night(folders, settings)
    read, unreadable = [], []
    for folder in chosen:
        try:
            read.append(read_set(folder, cache_folder(settings)))
        except HeldOutError as error:
            unreadable.append(Unreadable(folder.name, folder.path, shown(str(error))))
        except Exception as error:
            # whatever is wrong with one set, the others are measured
            log.exception("held_out_set_unreadable", set=folder.name)
            reason = f"{shown(folder.path)}: it cannot be read ({type(error).__name__}: {shown(str(error))})"
            unreadable.append(Unreadable(folder.name, folder.path, reason))
    known = {folder.name for folder in folders}
    for name in nightly_names(settings.nightly_sets):
        if name not in known:
            reason = f"FONOTECA_NIGHTLY_SETS names the set {name!r}, and {settings.datasets} holds none of that name"
            unreadable.append(Unreadable(name, settings.datasets, reason))
    return read, unreadable


def folders_of_the_night(folders: Sequence[SetFolder], settings: Settings) -> list[SetFolder]:
    """Those that FONOTECA_NIGHTLY_SETS names; unset, all but those that say otherwise."""
    names = nightly_names(settings.nightly_sets)
    return [folder for folder in folders if (folder.name in names if names else folder.is_nightly)]


def register_nightly_sets(
    connection: Connection, settings: Settings
) -> tuple[list[tuple[int, str]], list[Unreadable]]:
    """Register the sets of a night: (id, name) of each, and those that cannot be read, with reasons."""
    read, unreadable = read_nightly_sets(settings)
    return [(register_set(connection, held_out), held_out.name) for held_out in read], unreadable


def shown(given: str | Path) -> str:
    """A name as it can be written anywhere: a byte 0xE9 that is not UTF-8 as `\\udce9`."""
    return str(given).encode("utf-8", "backslashreplace").decode()


def nightly_names(setting: str | None) -> list[str]:
    """The sets that FONOTECA_NIGHTLY_SETS names; empty where it names none."""
    return [name.strip() for name in (setting or "").split(",") if name.strip()]


def _describe(path: Path) -> SetFolder:
    """What the folder's `set.toml` says; without one, the folder's name is the set's."""
    name = shown(path.name)
    plain = SetFolder(path, name=name, dataset=name)
    if name != path.name:
        return replace(plain, problem=f"{shown(path)}: the folder's name is not UTF-8; give it another")
    file = path / SETTINGS_FILE
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return plain
    except (OSError, ValueError, RecursionError) as error:
        return replace(plain, problem=f"{file}: {error}")
    try:
        return _from_settings(plain, file, content)
    except HeldOutError as error:
        return replace(plain, problem=str(error))


def _from_settings(plain: SetFolder, file: Path, content: dict[str, Any]) -> SetFolder:
    if unknown := sorted(content.keys() - _KNOWN_SETTINGS):
        raise HeldOutError(
            f"{file}: `{unknown[0]}` is no setting of a set (known: {', '.join(sorted(_KNOWN_SETTINGS))})"
        )
    columns = content.pop("columns", {})
    is_nightly = content.pop("nightly", True)
    if not isinstance(is_nightly, bool):
        raise HeldOutError(f"{file}: `nightly` must be true or false")
    if not isinstance(columns, dict):
        raise HeldOutError(f"{file}: `columns` must be a table, [columns]")
    for key, value in [*content.items(), *columns.items()]:
        if not isinstance(value, str) or not value.strip():
            raise HeldOutError(f"{file}: `{key}` must be a text")
        if "\0" in value:
            raise HeldOutError(f"{file}: `{key}` holds a sign that is no text (U+0000)")
    if unknown := sorted(columns.keys() - COLUMNS):
        raise HeldOutError(
            f"{file}: `{unknown[0]}` is no column of ours (known: {', '.join(sorted(COLUMNS))})"
        )
    name = content.get("name", plain.name)
    if not _NAME.fullmatch(name):
        raise HeldOutError(f"{file}: {name!r} cannot be a set's name: at most 100 signs, no stroke, no comma")
    return replace(
        plain,
        name=name,
        dataset=content.get("dataset", name),
        is_nightly=is_nightly,
        manifest=content.get("manifest"),
        split=content.get("split", plain.split),
        kind=content.get("kind"),
        programme=content.get("programme"),
        columns=tuple(sorted(columns.items())),
    )


def _layout(folder: SetFolder) -> Layout:
    return find_layout(
        folder.path, manifest=folder.manifest, split=folder.split, columns=dict(folder.columns)
    )


def _check_keys(rows: Sequence[Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        first = seen.setdefault(row.key, row.where)
        if first != row.where:
            raise HeldOutError(f"{row.where}: the id {row.key!r} was already in {first}")
