"""Manifests of training data, read for one purpose: what they share with held-out sets (`evaluation.overlap`).

`.parquet` as `fonoteca train prepare` writes it; or `.jsonl`, `.csv` or `.tsv` with `audio` and `text`, and where they
are known `sha256`, `dataset`, `split`, `speaker`, `programme` and `duration_s`. Where `sha256` is not given and the
file is there, it is computed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.card import card_figure
from evaluation.manifests import HeldOutError, named_rows, optional_value, text_value
from evaluation.overlap import ManifestRow

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def read_training_manifest(file: Path) -> Iterator[ManifestRow]:
    """Its rows, one by one. A path in `audio` is relative to the manifest's folder, or absolute.

    Raises:
        HeldOutError: naming the file, the line and the reason.
    """
    for where, row in _parquet_rows(file) if file.suffix == ".parquet" else named_rows(file):
        audio = text_value(row, "audio", where)
        sha256 = optional_value(row, "sha256", where)
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise HeldOutError(f"{where}: `sha256` must be 64 hexadecimal digits")
        yield ManifestRow(
            audio=audio,
            text=text_value(row, "text", where),
            duration_s=_seconds(row, where),
            dataset=dataset_name(optional_value(row, "dataset", where) or file.stem),
            split=optional_value(row, "split", where) or "train",
            speaker=optional_value(row, "speaker", where),
            programme=optional_value(row, "programme", where),
            sha256=sha256 or _hash_of(file.parent / audio),
        )


def _parquet_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches():
                for row in batch.to_pylist():
                    yield f"{file}, row {number}", row
                    number += 1
    except (OSError, pa.ArrowException) as error:
        raise HeldOutError(f"{file}: not a readable parquet file ({error})") from error


def dataset_name(name: str) -> str:
    """One spelling for the datasets that the model card knows, so that speakers of the same one are compared."""
    figure = card_figure(name)
    return figure.dataset if figure else name


def _seconds(row: Mapping[str, Any], where: str) -> float:
    value = row.get("duration_s")
    if value in (None, ""):
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise HeldOutError(f"{where}: `duration_s` must be a number") from error


def _hash_of(file: Path) -> str | None:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, ValueError):
        return None  # not on this machine: the audio is not compared, which the report says
