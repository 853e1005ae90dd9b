"""Files of utterances: what was said, or what a model wrote, one row each.

| ending | form |
|---|---|
| `.jsonl`, `.ndjson` | an object a line with `id` and `text`; matched by id |
| `.csv`, `.tsv` | a header with `id` and `text`; matched by id |
| anything else | UTF-8 text, one utterance a line; matched by line; an empty line is an empty utterance |
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_NAMED = 5
"""Identities that an error names before it counts the rest."""
MAX_FIELD_CHARACTERS = 1_000_000
"""Of a field of a table, as in the manifests of held-out sets: an hour of speech is some 60,000."""


class UtteranceFileError(ValueError):
    """A file that cannot be read as utterances, or does not match another. Written for a person."""


@dataclass(frozen=True)
class Utterances:
    """One file's rows."""

    path: Path
    ids: tuple[str, ...] | None
    """None where rows are matched by their line."""
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)


def read_utterances(path: Path, column: str = "text") -> Utterances:
    """Read one file; `column` names the value of a row ("text", or "cluster" for what it belongs to).

    Raises:
        UtteranceFileError: naming the file, the line and the reason.
    """
    text = _read(path)
    kind = path.suffix.lower()
    if kind == ".json":
        raise UtteranceFileError(
            f"{path}: one JSON document; write one object a line, and name the file .jsonl"
        )
    if kind in (".jsonl", ".ndjson"):
        return _identified(path, list(_json_rows(path, text, column)))
    if kind in (".csv", ".tsv"):
        return _identified(path, list(_csv_rows(path, text, column, "," if kind == ".csv" else "\t")))
    lines = text.removesuffix("\n").split("\n") if text else []
    if not lines:
        raise UtteranceFileError(f"{path}: the file is empty")
    return Utterances(path, None, tuple(line.removesuffix("\r") for line in lines))


def match(refs: Utterances, other: Utterances) -> list[str]:
    """The other file's values, in the order of the references.

    Raises:
        UtteranceFileError: the two do not hold the same utterances.
    """
    if refs.ids is None and other.ids is None:
        if len(refs) != len(other):
            raise UtteranceFileError(
                f"{refs.path} has {len(refs):,} lines and {other.path} has {len(other):,}: "
                "files without ids are matched line by line"
            )
        return list(other.values)
    if refs.ids is None or other.ids is None:
        with_ids, without = (refs, other) if other.ids is None else (other, refs)
        raise UtteranceFileError(
            f"{with_ids.path} has ids and {without.path} has none: they cannot be matched. "
            "Give both as .jsonl, .csv or .tsv, or both with one utterance a line"
        )
    values = dict(zip(other.ids, other.values, strict=True))
    known = set(refs.ids)
    missing = [identity for identity in refs.ids if identity not in values]
    extra = [identity for identity in other.ids if identity not in known]
    if missing or extra:
        parts = [
            f"lacks {_named(ids)} of {source.path}"
            if ids is missing
            else f"has {_named(ids)} that {source.path} lacks"
            for ids, source in ((missing, refs), (extra, refs))
            if ids
        ]
        raise UtteranceFileError(f"{other.path} {' and '.join(parts)}")
    return [values[identity] for identity in refs.ids]


def _named(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(identity) for identity in ids[:MAX_NAMED])
    rest = f" and {len(ids) - MAX_NAMED:,} more" if len(ids) > MAX_NAMED else ""
    return f"{'id' if len(ids) == 1 else f'{len(ids):,} ids,'} {shown}{rest}"


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UtteranceFileError(f"{path}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UtteranceFileError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from error


def _identified(path: Path, rows: Sequence[tuple[int, str, str]]) -> Utterances:
    """Rows of (line, id, value), each id once."""
    if not rows:
        raise UtteranceFileError(f"{path}: no utterances")
    lines: dict[str, int] = {}
    for line, identity, _ in rows:
        if identity in lines:
            raise UtteranceFileError(
                f"{path}, line {line}: id {identity!r} was already on line {lines[identity]}"
            )
        lines[identity] = line
    return Utterances(path, tuple(row[1] for row in rows), tuple(row[2] for row in rows))


def _json_rows(path: Path, text: str, column: str) -> Iterator[tuple[int, str, str]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        # ValueError, too: a whole number of thousands of digits is JSON, and nothing that Python reads
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or str(error)
            raise UtteranceFileError(f"{path}, line {line}: not JSON that can be read ({reason})") from error
        if not isinstance(row, dict):
            raise UtteranceFileError(f"{path}, line {line}: not an object with `id` and `{column}`")
        identity, value = row.get("id"), row.get(column)
        if isinstance(identity, bool) or not isinstance(identity, str | int):
            raise UtteranceFileError(f"{path}, line {line}: `id` must be a text or a whole number")
        if not isinstance(value, str):
            hint = "; write an empty text where nothing was said" if column == "text" else ""
            raise UtteranceFileError(f"{path}, line {line}: `{column}` must be a text{hint}")
        yield line, str(identity), value


def _csv_rows(path: Path, text: str, column: str, delimiter: str) -> Iterator[tuple[int, str, str]]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        there = reader.fieldnames or ()
    except csv.Error as error:
        raise UtteranceFileError(f"{path}, line 1: {error}") from error
    lacking = [name for name in ("id", column) if name not in there]
    if lacking:
        raise UtteranceFileError(
            f"{path}, line 1: the header lacks {' and '.join(f'`{name}`' for name in lacking)}"
            f" (it has: {', '.join(there) or 'nothing'})"
        )
    first = reader.line_num + 1
    try:
        for row in reader:
            if None in row or row["id"] is None or row[column] is None:
                raise UtteranceFileError(
                    f"{path}, line {reader.line_num}: not as many fields as the header has"
                )
            yield reader.line_num, row["id"], row[column]
            first = reader.line_num + 1
    except csv.Error as error:
        # the reader has counted on to the line that it broke at: the row began where the last one ended
        raise UtteranceFileError(f"{path}, line {first}: {error}") from error
