"""Writing a checkpoint anew: merged, native, without what speech does not need, and without code.

The model is never in memory as a whole: each tensor is read, merged, rounded once and written. The result opens
like any native checkpoint, and needs neither the LoRA nor the base of its source.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speech.checkpoint import CheckpointError, load_tensor, whole_model
from speech.model import expected_tensors
from speech.shards import TensorPlan, plan_shards, write_shards
from speech.stored import StoredCheckpoint, read_stored

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
KEEP = "keep"
_SPARE_BYTES = 64 * 2**20
"""Room asked for beyond the weights: config, tokenizer, the file system's own."""
_DATA_FILES = (
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer_config.json",
)
_CODE_KEYS = ("auto_map", "custom_pipelines", "processor_class")
"""Keys that name classes, of the checkpoint's own code or of parts that are left out."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done (`hash`, `write`), bytes done, bytes in all."""


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    n_tensors: int
    n_parameters: int
    n_bytes: int
    """Of the weights."""
    source_sha256: str


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    base: str | Path | None = None,
    dtype: str = KEEP,
    shard_bytes: int = 4 * 10**9,
    progress: Progress = lambda step, done, total: None,
) -> Conversion:
    """Write the merged native model of `source` into the folder `target`.

    All or nothing: it is written into a folder beside `target`, which takes its name at the end. The same source
    and settings give the same bytes.

    Args:
        base: as for `speech.checkpoint.open_checkpoint`.
        dtype: keep (each tensor as it is stored), bfloat16, float16 or float32.
        shard_bytes: most bytes of weights in one file; a tensor is never cut.

    Raises:
        CheckpointError: `source` cannot be opened, `target` is there already, or it cannot be written.
    """
    if dtype != KEEP and dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join((KEEP, *DTYPES))}")
    if shard_bytes <= 0:
        raise CheckpointError(f"shards of {shard_bytes} bytes cannot be written; give more than 0")
    stored = read_stored(source, base=base)
    tokenizer = stored.whole.folder / "tokenizer.json"
    if not tokenizer.exists():
        raise CheckpointError(
            f"{stored.whole.folder}: tokenizer.json is missing; copy it from the base model"
        )
    folder = _free_target(Path(target))
    plans = _plan(stored, dtype)
    n_bytes = sum(plan.n_bytes for plan in plans)
    _check_space(folder.parent, n_bytes)
    sha256 = _hash(stored, progress)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-partial-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"{folder.parent}: cannot be written to ({error.strerror})") from error
    try:
        files = _write(stored, plans, partial, shard_bytes, progress)
        _write_json(partial / "config.json", _config(stored, plans, sha256))
        _copy_data(stored.whole.folder, partial)
        partial.chmod(0o777 & ~_umask())
        # takes the place of an empty folder too; of a full one it does not
        partial.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Conversion(
        folder=folder,
        files=tuple(file.name for file in files),
        n_tensors=len(plans),
        n_parameters=sum(plan.n_elements for plan in plans),
        n_bytes=n_bytes,
        source_sha256=sha256,
    )


def _free_target(target: Path) -> Path:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists and is not an empty folder; give a new one, or remove it")
    # resolved, so that the sibling it is written into lies on the same file system
    folder = target.resolve()
    if not folder.parent.is_dir():
        raise CheckpointError(f"{target}: the folder {folder.parent} does not exist")
    return folder


def _plan(stored: StoredCheckpoint, dtype: str) -> list[TensorPlan]:
    sources = stored.gathered.sources
    return [
        TensorPlan(name, DTYPES.get(dtype, sources[name].base.dtype), tuple(tensor.shape))
        for name, tensor in expected_tensors(whole_model(stored)).items()
    ]


def _check_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes + _SPARE_BYTES:
        raise CheckpointError(
            f"{folder}: {free / 2**30:.1f} GiB free, and the converted model needs "
            f"{(n_bytes + _SPARE_BYTES) / 2**30:.1f} GiB: make room, or convert to another disk"
        )


def _hash(stored: StoredCheckpoint, progress: Progress) -> str:
    total = sum(file.stat().st_size for file in stored.weight_files.values())
    done = 0

    def read(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        progress("hash", done, total)

    return stored.weights_sha256(read)


def _write(
    stored: StoredCheckpoint,
    plans: list[TensorPlan],
    folder: Path,
    shard_bytes: int,
    progress: Progress,
) -> list[Path]:
    types = {plan.name: plan.dtype for plan in plans}
    total = sum(plan.n_bytes for plan in plans)
    done = 0

    def produce(name: str) -> torch.Tensor:
        return load_tensor(stored.gathered.sources[name], torch.device("cpu"), types[name])

    def wrote(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        progress("write", done, total)

    return write_shards(folder, plan_shards(plans, max_bytes=shard_bytes), produce, progress=wrote)


def _config(stored: StoredCheckpoint, plans: Iterable[TensorPlan], sha256: str) -> dict[str, Any]:
    """The native config, which says where the weights came from."""
    content: dict[str, Any] = stored.native_config().to_diff_dict()
    for key in ("_name_or_path", "torch_dtype", *_CODE_KEYS):
        content.pop(key, None)
    types = {plan.dtype for plan in plans}
    widest = max(types, key=lambda dtype: dtype.itemsize)
    origin: dict[str, Any] = {"name": stored.name, "layout": stored.layout, "weights_sha256": sha256}
    if stored.base:
        origin["base"] = {"name": stored.base.name, "layout": stored.base.layout}
    if "converted_from" in stored.fonoteca:
        origin["converted_from"] = stored.fonoteca["converted_from"]
    content |= {
        "architectures": ["Phi4MultimodalForCausalLM"],
        # the output layer is never stored
        "tie_word_embeddings": True,
        "dtype": str(widest).removeprefix("torch."),
        "fonoteca": {**stored.fonoteca, "name": stored.name, "converted_from": origin},
    }
    return content


def _copy_data(source: Path, target: Path) -> None:
    """tokenizer.json as it is; other JSON without the keys that name code. Nothing else is copied."""
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    for name in _DATA_FILES:
        with suppress(FileNotFoundError):
            try:
                content = json.loads((source / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise CheckpointError(f"{source / name}: not valid JSON ({error})") from error
            if isinstance(content, dict):
                for key in _CODE_KEYS:
                    content.pop(key, None)
            _write_json(target / name, content)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def _umask() -> int:
    # the only way to read it is to set it
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
