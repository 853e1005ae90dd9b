"""Rows of a view as a file, piece by piece: CSV, NDJSON, Parquet. Memory holds some thousand rows, however many come.

pyarrow is imported where Parquet is written and nowhere else: the API starts without it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from db.archive_views import Column, RowForm

PARQUET_ROWS = 50_000
PARQUET_BYTES = 32 * 2**20
"""A row group is written when it has so many rows or bytes."""


class FileFormat(StrEnum):
    """How a view is written."""

    CSV = "csv"
    PARQUET = "parquet"
    NDJSON = "ndjson"


MEDIA_TYPES = {
    FileFormat.CSV: "text/csv; charset=utf-8; header=present",
    FileFormat.PARQUET: "application/vnd.apache.parquet",
    FileFormat.NDJSON: "application/x-ndjson",
}
ROW_FORMS = {
    FileFormat.CSV: RowForm.TEXTS,
    FileFormat.PARQUET: RowForm.VALUES,
    FileFormat.NDJSON: RowForm.JSON,
}

Rows = Iterable[Sequence[Any]]
"""Lists of rows, in the form that ROW_FORMS names."""


def write_file(
    file_format: FileFormat, columns: Sequence[Column], rows: Rows, about: dict[str, str]
) -> Iterator[bytes]:
    """The file's bytes in pieces. `about` goes into a Parquet file's metadata."""
    if file_format is FileFormat.CSV:
        return write_csv(columns, rows)
    return write_ndjson(rows) if file_format is FileFormat.NDJSON else write_parquet(columns, rows, about)


def write_csv(columns: Sequence[Column], rows: Rows) -> Iterator[bytes]:
    """RFC 4180: a line of names, CRLF, quotes where they are needed. NULL is nothing at all, empty text is `""`."""
    yield csv_line([column.name for column in columns]).encode()
    for chunk in rows:
        yield "".join(map(csv_line, chunk)).encode()


def csv_line(values: Sequence[str | None]) -> str:
    """One line of CSV."""
    return ",".join(map(csv_value, values)) + "\r\n"


def csv_value(value: str | None) -> str:
    """One value of CSV."""
    if value is None:
        return ""
    # one search a sign, in C, instead of a pattern for all of them
    if (
        "," in value
        or '"' in value
        or "\n" in value
        or "\r" in value
        or not value
        or " " in (value[0], value[-1])
    ):
        return '"' + value.replace('"', '""') + '"'
    return value


def write_ndjson(rows: Rows) -> Iterator[bytes]:
    """One JSON object a line."""
    for chunk in rows:
        yield "".join(f"{row[0]}\n" for row in chunk).encode()


def write_parquet(columns: Sequence[Column], rows: Rows, about: dict[str, str]) -> Iterator[bytes]:
    """Parquet by row groups, compressed with Zstandard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column.name, arrow_type(column.type)) for column in columns], metadata=about)
    sink = Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        batches: list[Any] = []
        for chunk in rows:
            arrays = [
                pa.array(values, type=field.type)
                for values, field in zip(zip(*chunk, strict=True), schema, strict=True)
            ]
            batches.append(pa.record_batch(arrays, schema=schema))
            n_bytes = sum(batch.nbytes for batch in batches)
            if sum(batch.num_rows for batch in batches) >= PARQUET_ROWS or n_bytes >= PARQUET_BYTES:
                writer.write_table(pa.Table.from_batches(batches, schema))
                batches = []
            # a piece for every chunk, empty or not: between two, a stream can be stopped
            yield sink.take()
        if batches:
            writer.write_table(pa.Table.from_batches(batches, schema))
    yield sink.take()


def arrow_type(type_name: str) -> Any:
    """The Arrow type of a column of PostgreSQL's type."""
    import pyarrow as pa

    if type_name.endswith("[]"):
        return pa.list_(arrow_type(type_name[:-2]))
    return {
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "real": pa.float32(),
        "double precision": pa.float64(),
        "numeric": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    }.get(type_name, pa.string())


class Sink(io.RawIOBase):
    """A file that is written once, from front to back, and taken away as it grows."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        part = bytes(content)
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
