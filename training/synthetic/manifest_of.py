"""A corpus as FLAC files and a manifest: what fine-tuning and evaluation read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from speech.working_copy import WorkingCopyWriter
from training.manifest import Manifest, Utterance, read_manifest, write_manifest
from training.synthetic.corpus import SAMPLE_RATE_HZ, Corpus

__all__ = ["MANIFEST", "write_flac_and_manifest"]

MANIFEST = "manifest.parquet"


def write_flac_and_manifest(
    corpus: Corpus, folder: Path, *, dataset: str, splits: tuple[str, ...] = ()
) -> Manifest:
    """Write a corpus as `folder/clips/00000.flac ...` and `folder/manifest.parquet`.

    Args:
        dataset: its name in the manifest.
        splits: only clips of these; empty means all.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    utterances = []
    for index, clip in enumerate(corpus.clips):
        if splits and clip.split not in splits:
            continue
        audio = f"clips/{index:05d}.flac"
        with WorkingCopyWriter(folder / audio) as writer:
            writer.write(corpus.samples(index))
        utterances.append(
            Utterance(
                id=f"{dataset}/{clip.split}/{index:05d}",
                audio=audio,
                text=clip.text,
                duration_s=clip.n_samples / SAMPLE_RATE_HZ,
                dataset=dataset,
                split=clip.split,
                speaker=clip.voice or None,
                programme=None,
                sha256=hashlib.sha256((folder / audio).read_bytes()).hexdigest(),
            )
        )
    write_manifest(folder / MANIFEST, utterances, {dataset: folder})
    return read_manifest(folder / MANIFEST)
