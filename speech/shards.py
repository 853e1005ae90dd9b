"""Reading and writing safetensors with bounded memory: one tensor at a time, and never a mapped file.

Mapped pages count as memory of the process that touched them, and a file stays mapped as long as any tensor of
it lives; with plain reads and writes the peak is the tensor at hand. The format
(https://github.com/huggingface/safetensors#format): a header's length in 8 bytes, the header as JSON, the data.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

INDEX_NAME = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""
_WRITE_BLOCK_BYTES = 1 << 26

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class ShardUnreadable(Exception):
    """A file is not whole, valid safetensors; the message says in what."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: its name may occur in other files too."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """First byte in the file."""

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_elements * self.dtype.itemsize

    def read(self, device: torch.device | None = None) -> torch.Tensor:
        """The tensor, in memory of its own.

        Raises:
            ShardUnreadable: the file has become shorter since its header was read.
        """
        tensor = torch.empty(self.shape, dtype=self.dtype)
        if tensor.numel():
            room = _bytes(tensor)
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.offset)
                # one read gives at most 2 GiB
                while room and (n_read := file.readinto(room)):
                    room = room[n_read:]
            if room:
                raise ShardUnreadable(f"{self.file}: ends {len(room)} bytes before the end of {self.name}")
        return tensor if device is None else tensor.to(device)


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous, non-empty tensor."""
    # numpy knows no bfloat16
    content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(content)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Name -> tensor of everything in a safetensors file.

    Raises:
        ShardUnreadable: not safetensors, broken off, or holding a type that torch does not know.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            n_header = int.from_bytes(opened.read(8), "little")
            if size < 8 or n_header > min(size - 8, _MAX_HEADER_BYTES):
                raise ShardUnreadable(f"{file}: not a readable safetensors file (no header, or broken off)")
            header = json.loads(opened.read(n_header))
        tensors = [
            _stored(file, name, entry, 8 + n_header)
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ShardUnreadable(f"{file}: not a readable safetensors file ({error})") from error
    position = 8 + n_header
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.n_bytes)):
        if tensor.offset != position:
            raise ShardUnreadable(f"{file}: damaged header: {tensor.name} does not follow its neighbour")
        position += tensor.n_bytes
    if position != size:
        raise ShardUnreadable(
            f"{file}: {size} bytes long, but its header speaks of {position}: the copy probably broke off"
        )
    return {tensor.name: tensor for tensor in tensors}


def _stored(file: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has the unknown type {entry['dtype']}")
    tensor = StoredTensor(name, file, _DTYPES[entry["dtype"]], shape, data_start + int(begin))
    if min((0, *shape)) < 0 or begin < 0 or end - begin != tensor.n_bytes:
        raise ValueError(f"{name}: its shape and its length differ")
    return tensor


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_elements * self.dtype.itemsize


def plan_shards(plans: Iterable[TensorPlan], *, max_bytes: int) -> list[list[TensorPlan]]:
    """`plans`, in their order, in shards of at most `max_bytes`; a larger tensor gets a shard of its own."""
    shards: list[list[TensorPlan]] = []
    n_bytes = 0
    for plan in plans:
        if not shards or n_bytes + plan.n_bytes > max_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(plan)
        n_bytes += plan.n_bytes
    return shards


def write_shards(
    folder: Path,
    shards: Sequence[Sequence[TensorPlan]],
    produce: Callable[[str], torch.Tensor],
    *,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> list[Path]:
    """Write the shards, and their index where there is more than one, and bring them to the disk.

    Args:
        produce: gives the tensor of a planned name, in the planned type and shape; called once for each, in turn.
        progress: called after each tensor with its bytes.

    Returns:
        The files, in order. The same plan and tensors give the same bytes.
    """
    files = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        last = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file = folder / ("model.safetensors" if len(shards) == 1 else last)
        # wider types first: every tensor then starts at a multiple of its element's size
        ordered = sorted(shard, key=lambda plan: -plan.dtype.itemsize)
        with file.open("wb") as opened:
            opened.write(_header(ordered))
            for plan in ordered:
                _write_tensor(opened, plan, produce(plan.name))
                progress(plan.n_bytes)
            opened.flush()
            os.fsync(opened.fileno())
        files.append(file)
        weight_map |= {plan.name: file.name for plan in shard}
    if len(shards) > 1:
        total = sum(plan.n_bytes for shard in shards for plan in shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


def _header(plans: Sequence[TensorPlan]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for plan in plans:
        end = position + plan.n_bytes
        header[plan.name] = {
            "dtype": _DTYPE_NAMES[plan.dtype],
            "shape": list(plan.shape),
            "data_offsets": [position, end],
        }
        position = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def _write_tensor(file: BinaryIO, plan: TensorPlan, tensor: torch.Tensor) -> None:
    if tensor.dtype != plan.dtype or tuple(tensor.shape) != plan.shape:
        raise ValueError(f"{plan.name}: {tensor.dtype} {tuple(tensor.shape)} is not what was planned")
    if tensor.numel():
        content = _bytes(tensor.detach().cpu().contiguous())
        for start in range(0, len(content), _WRITE_BLOCK_BYTES):
            file.write(content[start : start + _WRITE_BLOCK_BYTES])
