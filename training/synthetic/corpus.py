"""The synthetic corpus on disk: a folder with all samples in one file and a table of clips.

- `audio.i16`: the samples of all clips, one after another: 16 kHz, mono, int16, of the machine's byte order.
- `clips.parquet`: a row for each clip (`Clip`), in the order of the audio. Its metadata say how it was made
  (`fonoteca.recipe`, JSON).

Appending is by whole chunks; the table is written last, so that a folder with one is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["SAMPLE_RATE_HZ", "Clip", "Corpus", "CorpusError", "CorpusWriter", "to_int16"]

SAMPLE_RATE_HZ = 16_000
AUDIO, CLIPS = "audio.i16", "clips.parquet"
RECIPE_KEY = b"fonoteca.recipe"

SCHEMA = pa.schema(
    [
        pa.field("start", pa.int64(), nullable=False),
        pa.field("n_samples", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("voice", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),
        pa.field("phonemes", pa.list_(pa.string()), nullable=False),
        pa.field("phoneme_ends_ms", pa.list_(pa.int32()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


class CorpusError(ValueError):
    """A corpus that cannot be read. Names the file, the reason and what to do."""


@dataclass(frozen=True)
class Clip:
    """One row of the table."""

    start: int
    """Sample of `audio.i16` at which it begins."""
    n_samples: int
    text: str
    """What is said; empty where nobody speaks."""
    part: str
    """news, interface, words, prose, fragments or nothing."""
    voice: str
    """Table and variant of espeak-ng, `es+f2`; empty where nobody speaks."""
    condition: str
    """One of `acoustics.CONDITIONS`; for part nothing what is heard: silence, noise, music or tone."""
    phonemes: tuple[str, ...]
    """Names of `letters.PHONEMES`, and `sil`."""
    phoneme_ends_ms: tuple[int, ...]
    """When each phoneme ends, from the beginning of the clip."""
    split: str
    """train, validation or test."""


def to_int16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Samples of -1 to 1 as 16-bit integers; beyond they are clipped."""
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


class Corpus:
    """A corpus that is there. Samples are read from the file as they are asked for."""

    def __init__(self, folder: Path, clips: tuple[Clip, ...], recipe: Mapping[str, Any]) -> None:
        self.folder = folder
        self.clips = clips
        self.recipe = recipe
        size = (folder / AUDIO).stat().st_size
        self._audio: npt.NDArray[np.int16] = (
            np.memmap(folder / AUDIO, dtype=np.int16, mode="r") if size else np.empty(0, np.int16)
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a corpus.

        Raises:
            CorpusError: the folder has no whole corpus.
        """
        try:
            table = pq.read_table(folder / CLIPS)
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(
                f"{folder} has no whole corpus ({error}): make one with python -m training.synthetic corpus"
            ) from error
        missing = [field.name for field in fields(Clip) if field.name not in table.column_names]
        if missing:
            raise CorpusError(f"{folder / CLIPS} lacks {', '.join(missing)}: make the corpus again")
        clips = tuple(
            Clip(
                **row | {"phonemes": tuple(row["phonemes"]), "phoneme_ends_ms": tuple(row["phoneme_ends_ms"])}
            )
            for row in table.select(SCHEMA.names).to_pylist()
        )
        n_samples = sum(clip.n_samples for clip in clips)
        found = (folder / AUDIO).stat().st_size // 2 if (folder / AUDIO).exists() else 0
        if found != n_samples:
            raise CorpusError(
                f"{folder / AUDIO} has {found} samples and {CLIPS} {n_samples}: make the corpus again"
            )
        return cls(folder, clips, json.loads((table.schema.metadata or {}).get(RECIPE_KEY, b"{}")))

    def samples(self, index: int) -> npt.NDArray[np.float32]:
        """Samples of a clip, float32 of -1 to 1 at 16 kHz, shape (n_samples,)."""
        return self.samples_int16(index).astype(np.float32) / np.float32(32768)

    def samples_int16(self, index: int) -> npt.NDArray[np.int16]:
        """The same as it lies on disk, without a copy; not to be written to."""
        clip = self.clips[index]
        return self._audio[clip.start : clip.start + clip.n_samples]

    def hours(self) -> float:
        """Of all clips."""
        return sum(clip.n_samples for clip in self.clips) / SAMPLE_RATE_HZ / 3600


class CorpusWriter:
    """Writes a corpus from first to last clip. A context manager: without an error there is a corpus at the end."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLIPS).unlink(missing_ok=True)
        self._folder, self._recipe = folder, recipe
        self._audio: BinaryIO = (folder / AUDIO).open("wb")
        self._clips: list[Clip] = []
        self.n_samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._audio.close()
        if kind is None:
            self._write_table()

    def append(self, clips: Iterable[Clip], samples: bytes | npt.NDArray[np.int16]) -> None:
        """Append clips that lie one after another in `samples`; their `start` is set here."""
        content = samples if isinstance(samples, bytes) else samples.tobytes()
        start = self.n_samples
        for clip in clips:
            self._clips.append(Clip(**asdict(clip) | {"start": start}))
            start += clip.n_samples
        if (start - self.n_samples) * 2 != len(content):
            raise ValueError(f"clips of {start - self.n_samples} samples with {len(content)} bytes of audio")
        self._audio.write(content)
        self.n_samples = start

    def _write_table(self) -> None:
        metadata = {RECIPE_KEY: json.dumps(dict(self._recipe)).encode()}
        rows = [asdict(clip) for clip in self._clips]
        table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))
        unfinished = self._folder / (CLIPS + ".unfinished")
        pq.write_table(table, unfinished, compression="zstd")
        unfinished.replace(self._folder / CLIPS)
