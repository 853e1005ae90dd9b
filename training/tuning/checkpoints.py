"""Checkpoints that are whole or not there.

One is written into a folder of another name, brought to the disk, and only then renamed: whatever kills the process,
what is called `checkpoint-N` can be gone on from. It holds the trained tensors as float32 and opens as an audio
overlay over the base (`fonoteca model inspect`, `fonoteca transcribe`), the optimizer's state, the random states and
the log so far.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from speech.shards import StoredTensor, TensorPlan, plan_shards, read_header, write_shards
from training.tuning.errors import FinetuneError

UNFINISHED = "unfinished"
_NAME = re.compile(r"checkpoint-(\d+)")
_SHARD_BYTES = 4 * 10**9


class Checkpoints:
    """The checkpoints of one run, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Path]:
        """Whole checkpoints, by step."""
        found = [path for path in self.folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=step_of)

    def newest(self) -> Path | None:
        """The one to go on from."""
        return self.all()[-1] if self.all() else None

    def begin(self) -> Path:
        """An empty folder to write the next one into; what a killed process left there is removed."""
        unfinished = self.folder / UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        return unfinished

    def finish(self, step: int, keep: int) -> Path:
        """Give the checkpoint written since `begin` its name, and remove all but the newest `keep`."""
        written = self.folder / UNFINISHED / f"checkpoint-{step}"
        target = self.folder / written.name
        for file in written.rglob("*"):
            _to_disk(file)
        _to_disk(written)
        # the same step again, after a resume from an older one
        shutil.rmtree(target, ignore_errors=True)
        written.rename(target)
        _to_disk(self.folder)
        for old in self.all()[:-keep]:
            # first its name: a removal that breaks off must not leave something that looks whole
            gone = old.rename(self.folder / UNFINISHED / old.name)
            shutil.rmtree(gone)
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
        return target


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint's folder."""
    found = _NAME.fullmatch(checkpoint.name)
    assert found is not None
    return int(found[1])


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_overlay(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    base: Path,
    name: str,
    *,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Write trained tensors as an audio overlay over `base`.

    Args:
        tensors: by their native names.
        dtypes: what they are rounded to; those without an entry, or without this, stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    types = {key: (dtypes or {}).get(key, tensor.dtype) for key, tensor in tensors.items()}
    plans = [TensorPlan(key, types[key], tuple(tensor.shape)) for key, tensor in sorted(tensors.items())]
    write_shards(
        folder, plan_shards(plans, max_bytes=_SHARD_BYTES), lambda key: tensors[key].detach().to(types[key])
    )
    config = {"fonoteca": {"base": str(base.resolve()), "name": name}}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_overlay(folder: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Put an overlay's tensors in the place of `parameters`, bit for bit.

    Raises:
        FinetuneError: it does not hold them all.
    """
    stored: dict[str, StoredTensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        stored |= read_header(file)
    if not parameters.keys() <= stored.keys():
        raise FinetuneError(
            f"{folder}: lacks {len(parameters.keys() - stored.keys())} of the {len(parameters)} trained tensors: it "
            f"belongs to another model; give a new run folder, or the settings that this run was begun with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name].read(parameter.device))
