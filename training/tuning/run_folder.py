"""A run's folder: all that is needed to go on with it, to repeat it, and to say what it did.

| file | what |
|---|---|
| run.json | settings, hashes of data and base, versions, begun and ended when, counts |
| history.json | the training log: losses, learning rates, error rates by step |
| curves.png | the same as a picture |
| checkpoints/ | where a killed run goes on from |
| evaluations/ | every text generated: `step-N.jsonl`, and `test-base.jsonl`, `test-result.jsonl` |
| test.json | error rates on the test split, of the base and of the result |
| tensorboard/ | the log for TensorBoard |
| model/ | the result: a whole checkpoint with its card |
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.tuning.checkpoints import Checkpoints
from training.tuning.errors import FinetuneError
from training.tuning.measuring import Written
from training.tuning.settings import Settings, to_json

_PACKAGES = ("fonoteca", "torch", "transformers", "accelerate", "tokenizers", "numpy")


class RunFolder:
    """Reads and writes a run's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.tensorboard = folder / "tensorboard"
        self.model = folder / "model"
        self.curves = folder / "curves.png"

    def begin(self, settings: Settings, facts: Mapping[str, Any], *, resume: bool) -> None:
        """Write down what this run is; of a resumed one, check that it is still the same.

        Args:
            facts: hashes of what goes in, and counts.

        Raises:
            FinetuneError: the folder holds a run already, or, resuming, none, or one of other settings or data.
        """
        file = self.folder / "run.json"
        known = self.read("run.json") if file.exists() else None
        decisive = {"settings": settings.decisive(), "inputs": dict(facts)}
        if not resume and known is not None:
            raise FinetuneError(
                f"{self.folder}: holds a run already: go on with it by --resume, or name another folder under `run`"
            )
        if resume and known is None:
            raise FinetuneError(f"{self.folder}: there is no run to go on with; begin it without --resume")
        if known is not None:
            differences = _differences(known["decisive"], json.loads(json.dumps(decisive)))
            if differences:
                raise FinetuneError(
                    f"{self.folder}: this run was begun with other settings or data, and would not give the same "
                    f"model: {'; '.join(differences)}. Put them back, or begin a new run in another folder"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        now = _now()
        content = known or {"begun_at": now, "sessions": []}
        content["sessions"].append(
            {"began_at": now, "from_checkpoint": getattr(self.checkpoints.newest(), "name", None)}
        )
        content |= {
            "decisive": decisive,
            "settings": to_json(settings),
            "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        }
        self.write("run.json", content)

    def end(self, facts: Mapping[str, Any]) -> None:
        """Add what is known at the end."""
        self.write("run.json", self.read("run.json") | {"ended_at": _now()} | dict(facts))

    def read(self, name: str) -> Any:
        """A JSON file of the run.

        Raises:
            FinetuneError: it is not there, or damaged.
        """
        file = self.folder / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise FinetuneError(
                f"{file}: {error.strerror}: give the folder of a run that has come that far"
            ) from error
        except ValueError as error:
            raise FinetuneError(f"{file}: not valid JSON ({error}): the disk may be damaged") from error

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file, whole or not at all."""
        self._write(name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")

    def write_texts(self, name: str, written: Sequence[Written]) -> None:
        """Write what was generated, a line for each utterance."""
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in written]
        self._write(f"evaluations/{name}.jsonl", "".join(line + "\n" for line in lines))

    def read_texts(self, name: str) -> list[Written] | None:
        """What was generated under that name; None where nothing was."""
        file = self.folder / "evaluations" / f"{name}.jsonl"
        if not file.exists():
            return None
        return [Written(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]

    def _write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}-{os.getpid()}")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(known.keys() | wanted.keys()):
        old, new = known.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} was {old!r} and is {new!r}")
    return found


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
