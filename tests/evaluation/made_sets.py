"""Held-out sets made of the synthetic sentences that the demo model has not seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.demo_speech import FOLDER

SENTENCES: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "texts.jsonl").read_text(encoding="utf-8").splitlines()
]


def make_set(
    datasets: Path, name: str, n: int, *, start: int = 0, settings: str | None = None, **columns: str
) -> Path:
    """A set of `n` sentences with a manifest.jsonl; `columns` are constants added to every row."""
    folder = datasets / name
    folder.mkdir(parents=True)
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for row in SENTENCES[start : start + n]:
            shutil.copy(FOLDER / row["file"], folder)
            line = {"audio": row["file"], "text": row["text"], "speaker": row["voice"], **columns}
            manifest.write(json.dumps(line, ensure_ascii=False) + "\n")
    if settings is not None:
        (folder / "set.toml").write_text(settings, encoding="utf-8")
    return folder
