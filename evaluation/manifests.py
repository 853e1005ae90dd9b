"""The layouts that held-out sets come in, and their rows. Text only: audio is looked at in `held_out_audio`.

Looked for in this order; `split` is `test` unless `set.toml` says otherwise:

| layout | known by | columns |
|---|---|---|
| manifest | `manifest.jsonl`, `.csv`, `.tsv`, or what `set.toml` names | audio, text; id, speaker, programme, kind |
| audiofolder (Hugging Face) | `metadata.csv`, `.jsonl`, or in `<split>/` | file_name; transcription, text or sentence |
| Common Voice | `<split>.tsv` and `clips/` | path, sentence, client_id |
| FLEURS | `<split>.tsv` and `audio/<split>/` | no header: id, file_name, raw_transcription, transcription ... |
| OpenSLR | `line_index.tsv`, here or in folders below | no header: id, text |
| parquet (Hugging Face) | `*.parquet`, here, in `data/` or `<split>/` | audio {bytes, path}; text as above |
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

COLUMNS = frozenset({"id", "audio", "text", "speaker", "programme", "kind"})
SPLITS = ("train", "test", "validation", "valid", "dev", "validated", "other", "invalidated")
MAX_FIELD_CHARACTERS = 1_000_000

TEXT_COLUMNS = ("text", "transcription", "sentence", "text_gl")
"""Usual names. `text_gl` is that of corpora with translations."""
_OPTIONAL = {
    "id": ("id",),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "programme": ("programme", "program"),
    "kind": ("kind", "type", "domain"),
}
FLEURS_COLUMNS = (
    "sentence_id",
    "file_name",
    "raw_transcription",
    "transcription",
    "characters",
    "n_samples",
    "gender",
)


class HeldOutError(ValueError):
    """A held-out set that cannot be read. Written for a person: file, line and reason."""


class NothingFound(HeldOutError):
    """A folder in which nothing is a corpus's list of utterances."""


OnBadRow = Callable[[str, HeldOutError], None]
"""Hears of a row that cannot be read: where it stands, and the reason. What it raises ends the reading."""


def stop_at_bad_row(where: str, error: HeldOutError) -> None:
    """Held-out sets are read whole or not at all."""
    raise error


class LayoutKind(StrEnum):
    """How a set lies in its folder; the value is what a person reads."""

    MANIFEST = "manifest"
    AUDIOFOLDER = "audiofolder"
    COMMON_VOICE = "Common Voice"
    FLEURS = "FLEURS"
    OPENSLR = "OpenSLR"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Layout:
    """What was found in a set's folder."""

    kind: LayoutKind
    folder: Path
    files: tuple[Path, ...]
    split: str
    columns: Mapping[str, str]
    """Ours to the file's, where `set.toml` says so."""
    described_in: str = "set.toml"
    """What a person is told to change where columns are not clear."""
    also: tuple[str, ...] = ()
    """Further columns of the files that rows carry along in `other`."""

    @property
    def shown(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else f"{self.folder} ({len(self.files)} files)"

    def describe(self) -> str:
        """`Common Voice: test.tsv`."""
        names = [str(file.relative_to(self.folder)) for file in self.files]
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        return f"{self.kind.value}: {shown}"


@dataclass(frozen=True)
class Row:
    """One utterance as its set lists it."""

    key: str
    audio: str
    """Relative to the set's folder; `file#row` inside a parquet file."""
    text: str
    speaker: str | None
    programme: str | None
    kind: str | None
    where: str
    """File and line, for errors."""
    other: Mapping[str, str | None] = field(default_factory=dict)
    """By the files' names of the columns in `Layout.also`."""


def find_layout(
    folder: Path,
    *,
    manifest: str | None,
    split: str,
    columns: Mapping[str, str],
    said_in: str = "set.toml",
) -> Layout:
    """What lies in `folder`. `said_in` is what a person is told to change where that is not clear.

    Raises:
        NothingFound: nothing that is known.
        HeldOutError: two manifests, or the one that is named is not there.
    """

    def found(kind: LayoutKind, files: Sequence[Path]) -> Layout:
        return Layout(kind, folder, tuple(files), split, columns, described_in=said_in)

    if manifest is not None:
        file = folder / safe_path(manifest, f"{folder}: `manifest` of {said_in}")
        if not file.is_file():
            raise HeldOutError(f"{file}: no such file; {said_in} names it as the manifest")
        return found(LayoutKind.PARQUET if file.suffix == ".parquet" else LayoutKind.MANIFEST, [file])
    if files := _one_of(folder, "manifest", (".jsonl", ".csv", ".tsv"), said_in):
        return found(LayoutKind.MANIFEST, files)
    for place in (folder, folder / split):
        if files := _one_of(place, "metadata", (".jsonl", ".csv"), said_in):
            return found(LayoutKind.AUDIOFOLDER, files)
    listed = folder / f"{split}.tsv"
    if listed.is_file() and (folder / "clips").is_dir():
        return found(LayoutKind.COMMON_VOICE, [listed])
    if listed.is_file() and (folder / "audio" / split).is_dir():
        return found(LayoutKind.FLEURS, [listed])
    if files := sorted([*folder.glob("line_index*.tsv"), *folder.glob("*/line_index*.tsv")]):
        return found(LayoutKind.OPENSLR, files)
    if files := _parquet_files(folder, split):
        return found(LayoutKind.PARQUET, files)
    raise NothingFound(
        f"{folder}: no held-out set is found in it: there is no manifest.jsonl, .csv or .tsv, no metadata.jsonl or "
        f".csv, no {split}.tsv beside clips/ or audio/{split}/, no line_index.tsv and no parquet file of the split "
        f"{split!r}. Add one, name it in set.toml (`manifest`, `split`), or take the folder out"
    )


def read_rows(layout: Layout, *, on_bad: OnBadRow = stop_at_bad_row) -> list[Row]:
    """All rows, in the files' order.

    Args:
        on_bad: hears of every row that cannot be read. Where it returns, the row is left out and reading goes on.

    Raises:
        HeldOutError: naming the file, the line and the reason. Whatever `on_bad` does, this is raised where a file
            is not there or its columns do not tell what they are.
    """
    if layout.kind is LayoutKind.PARQUET:
        return _parquet_rows(layout, on_bad)
    rows: list[Row] = []
    for file in layout.files:
        match layout.kind:
            case LayoutKind.MANIFEST:
                named = named_rows(file, on_bad)
                rows += _from_columns(layout, file, named, on_bad, audio=("audio",), prefix="")
            case LayoutKind.AUDIOFOLDER:
                prefix = "" if file.parent == layout.folder else f"{file.parent.name}/"
                named = named_rows(file, on_bad)
                rows += _from_columns(layout, file, named, on_bad, audio=("file_name",), prefix=prefix)
            case LayoutKind.COMMON_VOICE:
                # its fields are never quoted, and quotation marks are part of the sentences
                named = _table_rows(file, "\t", on_bad, quoted=False)
                rows += _from_columns(layout, file, named, on_bad, audio=("path",), prefix="clips/")
            case LayoutKind.FLEURS:
                rows += _fleurs_rows(layout, file, on_bad)
            case LayoutKind.OPENSLR:
                rows += _openslr_rows(layout, file, on_bad)
    return rows


def safe_path(given: str, where: str) -> str:
    """A path inside the set's folder, in one spelling.

    Raises:
        HeldOutError: it is absolute or leads out of the folder.
    """
    path = PurePosixPath(given)
    if not given.strip() or "\0" in given or path == PurePosixPath("."):
        raise HeldOutError(f"{where}: the audio's path is empty")
    if path.is_absolute():
        raise HeldOutError(f"{where}: {given!r} is an absolute path; write it relative to the set's folder")
    if ".." in path.parts:
        raise HeldOutError(f"{where}: {given!r} leads out of the set's folder")
    return str(path)


def _one_of(folder: Path, stem: str, endings: Sequence[str], said_in: str) -> list[Path]:
    files = [file for ending in endings if (file := folder / f"{stem}{ending}").is_file()]
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise HeldOutError(
            f"{folder}: {names} are both there; leave one, or name it in {said_in} (`manifest`)"
        )
    return files


def _parquet_files(folder: Path, split: str) -> list[Path]:
    def is_of(file: Path, name: str) -> bool:
        return file.stem == name or file.name.startswith((f"{name}-", f"{name}.", f"{name}_"))

    own = sorted((folder / split).glob("*.parquet"))
    files = own or sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    chosen = [file for file in files if is_of(file, split)]
    if own or chosen:
        return chosen or own
    # files of other splits are not taken for this one
    return [] if any(is_of(file, other) for file in files for other in SPLITS) else files


# --- rows of named columns -------------------------------------------------------------------------------


def _from_columns(
    layout: Layout,
    file: Path,
    rows: Iterator[tuple[str, dict[str, Any]]],
    on_bad: OnBadRow,
    *,
    audio: Sequence[str],
    prefix: str,
) -> Iterator[Row]:
    chosen: dict[str, str] | None = None
    for where, row in rows:
        if chosen is None and file.suffix != ".jsonl":
            # one header for all rows: where it is not clear, none of them is
            chosen = choose_columns(layout.columns, row, where, audio=audio, said_in=layout.described_in)
        try:
            columns = chosen or choose_columns(
                layout.columns, row, where, audio=audio, said_in=layout.described_in
            )
            read = _row_of(layout, row, columns, prefix, where)
        except HeldOutError as error:
            on_bad(where, error)
            continue
        yield read


def _row_of(
    layout: Layout, row: Mapping[str, Any], chosen: Mapping[str, str], prefix: str, where: str
) -> Row:
    given = text_value(row, chosen["audio"], where)
    path = safe_path(prefix + safe_path(given, where), where)
    return Row(
        key=optional_value(row, chosen.get("id"), where) or given,
        audio=path,
        text=text_value(row, chosen["text"], where),
        speaker=optional_value(row, chosen.get("speaker"), where),
        programme=optional_value(row, chosen.get("programme"), where),
        kind=optional_value(row, chosen.get("kind"), where),
        where=where,
        other={column: optional_value(row, column, where) for column in layout.also},
    )


def choose_columns(
    mapped: Mapping[str, str],
    there: Mapping[str, Any],
    where: str,
    *,
    audio: Sequence[str],
    said_in: str = "set.toml",
) -> dict[str, str]:
    """Ours to the file's columns: what `mapped` says, which a person wrote in `said_in`, else the usual names.

    Raises:
        HeldOutError: one that is needed is not there, or it is not clear which one holds the text.
    """
    chosen: dict[str, str] = {}
    for ours, candidates in {"audio": tuple(audio), "text": TEXT_COLUMNS, **_OPTIONAL}.items():
        if ours in mapped:
            if mapped[ours] not in there:
                raise HeldOutError(f"{where}: there is no `{mapped[ours]}`, which {said_in} names for {ours}")
            chosen[ours] = mapped[ours]
            continue
        found = [name for name in candidates if name in there]
        if ours in _OPTIONAL:
            chosen |= {ours: found[0]} if found else {}
        elif not found:
            names = ", ".join(f"`{name}`" for name in candidates)
            has = ", ".join(there) or "nothing"
            raise HeldOutError(f"{where}: there is no {names} (it has: {has}); {said_in} can say which it is")
        elif len(found) > 1:
            raise HeldOutError(
                f"{where}: both `{found[0]}` and `{found[1]}` could be the {ours}; say which in {said_in}, [columns]"
            )
        else:
            chosen[ours] = found[0]
    return chosen


def text_value(row: Mapping[str, Any], column: str, where: str) -> str:
    """A text that must be there; it may be empty."""
    value = row.get(column)
    if not isinstance(value, str):
        hint = "; write an empty text where nothing is said" if column in TEXT_COLUMNS else ""
        raise HeldOutError(f"{where}: `{column}` must be a text{hint}")
    return clean(value, column, where)


def optional_value(row: Mapping[str, Any], column: str | None, where: str) -> str | None:
    """A text or a whole number that may be missing; empty means not known."""
    value = row.get(column) if column else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise HeldOutError(f"{where}: `{column}` must be a text or a whole number")
    return clean(str(value), column or "", where).strip() or None


def clean(value: str, column: str, where: str) -> str:
    """NFC. Refuses what no database holds."""
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise HeldOutError(f"{where}: `{column}` holds a sign that is no text (U+0000 or half a surrogate)")
    return unicodedata.normalize("NFC", value)


def named_rows(file: Path, on_bad: OnBadRow = stop_at_bad_row) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, values by column) of each row of a .jsonl, .csv or .tsv file."""
    match file.suffix:
        case ".jsonl" | ".ndjson":
            return _json_rows(file, on_bad)
        case ".csv":
            return _table_rows(file, ",", on_bad)
        case ".tsv":
            return _table_rows(file, "\t", on_bad)
    raise HeldOutError(f"{file}: a manifest is a .jsonl, .csv, .tsv or .parquet file")


def _json_rows(file: Path, on_bad: OnBadRow) -> Iterator[tuple[str, dict[str, Any]]]:
    for line, content in enumerate(_read(file, on_bad).split("\n"), start=1):
        where = f"{file}, line {line}"
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        # ValueError, too: a whole number of thousands of digits is JSON, and nothing that Python reads
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            on_bad(where, HeldOutError(f"{where}: not JSON that can be read ({reason})"))
            continue
        if not isinstance(row, dict):
            on_bad(where, HeldOutError(f"{where}: not an object with `audio` and `text`"))
            continue
        yield where, row


def _table_rows(
    file: Path, delimiter: str, on_bad: OnBadRow, *, quoted: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    content = io.StringIO(_read(file, on_bad), newline="")
    if quoted:
        reader = csv.reader(content, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(content, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    header = _header(file, reader)
    while True:
        where = f"{file}, line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            # a quotation mark that is never closed: everything after it
            on_bad(where, HeldOutError(f"{file}, line {reader.line_num}: {error}"))
            continue
        if fields is None:
            return
        if not fields:
            continue
        if len(fields) != len(header):
            n_fields = f"{len(fields)} fields, and the header has {len(header)}"
            on_bad(where, HeldOutError(f"{where}: {n_fields}"))
            continue
        yield where, dict(zip(header, fields, strict=True))


def _header(file: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise HeldOutError(f"{file}, line 1: {error}") from error
    if names is None:
        raise HeldOutError(f"{file}: the file is empty")
    header = [name.strip() for name in names]
    if repeated := [name for name in header if header.count(name) > 1]:
        raise HeldOutError(f"{file}, line 1: the column `{repeated[0]}` is there twice")
    return header


def _read(file: Path, on_bad: OnBadRow) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise HeldOutError(f"{file}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if on_bad is not stop_at_bad_row:
            # only the rows with such bytes are refused, by `clean`
            return content.decode("utf-8-sig", "surrogateescape")
        line = content[: error.start].count(b"\n") + 1
        raise HeldOutError(f"{file}, line {line}: not UTF-8 text ({error.reason})") from error


# --- layouts without a header ----------------------------------------------------------------------------


def _plain_lines(file: Path, on_bad: OnBadRow) -> Iterator[tuple[str, list[str]]]:
    for line, content in enumerate(_read(file, on_bad).split("\n"), start=1):
        if content.strip():
            yield f"{file}, line {line}", content.removesuffix("\r").split("\t")


def _fleurs_rows(layout: Layout, file: Path, on_bad: OnBadRow) -> Iterator[Row]:
    text = layout.columns.get("text", "raw_transcription")
    if text not in FLEURS_COLUMNS:
        raise HeldOutError(f"{file}: FLEURS has no `{text}`; it has {', '.join(FLEURS_COLUMNS)}")
    for where, fields in _plain_lines(file, on_bad):
        try:
            row = _fleurs_row(layout, fields, text, where)
        except HeldOutError as error:
            on_bad(where, error)
            continue
        yield row


def _fleurs_row(layout: Layout, fields: Sequence[str], text: str, where: str) -> Row:
    if len(fields) != len(FLEURS_COLUMNS):
        raise HeldOutError(f"{where}: {len(fields)} fields, and FLEURS has {len(FLEURS_COLUMNS)}")
    row = dict(zip(FLEURS_COLUMNS, fields, strict=True))
    name = safe_path(row["file_name"], where)
    # several speakers read one sentence, and no file says who: the sentence's id is not the utterance's
    audio = f"audio/{layout.split}/{name}"
    return Row(name, audio, clean(row[text], text, where), None, None, None, where)


def _openslr_rows(layout: Layout, file: Path, on_bad: OnBadRow) -> Iterator[Row]:
    by_id: dict[str, list[Path]] = {}
    for audio in sorted(file.parent.rglob("*.wav")):
        by_id.setdefault(audio.stem, []).append(audio)
    for where, fields in _plain_lines(file, on_bad):
        try:
            row = _openslr_row(layout, file, fields, by_id, where)
        except HeldOutError as error:
            on_bad(where, error)
            continue
        yield row


def _openslr_row(
    layout: Layout, file: Path, fields: Sequence[str], by_id: Mapping[str, list[Path]], where: str
) -> Row:
    if len(fields) < 2:
        raise HeldOutError(f"{where}: not an id and a text with a tabulator between them")
    key = clean(fields[0].strip(), "id", where)
    text = " ".join(part.strip() for part in fields[1:] if part.strip())
    speaker, stroke, _ = key.rpartition("_")
    beside = by_id.get(key, [])
    if not beside:
        raise HeldOutError(f"{where}: there is no {key}.wav in {file.parent} or below")
    if len(beside) > 1:
        raise HeldOutError(f"{where}: {beside[0]} and {beside[1]} could both be its audio")
    audio_path = beside[0].relative_to(layout.folder).as_posix()
    clean(audio_path, ascii(audio_path), where)  # as it is on the disk, but refused where it is no text
    return Row(key, audio_path, clean(text, "text", where), speaker if stroke else None, None, None, where)


# --- parquet ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Record:
    """One row of a parquet file, without its audio."""

    where: str
    audio: str
    path: str | None
    values: Mapping[str, str | None]
    """By our names of the columns."""
    other: Mapping[str, str | None]


def _parquet_rows(layout: Layout, on_bad: OnBadRow) -> list[Row]:
    records = [record for file in layout.files for record in _parquet_records(layout, file, on_bad)]
    if "id" in layout.columns:
        for record in records:
            if record.values["id"] is None:
                on_bad(record.where, HeldOutError(f"{record.where}: its id is empty"))
        records = [record for record in records if record.values["id"] is not None]
    return [
        Row(
            key=key,
            audio=record.audio,
            text=record.values["text"] or "",
            speaker=record.values.get("speaker"),
            programme=record.values.get("programme"),
            kind=record.values.get("kind"),
            where=record.where,
            other=record.other,
        )
        for key, record in zip(_parquet_keys(layout, records), records, strict=True)
    ]


def _parquet_records(layout: Layout, file: Path, on_bad: OnBadRow) -> Iterator[_Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            there = dict.fromkeys(schema.names)
            chosen = choose_columns(
                layout.columns, there, str(file), audio=("audio",), said_in=layout.described_in
            )
            audio = schema.field(chosen["audio"]).type
            if not pa.types.is_struct(audio) or audio.get_field_index("bytes") < 0:
                raise HeldOutError(f"{file}: `{chosen['audio']}` must be a struct with the field `bytes`")
            also = [column for column in layout.also if column in there]
            wanted = [column for ours, column in chosen.items() if ours != "audio"] + also
            if audio.get_field_index("path") >= 0:
                wanted.append(f"{chosen['audio']}.path")
            rows = parquet.read(columns=wanted).to_pylist()
    except (OSError, pa.ArrowException) as error:
        on_bad(str(file), HeldOutError(f"{file}: not a readable parquet file ({error})"))
        return
    name = file.relative_to(layout.folder).as_posix()
    for number, row in enumerate(rows):
        where = f"{file}, row {number}"
        try:
            values: dict[str, str | None] = {"text": text_value(row, chosen["text"], where)}
            values |= {ours: optional_value(row, chosen.get(ours), where) for ours in _OPTIONAL}
            other = {column: optional_value(row, column, where) for column in layout.also}
            path = (row.get(chosen["audio"]) or {}).get("path")
            path = path and clean(path, "path", where)
        except HeldOutError as error:
            on_bad(where, error)
            continue
        yield _Record(where, f"{name}#{number}", path, values, other)


def _parquet_keys(layout: Layout, records: Sequence[_Record]) -> list[str]:
    """Ids where set.toml names their column; else ids that differ, else the files' own names, else row numbers.

    An `id` in a corpus's parquet may be that of the sentence, which several speakers read.
    """
    ids = [record.values["id"] for record in records]
    if "id" in layout.columns:
        return [key for key in ids if key is not None]
    for candidates in (ids, [record.path for record in records]):
        keys = [key for key in candidates if key]
        if len(set(keys)) == len(records):
            return keys
    return [record.audio for record in records]
