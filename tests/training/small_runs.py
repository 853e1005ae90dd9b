"""A small run of fine-tuning: a random model of 0.3 M parameters, and a few short clips of the test sentences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from speech.audio import SAMPLE_RATE_HZ
from tests.benchmarks.random_checkpoint import write_checkpoint
from tests.demo_speech import FOLDER, read_flac
from training.manifest import Utterance, write_manifest
from training.tuning.settings import Settings, read_settings

SHORT_S = 3.2
"""Sentences up to this length are used."""

BASIC: dict[str, dict[str, Any]] = {
    "data": {"manifest": "manifest.parquet"},
    "training": {
        "max_steps": 6,
        "batch_size": 2,
        "accumulation": 2,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "precision": "float32",
        "readers": 0,
        "log_steps": 1,
    },
    "evaluation": {"every_percent": 50, "sample": 2},
    "checkpoints": {"every_steps": 2},
}


def utterances(*, longest_s: float = SHORT_S) -> list[Utterance]:
    """Short test sentences, three of four for training."""
    rows = [json.loads(line) for line in (FOLDER / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    found = []
    for row in rows:
        file = FOLDER / row["file"]
        duration_s = len(read_flac(file)) / SAMPLE_RATE_HZ
        if duration_s <= longest_s:
            split = ("train", "train", "train", "validation", "train", "train", "train", "test")[
                len(found) % 8
            ]
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            found.append(
                Utterance(f"demo-speech/{split}/{row['file']}", row["file"], row["text"], duration_s,
                          "demo-speech", split, row["voice"], None, sha256)
            )  # fmt: skip
    return found


def small_settings(folder: Path, *, layout: str = "native", **changes: dict[str, Any]) -> Settings:
    """Settings of a small run in `folder`, as if read from a file there; `changes` by section."""
    write_inputs(folder, layout=layout)
    return read_settings(write_settings(folder, **changes))


def write_inputs(folder: Path, *, layout: str = "native") -> None:
    """The base and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").exists():
        write_checkpoint(folder / "base", size="tiny", layout=layout, seed=1)
    if not (folder / "manifest.parquet").exists():
        write_manifest(folder / "manifest.parquet", utterances(), {"demo-speech": FOLDER})


def write_settings(folder: Path, **changes: dict[str, Any]) -> Path:
    """The settings file."""
    sections = {
        name: {**BASIC.get(name, {}), **changes.get(name, {})} for name in BASIC.keys() | changes.keys()
    }
    lines = ['base = "base"', 'run = "run"', 'device = "cpu"']
    for name, values in sections.items():
        lines += [f"\n[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    file = folder / "settings.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
