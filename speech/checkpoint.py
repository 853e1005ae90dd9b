"""Opening a checkpoint: any published layout becomes one native `Phi4MultimodalForCausalLM`.

No code of a checkpoint is ever run: configs are data, weights are safetensors, the tokenizer is `tokenizer.json`.
Weights go tensor by tensor from the (memory-mapped) files to the device, with the speech LoRA merged in float32,
so that opening needs little host memory beyond the model itself. The image tower is not built: speech never
reaches it, and it is 0.44 of the release's 5.6 billion parameters.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import Phi4MultimodalForCausalLM, PreTrainedTokenizerFast

from speech.layouts import (
    LM_HEAD,
    Layout,
    LayoutUnknown,
    Source,
    detect_layout,
    native_config,
    native_sources,
    remote_sources,
)
from speech.model import assign, empty_model, expected_tensors, finish

SPEECH_LORA_FOLDER = "speech-lora"
_HASH_BLOCK_BYTES = 1 << 22


class CheckpointError(Exception):
    """A folder does not hold a checkpoint that can be opened; the message names the folder and every reason."""


@dataclass(frozen=True)
class CheckpointCard:
    """What a checkpoint is, read without opening its weights."""

    name: str
    layout: Layout
    is_demo: bool
    """Trained on synthetic speech to show the system at work; its text must be marked wherever it is shown."""
    weights_sha256: str
    """SHA-256 over the names and contents of the weight files."""
    n_tensors: int
    n_bytes: int


@dataclass(frozen=True)
class _Stored:
    """The tensors of a folder: name -> file, and the LoRA's scale where there is one."""

    folder: Path
    layout: Layout
    files: dict[str, Path]
    sources: dict[str, Source]
    lora_scale: float
    config: dict[str, Any]


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        named = {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
        absent = sorted(path.name for path in named if not path.exists())
        if absent:
            raise CheckpointError(f"{folder}: the index names shards that are not there: {', '.join(absent)}")
        files = sorted(named)
    if not files:
        raise CheckpointError(
            f"{folder}: no *.safetensors file. Give the folder of a Phi-4-multimodal checkpoint "
            f"(config.json, tokenizer.json and the weights as safetensors)"
        )
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    return content


def _tensor_names(files: list[Path]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                names.update(dict.fromkeys(opened.keys(), file))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
    return names


def _read_stored(folder: Path) -> _Stored:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    config = _read_json(folder / "config.json")
    files = _tensor_names(_weight_files(folder))
    try:
        layout = detect_layout(files)
    except LayoutUnknown as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if layout is Layout.REMOTE:
        lora = config.get("speech_lora") or {"lora_alpha": 0, "r": 1}
        return _Stored(folder, layout, files, remote_sources(files), lora["lora_alpha"] / lora["r"], config)
    sources = native_sources(files)
    lora_folder = folder / SPEECH_LORA_FOLDER
    if not lora_folder.is_dir():
        return _Stored(folder, layout, files, sources, 0.0, config)
    adapter = _read_json(lora_folder / "adapter_config.json")
    lora_files = _tensor_names(_weight_files(lora_folder))
    return _Stored(
        folder,
        Layout.NATIVE_WITH_LORA,
        files | lora_files,
        _with_lora(folder, sources, lora_files),
        adapter["lora_alpha"] / adapter["r"],
        config,
    )


def _with_lora(folder: Path, sources: dict[str, Source], lora_files: dict[str, Path]) -> dict[str, Source]:
    """Lay a PEFT adapter's pairs (`base_model.model.<module>.lora_A.weight`) over their base tensors."""
    merged = dict(sources)
    stray = []
    for lora_a in (name for name in lora_files if ".lora_A." in name):
        module = lora_a.removeprefix("base_model.model.").split(".lora_A.")[0]
        lora_b = lora_a.replace(".lora_A.", ".lora_B.")
        base = f"{module}.weight"
        if base in merged and lora_b in lora_files:
            merged[base] = Source(base, lora_a, lora_b)
        else:
            stray.append(lora_a)
    if stray:
        raise CheckpointError(
            f"{folder / SPEECH_LORA_FOLDER}: LoRA tensors that fit no tensor of the base: {_listed(stray)}"
        )
    return merged


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


def read_card(path: str | Path) -> CheckpointCard:
    """What the checkpoint in folder `path` is. Reads the weight files once, for their hash.

    Raises:
        CheckpointError: the folder holds no checkpoint that can be opened.
    """
    stored = _read_stored(Path(path))
    own = stored.config.get("fonoteca") or {}
    digest = hashlib.sha256()
    n_bytes = 0
    for file in sorted(set(stored.files.values())):
        digest.update(str(file.relative_to(stored.folder)).encode() + b"\0")
        with file.open("rb") as opened:
            while block := opened.read(_HASH_BLOCK_BYTES):
                digest.update(block)
                n_bytes += len(block)
    return CheckpointCard(
        name=str(own.get("name") or stored.folder.resolve().name),
        layout=stored.layout,
        is_demo=bool(own.get("is_demo", False)),
        weights_sha256=digest.hexdigest(),
        n_tensors=len(stored.files),
        n_bytes=n_bytes,
    )


def pick_device(device: str = "auto") -> torch.device:
    """`auto` takes CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 on a CPU."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    if found is None:
        raise CheckpointError(f"dtype {dtype!r} is not one of auto, float32, bfloat16, float16")
    return found


def open_checkpoint(
    path: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[Phi4MultimodalForCausalLM, PreTrainedTokenizerFast]:
    """Open a checkpoint for speech, ready for `speech.engine.Phi4Engine`.

    Args:
        path: folder with config.json, tokenizer.json and safetensors, in either layout.
        device: cpu, cuda, cuda:N, or auto.
        dtype: weights' type, or auto (bfloat16 on CUDA, float32 on a CPU).

    Returns:
        (model, tokenizer): a native model in evaluation mode, without image tower, speech LoRA merged.

    Raises:
        CheckpointError: with every missing, unexpected or wrongly shaped tensor in one message.
    """
    stored = _read_stored(Path(path))
    target = pick_device(device)
    model = empty_model(native_config(stored.config, stored.layout))
    _check_tensors(model, stored)
    _fill(model, stored, target, pick_dtype(dtype, target))
    return model, _open_tokenizer(stored.folder)


def _check_tensors(model: nn.Module, stored: _Stored) -> None:
    expected = expected_tensors(model)
    found = {name: source for name, source in stored.sources.items() if name != LM_HEAD}
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing: {_listed(missing)}")
    if unexpected := sorted(found.keys() - expected.keys()):
        problems.append(f"unexpected: {_listed(unexpected)}")
    shapes = []
    with ExitStack() as stack:
        opened = {
            file: stack.enter_context(safe_open(file, framework="pt")) for file in set(stored.files.values())
        }
        for name in expected.keys() & found.keys():
            base = found[name].base
            shape = list(opened[stored.files[base]].get_slice(base).get_shape())
            if shape != list(expected[name].shape):
                shapes.append(f"{name} is {shape}, not {list(expected[name].shape)}")
    if shapes:
        problems.append(f"wrong shape: {_listed(shapes)}")
    if problems:
        raise CheckpointError(
            f"{stored.folder}: not a whole Phi-4-multimodal checkpoint ({stored.layout} layout): "
            + "; ".join(problems)
        )


def _fill(
    model: Phi4MultimodalForCausalLM, stored: _Stored, device: torch.device, dtype: torch.dtype
) -> None:
    """Bring every tensor to the device, file by file, merging LoRA pairs in float32."""
    by_file: dict[Path, list[str]] = {}
    for name in expected_tensors(model):
        by_file.setdefault(stored.files[stored.sources[name].base], []).append(name)
    for file in sorted(by_file):
        # opened anew per file: a closed file gives its mapped pages back
        with ExitStack() as stack:
            opened = {file: stack.enter_context(safe_open(file, framework="pt"))}

            def read(name: str, opened: dict[Path, Any] = opened, stack: ExitStack = stack) -> torch.Tensor:
                path = stored.files[name]
                if path not in opened:
                    opened[path] = stack.enter_context(safe_open(path, framework="pt"))
                tensor: torch.Tensor = opened[path].get_tensor(name)
                return tensor

            for name in by_file[file]:
                source = stored.sources[name]
                tensor = read(source.base).to(device)
                if source.lora_a and source.lora_b:
                    delta = read(source.lora_b).to(device, torch.float32) @ read(source.lora_a).to(
                        device, torch.float32
                    )
                    tensor = tensor.to(torch.float32) + stored.lora_scale * delta
                # a copy even where nothing changed: the file's mapping ends here
                assign(model, name, tensor.to(dtype, copy=True))
    finish(model, device)


def _open_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    file = folder / "tokenizer.json"
    if not file.exists():
        raise CheckpointError(f"{folder}: tokenizer.json is missing; copy it from the base model")
    # the class named in tokenizer_config.json is not looked up: it might be the checkpoint's own code
    return PreTrainedTokenizerFast(tokenizer_file=str(file), clean_up_tokenization_spaces=False)
