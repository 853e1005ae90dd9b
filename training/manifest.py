"""The one form in which training reads speech corpora: a parquet file with a row for each utterance.

| column | what |
|---|---|
| id | unique in the manifest: `dataset/split/key` |
| audio | where it lies below its dataset's folder: `clips/a.mp3`, or `data/train-0.parquet#17` for row 17 |
| text | what is said, NFC |
| duration_s | of the decoded audio |
| dataset, split | `train`, `validation` or `test` |
| speaker, programme | null where not known |
| sha256 | of the audio as stored, in hexadecimal |

Its metadata hold the folder of each dataset (`fonoteca.folders`, JSON), so that a manifest can be moved and the
corpora cannot be confused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Manifest", "ManifestError", "Utterance", "read_manifest", "write_manifest"]

FOLDERS_KEY = b"fonoteca.folders"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("audio", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("speaker", pa.string()),
        pa.field("programme", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


class ManifestError(ValueError):
    """A manifest that cannot be read. Names the file, the reason and what to do."""


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest."""

    id: str
    audio: str
    text: str
    duration_s: float
    dataset: str
    split: str
    speaker: str | None
    programme: str | None
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Utterances, and where the audio of each dataset lies."""

    utterances: tuple[Utterance, ...]
    folders: Mapping[str, Path]

    def of_split(self, split: str) -> Manifest:
        """Its utterances of one split."""
        return replace(self, utterances=tuple(u for u in self.utterances if u.split == split))

    def sha256(self) -> str:
        """Of what is trained on: ids, texts and audio, in order, wherever the folders lie."""
        digest = hashlib.sha256()
        for utterance in self.utterances:
            digest.update(f"{utterance.id}\0{utterance.text}\0{utterance.sha256}\n".encode())
        return digest.hexdigest()


def write_manifest(path: Path, utterances: Iterable[Utterance], folders: Mapping[str, Path]) -> None:
    """Write a manifest, whole or not at all."""
    rows = [asdict(utterance) for utterance in utterances]
    where = json.dumps({dataset: str(folder.resolve()) for dataset, folder in folders.items()})
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({FOLDERS_KEY: where.encode()}))
    unfinished = path.with_name(path.name + ".unfinished")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.replace(path)


def read_manifest(path: Path, *, folders: Mapping[str, Path] | None = None) -> Manifest:
    """Read a manifest; `folders` says where datasets lie that were moved.

    Raises:
        ManifestError: the file is missing, is no manifest, or names a dataset without a folder.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(
            f"{path} cannot be read ({error}): make a manifest with `fonoteca train prepare`"
        ) from error
    missing = [field.name for field in fields(Utterance) if field.name not in table.column_names]
    if missing:
        raise ManifestError(
            f"{path} is no manifest, it lacks {', '.join(missing)}: make one with `fonoteca train prepare`"
        )
    known = json.loads((table.schema.metadata or {}).get(FOLDERS_KEY, b"{}"))
    where = {dataset: Path(folder) for dataset, folder in known.items()} | dict(folders or {})
    utterances = tuple(Utterance(**row) for row in table.select(SCHEMA.names).to_pylist())
    for dataset in sorted({utterance.dataset for utterance in utterances} - where.keys()):
        raise ManifestError(f"{path} does not say where {dataset} lies: name its folder")
    return Manifest(utterances, where)
