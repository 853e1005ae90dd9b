"""The rows of a corpus, whatever its layout, and a statement of what was found in its files.

Layouts and rows are those of held-out sets (`evaluation.manifests`); here all splits are read at once, and a row that
cannot be read is put aside with its reason instead of ending the reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from evaluation.manifests import (
    FLEURS_COLUMNS,
    HeldOutError,
    Layout,
    LayoutKind,
    NothingFound,
    Row,
    choose_columns,
    find_layout,
    named_rows,
    read_rows,
)
from training.corpora.description import SPLITS, CorpusError, Description

NO_SPLIT = "(no split)"
"""A name that no corpus has for a split: what is found under it is not split."""
_AUDIO_COLUMN = {
    LayoutKind.MANIFEST: "audio",
    LayoutKind.AUDIOFOLDER: "file_name",
    LayoutKind.COMMON_VOICE: "path",
    LayoutKind.PARQUET: "audio",
}


class Reason(StrEnum):
    """Why a row is not in the manifest."""

    BAD_ROW = "bad_row"
    """Its list cannot be read there: fields missing, bytes that are no text, a path out of the folder."""
    LISTED_TWICE = "listed_twice"
    """The same audio file is in the list already, or in a held-out split."""
    UNKNOWN_SPLIT = "unknown_split"
    EMPTY_TEXT = "empty_text"
    MISSING_AUDIO = "missing_audio"
    UNDECODABLE = "undecodable"
    DAMAGED = "damaged"
    """Part of it cannot be decoded."""
    SILENT = "silent"
    """It has a text, and no sample is louder than -60 dBFS."""
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_FAST = "too_fast"
    """More text than can be said in the time: most often another clip's text, or a cut recording."""
    TOO_SLOW = "too_slow"
    """Less text than the time holds: most often a text that lacks its rest."""
    DUPLICATE = "duplicate"
    """The same sound as an earlier row of train, where the person asked for each only once."""
    LEAK = "leak"
    """It shares with a held-out split what the person asked to keep apart."""


@dataclass(frozen=True)
class Reject:
    """A row that is not in the manifest."""

    dataset: str
    where: str
    """File and line (or row) that lists it, relative to the corpus's folder."""
    key: str
    """Empty where the row was too broken to tell."""
    reason: Reason
    detail: str


@dataclass(frozen=True)
class ListedRow:
    """A row of a corpus before its audio is looked at."""

    dataset: str
    split: str | None
    """None where the corpus is not split."""
    key: str
    audio: str
    """Relative to the dataset's folder; `file#row` inside a parquet file."""
    text: str
    """NFC, with single spaces."""
    speaker: str | None
    programme: str | None
    where: str

    def reject(self, reason: Reason, detail: str) -> Reject:
        return Reject(self.dataset, self.where, self.key, reason, detail)


@dataclass(frozen=True)
class FilesFound:
    """What was found of one split: which files, and what each of their columns became."""

    layout: str
    """`Common Voice: test.tsv`."""
    split: str | None
    n_rows: int
    became: Mapping[str, str]
    """The files' columns to ours."""
    ignored: tuple[str, ...]
    """The files' columns that were not read."""


@dataclass(frozen=True)
class ReadCorpus:
    """A corpus as its files list it."""

    description: Description
    rows: tuple[ListedRow, ...]
    rejects: tuple[Reject, ...]
    found: tuple[FilesFound, ...]
    left_out: Mapping[str, int]
    """Rows left out on purpose, by what was said: `validation = wrong`."""
    notes: tuple[str, ...]
    """For the report: what a person should know of how it was read."""
    n_cleaned: int
    """Texts in which spaces were changed."""

    @property
    def is_split(self) -> bool:
        return any(row.split is not None for row in self.rows)


@dataclass(frozen=True)
class _Part:
    """The files of one split, or of a corpus that is not split."""

    layout: Layout
    split: str | None
    prefix: str
    """Of the folder below the corpus's own in which they lie: `clean/`, or nothing."""


def read_corpus(description: Description) -> ReadCorpus:
    """All rows of a corpus: by the splits' order, then as its files list them.

    Raises:
        CorpusError: nothing in its folder is known, or its columns do not tell what they are.
    """
    try:
        return _Reading(description).read()
    except HeldOutError as error:
        raise CorpusError(str(error)) from error


class _Reading:
    def __init__(self, description: Description) -> None:
        self._description = description
        self._rejects: list[Reject] = []
        self._left_out: Counter[str] = Counter()
        self._notes: list[str] = []
        self._n_cleaned = 0

    def read(self) -> ReadCorpus:
        rows: list[ListedRow] = []
        found = []
        for part in _find_parts(self._description):
            layout, files = self._columns(part)
            own = [
                row for read in read_rows(layout, on_bad=self._bad_row) for row in self._listed(part, read)
            ]
            found.append(replace(files, n_rows=len(own)))
            rows += own
        if not any(one.n_rows for one in found) and not self._rejects:
            raise CorpusError(f"{self._description.folder}: its lists hold no utterances")
        if not any(row.speaker for row in rows):
            self._notes.append(
                "Nothing says who speaks: its splits cannot be checked for shared speakers. Where a column does, "
                f"name it: [columns] speaker in {Path(self._description.said_in).name}"
            )
        return ReadCorpus(
            description=self._description,
            rows=tuple(self._with_unique_keys(self._without_repeats(rows))),
            rejects=tuple(self._rejects),
            found=tuple(found),
            left_out=dict(self._left_out),
            notes=tuple(self._notes),
            n_cleaned=self._n_cleaned,
        )

    # --- columns ------------------------------------------------------------------------------------------

    def _columns(self, part: _Part) -> tuple[Layout, FilesFound]:
        """The layout with its columns chosen, and the statement of what became of each."""
        described = self._description
        layout = part.layout
        there = _columns_of(layout)
        mapped = {ours: column for ours, column in described.columns.items() if ours != "split"}
        became: dict[str, str] = {}
        if layout.kind is LayoutKind.FLEURS:
            text = mapped.get("text", "raw_transcription")
            became = {"file_name": "audio", text: "text"}
        elif layout.kind is LayoutKind.OPENSLR:
            became = {"id": "id, audio, speaker", "text": "text"}
        elif there:
            if "raw_transcription" in there and "text" not in mapped:
                mapped["text"] = "raw_transcription"  # as it is written; `transcription` is in lower case
            audio = (_AUDIO_COLUMN[layout.kind],)
            chosen = choose_columns(
                mapped, dict.fromkeys(there), str(layout.files[0]), audio=audio, said_in=described.said_in
            )
            for ours, column in chosen.items():
                if ours != "kind":
                    became[column] = f"{became[column]}, {ours}" if column in became else ours
        also = [column for column in described.only if self._is_there(column, there, layout, "[only]")]
        split = described.columns.get("split", "split")
        if part.split is None and "split" in described.columns:
            self._is_there(split, there, layout, "[columns]")
        if part.split is None and split in there:
            also.append(split)
            became[split] = "split"
        if layout.kind is LayoutKind.PARQUET and "id" not in mapped and "filename" in there:
            also.append("filename")
            became["filename"] = "id"
        became |= {column: "filter" for column in described.only if column in there}
        files = FilesFound(
            layout=f"{part.prefix} {layout.describe()}".strip(),
            split=part.split,
            n_rows=0,
            became=became,
            ignored=tuple(column for column in there if column not in became),
        )
        return replace(layout, columns=mapped, also=tuple(dict.fromkeys(also))), files

    def _is_there(self, column: str, there: Sequence[str], layout: Layout, table: str) -> bool:
        if there and column not in there:
            has = ", ".join(there)
            raise CorpusError(
                f"{layout.shown}: there is no `{column}` (it has: {has}), which {self._description.said_in} names "
                f"in {table}"
            )
        return column in there

    # --- rows ---------------------------------------------------------------------------------------------

    def _bad_row(self, where: str, error: HeldOutError) -> None:
        detail = str(error).removeprefix(where).removeprefix(": ")
        self._rejects.append(
            Reject(self._description.name, self._relative(where), "", Reason.BAD_ROW, detail)
        )

    def _relative(self, where: str) -> str:
        return where.removeprefix(f"{self._description.folder}/")

    def _listed(self, part: _Part, row: Row) -> Iterator[ListedRow]:
        described = self._description
        for column, values in described.only.items():
            value = row.other.get(column)
            if value not in values:
                self._left_out[f"{column} = {value or '(empty)'}"] += 1
                return
        key = part.prefix + (row.other.get("filename") or row.key)
        text = clean_text(row.text)
        self._n_cleaned += text != row.text
        listed = ListedRow(
            dataset=described.name,
            split=part.split,
            key=key,
            audio=f"{part.prefix}{_with_folder(described, part, row.audio)}",
            text=text,
            speaker=_matched(described, "speaker", key) or row.speaker,
            programme=_matched(described, "programme", key) or row.programme,
            where=self._relative(row.where),
        )
        split_column = described.columns.get("split", "split")
        if part.split is None and split_column in row.other:
            value = row.other[split_column]
            split = described.split_of(value) if value else None
            if split is None:
                detail = f"{value!r} is no split that is known; [splits] can say which it is"
                self._rejects.append(listed.reject(Reason.UNKNOWN_SPLIT, detail))
                return
            listed = replace(listed, split=split)
        yield listed

    def _without_repeats(self, rows: Sequence[ListedRow]) -> list[ListedRow]:
        """Each audio file once: in a held-out split before train, and where it is listed first."""
        kept: dict[str, ListedRow] = {}
        for row in sorted(rows, key=lambda row: row.split in (None, "train")):
            first = kept.setdefault(row.audio, row)
            if first is not row:
                detail = f"{row.audio} is listed in {first.where}" + (
                    f" ({first.split})" if first.split else ""
                )
                self._rejects.append(row.reject(Reason.LISTED_TWICE, detail))
        order = {split: number for number, split in enumerate((*SPLITS, None))}
        return sorted(kept.values(), key=lambda row: order[row.split])

    def _with_unique_keys(self, rows: Sequence[ListedRow]) -> list[ListedRow]:
        if len({(row.split, row.key) for row in rows}) == len(rows):
            return list(rows)
        self._notes.append("Its ids are not unique: the audio's path is the id")
        return [replace(row, key=row.audio) for row in rows]


def clean_text(text: str) -> str:
    """One space for any run of spaces and line ends, none at the ends; nothing else is changed.

    Texts are NFC by then (`evaluation.manifests.clean`).
    """
    return " ".join(text.split())


def _with_folder(described: Description, part: _Part, audio: str) -> str:
    if part.layout.kind is not LayoutKind.MANIFEST:
        return audio
    folder = described.audio_folder.strip("/")
    return (f"{folder}/" if folder else "") + audio + described.audio_suffix


def _matched(described: Description, what: str, key: str) -> str | None:
    pattern = described.patterns.get(what)
    found = pattern.search(key) if pattern else None
    return found[1] if found else None


# --- what lies in the folder -------------------------------------------------------------------------------


def _find_parts(described: Description) -> list[_Part]:
    if described.files:
        return [
            _Part(_layout(described, described.folder, split, described.files[split]), split, "")
            for split in SPLITS
            if split in described.files
        ]
    if described.manifest:
        return [_Part(_layout(described, described.folder, NO_SPLIT, described.manifest), None, "")]
    if parts := _parts_of(described, described.folder, ""):
        return parts
    # several configurations of one corpus, each in its folder
    for folder in sorted(path for path in described.folder.iterdir() if path.is_dir()):
        if not folder.name.startswith("."):
            parts += _parts_of(described, folder, f"{folder.name}/")
    if not parts:
        names = ", ".join(name for split in SPLITS for name in described.splits.get(split, ()))
        raise CorpusError(
            f"{described.folder}: no speech corpus is found in it: there is no manifest.jsonl, .csv or .tsv, no "
            "metadata.jsonl or .csv, no list of a split (.tsv) beside clips/ or audio/, no line_index.tsv and no "
            f"parquet file (splits looked for: {names}). If another file lists its utterances, name it in "
            f"{described.said_in} as `manifest`; docs/corpora.md has examples"
        )
    return parts


def _parts_of(described: Description, folder: Path, prefix: str) -> list[_Part]:
    try:
        return [_Part(_layout(described, folder, NO_SPLIT), None, prefix)]
    except NothingFound:
        pass  # it is split, or nothing is there
    parts = []
    for split in SPLITS:
        for name in described.splits.get(split, ()):
            try:
                parts.append(_Part(_layout(described, folder, name), split, prefix))
            except NothingFound:
                continue
    return parts


def _layout(described: Description, folder: Path, split: str, manifest: str | None = None) -> Layout:
    return find_layout(folder, manifest=manifest, split=split, columns={}, said_in=described.said_in)


def _columns_of(layout: Layout) -> tuple[str, ...]:
    """The columns of its first file; none where there are no rows."""
    file = layout.files[0]
    match layout.kind:
        case LayoutKind.FLEURS:
            return FLEURS_COLUMNS
        case LayoutKind.OPENSLR:
            return ("id", "text")
        case LayoutKind.COMMON_VOICE:
            with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                return tuple(name.strip() for name in lines.readline().rstrip("\r\n").split("\t"))
        case LayoutKind.PARQUET:
            return _parquet_columns(layout.files)
    names: dict[str, None] = {}
    for number, (_, row) in enumerate(named_rows(file, lambda where, error: None)):
        names |= dict.fromkeys(row)
        if number == (100 if file.suffix == ".jsonl" else 0):
            break
    return tuple(names)


def _parquet_columns(files: Sequence[Path]) -> tuple[str, ...]:
    """Of the first that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        try:
            return tuple(pq.read_schema(file).names)
        except (OSError, pa.ArrowException):
            continue
    return ()
