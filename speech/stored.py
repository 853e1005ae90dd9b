"""What lies in a checkpoint's folder: config, tensors by file, and what is wrong with them, before any is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Phi4MultimodalConfig

from speech.layouts import (
    AUDIO_EMBED,
    LM_HEAD,
    Gathered,
    Layout,
    LayoutUnknown,
    LoraSettings,
    detect_layout,
    lay_peft_adapter,
    native_config,
    native_sources,
    overlay_sources,
    remote_sources,
)
from speech.model import expected_tensors
from speech.shards import INDEX_NAME, ShardUnreadable, StoredTensor, read_header

SPEECH_LORA_FOLDER = "speech-lora"
_HASH_BLOCK_BYTES = 1 << 22
_MOST_NAMED = 20
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class CheckpointError(Exception):
    """A folder does not hold a checkpoint that can be opened; the message names the folder and every reason."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint's folder, read but for its weights. An overlay has a `base`, which is a whole checkpoint."""

    folder: Path
    layout: Layout
    tensors: tuple[StoredTensor, ...]
    """This folder's own, in every file, those without a use for speech included."""
    gathered: Gathered
    """The native model's tensors, from the base too."""
    config: dict[str, Any]
    """`config.json`; an overlay's is the base's, with its own `fonoteca` keys on top."""
    lora: LoraSettings | None = None
    base: StoredCheckpoint | None = None

    @property
    def fonoteca(self) -> dict[str, Any]:
        """What the checkpoint says for Fonoteca: name, is_demo, prompt."""
        return dict(self.config.get("fonoteca") or {})

    @property
    def name(self) -> str:
        return str(self.fonoteca.get("name") or self.folder.resolve().name)

    @property
    def is_demo(self) -> bool:
        return bool(self.fonoteca.get("is_demo", False))

    @property
    def whole(self) -> StoredCheckpoint:
        """The folder that config and tokenizer come from."""
        return self.base or self

    @property
    def all_tensors(self) -> tuple[StoredTensor, ...]:
        """Those of the base included."""
        return self.tensors + (self.base.tensors if self.base else ())

    @cached_property
    def weight_files(self) -> dict[str, Path]:
        """Files with tensors, the base's included, by a name that does not depend on where the folder lies."""
        files = {
            str(file.relative_to(self.folder)): file
            for file in sorted({tensor.file for tensor in self.tensors})
        }
        if self.base:
            files |= {f"base/{name}": file for name, file in self.base.weight_files.items()}
        return files

    def native_config(self) -> Phi4MultimodalConfig:
        """The native model's config.

        Raises:
            CheckpointError: `config.json` lacks something, or says what cannot be.
        """
        try:
            return native_config(self.config, self.whole.layout)
        except Exception as error:  # transformers checks in many ways, each with an error of its own
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"{self.whole.folder / 'config.json'}: not a Phi-4-multimodal config: {reason}"
            ) from error

    def weights_sha256(self, progress: Callable[[int], None] = lambda n_bytes: None) -> str:
        """SHA-256 over the names and contents of all weight files; `progress` is called with bytes read.

        Raises:
            CheckpointError: a file cannot be read.
        """
        digest = hashlib.sha256()
        for name, file in self.weight_files.items():
            digest.update(name.encode() + b"\0")
            try:
                with file.open("rb") as opened:
                    while block := opened.read(_HASH_BLOCK_BYTES):
                        digest.update(block)
                        progress(len(block))
            except OSError as error:
                raise CheckpointError(f"{file}: cannot be read: {error}") from error
        return digest.hexdigest()


@dataclass
class TensorProblems:
    """Everything that keeps a checkpoint's tensors from being a whole model. Sentences and names, sorted."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    wrong_type: list[str] = field(default_factory=list)
    lora: list[str] = field(default_factory=list)

    def by_kind(self) -> dict[str, list[str]]:
        """Kind -> problems, only the kinds that have some."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "wrong shape": self.wrong_shape,
            "wrong type": self.wrong_type,
            "LoRA": self.lora,
        }
        return {kind: found for kind, found in kinds.items() if found}

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {_listed(found)}" for kind, found in self.by_kind().items())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def tensor_problems(model: nn.Module, stored: StoredCheckpoint) -> TensorProblems:
    """What keeps `stored` from filling `model` (of the meta device); nothing is read."""
    expected = expected_tensors(model)
    gathered = stored.gathered
    found = {name: source for name, source in gathered.sources.items() if name != LM_HEAD}
    problems = TensorProblems(
        missing=sorted(expected.keys() - found.keys()),
        unexpected=sorted(
            [found[name].base.name for name in found.keys() - expected.keys()] + gathered.unexpected
        ),
        lora=sorted(gathered.lora_faults),
    )
    if LM_HEAD in gathered.sources and not stored.config.get("tie_word_embeddings", False):
        problems.unexpected.append(f"{LM_HEAD} of its own: only models that tie it to the embedding are run")
    for name in sorted(expected.keys() & found.keys()):
        tensor = found[name].base
        if tensor.shape != tuple(expected[name].shape):
            problems.wrong_shape.append(f"{name} is {list(tensor.shape)}, not {list(expected[name].shape)}")
        pair = found[name].lora
        problems.wrong_type += [
            f"{part.name} is {str(part.dtype).removeprefix('torch.')}, not a float of 16 bits or more"
            for part in (tensor, *((pair.a, pair.b) if pair else ()))
            if part.dtype not in _FLOATS
        ]
    return problems


def read_stored(path: str | Path, *, base: str | Path | None = None) -> StoredCheckpoint:
    """Read a checkpoint's folder, but for its weights.

    Args:
        base: the whole checkpoint that an audio overlay lies on; None takes the folder that the overlay's
            config.json names under `fonoteca.base`. Not looked at where `path` is a whole checkpoint.

    Raises:
        CheckpointError: the folder holds no checkpoint, or an overlay without its base.
    """
    return _read(Path(path), base, may_be_overlay=True)


def _read(folder: Path, base: str | Path | None, *, may_be_overlay: bool) -> StoredCheckpoint:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    config = _read_json(folder / "config.json", optional=True)
    tensors = None
    if config is not None or list(folder.glob("*.safetensors")):
        tensors = _read_tensors(folder)
        try:
            layout = detect_layout(tensors)
        except LayoutUnknown as error:
            raise CheckpointError(f"{folder}: {error}") from error
        if layout is Layout.AUDIO_OVERLAY:
            if not may_be_overlay:
                raise CheckpointError(
                    f"{folder}: holds only audio_embed tensors itself; give a whole checkpoint"
                )
            return _read_overlay(folder, config or {}, tensors, base)
    if config is None or tensors is None:
        raise CheckpointError(f"{folder}: config.json is missing")
    own = tuple(tensors.values())
    if layout is Layout.REMOTE:
        lora = _lora_settings(config.get("speech_lora"), "r")
        return StoredCheckpoint(folder, layout, own, remote_sources(tensors, lora), config, lora)
    gathered = native_sources(tensors)
    if not (folder / SPEECH_LORA_FOLDER).is_dir():
        return StoredCheckpoint(folder, layout, own, gathered, config)
    lora, adapter = _read_adapter(folder / SPEECH_LORA_FOLDER)
    lay_peft_adapter(gathered, adapter, lora)
    return StoredCheckpoint(
        folder, Layout.NATIVE_WITH_LORA, own + tuple(adapter.values()), gathered, config, lora
    )


def _read_overlay(
    folder: Path, config: dict[str, Any], tensors: dict[str, StoredTensor], base: str | Path | None
) -> StoredCheckpoint:
    own = dict(config.get("fonoteca") or {})
    named = own.pop("base", None)
    if base is None and named is not None:
        base = folder / str(named)
    if base is None:
        raise CheckpointError(
            f"{folder}: holds only audio_embed tensors, to be laid over a whole checkpoint, and names none. Give "
            f"the base model's folder (FONOTECA_MODEL_BASE, --base), or name it in the overlay's config.json: "
            f'{{"fonoteca": {{"base": "../base-model"}}}}'
        )
    try:
        below = _read(Path(base), None, may_be_overlay=False)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: its base cannot be opened: {error}") from error
    above = overlay_sources(tensors)
    kept = {
        name: source
        for name, source in below.gathered.sources.items()
        # trained by no audio fine-tuning, and used by none: an overlay may leave them out
        if not name.startswith(AUDIO_EMBED) or "_vision_speech." in name
    }
    gathered = Gathered(
        kept | above.sources,
        below.gathered.unexpected + above.unexpected,
        below.gathered.lora_faults + above.lora_faults,
    )
    inherited = {**below.fonoteca, "name": folder.resolve().name}
    return StoredCheckpoint(
        folder,
        Layout.AUDIO_OVERLAY,
        tuple(tensors.values()),
        gathered,
        {**below.config, "fonoteca": {**inherited, **own}},
        below.lora,
        below,
    )


def _read_adapter(folder: Path) -> tuple[LoraSettings, dict[str, StoredTensor]]:
    config = _read_json(folder / "adapter_config.json")
    unknown = sorted(
        key
        for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias")
        if config.get(key)
    )
    if unknown:
        raise CheckpointError(f"{folder}: cannot merge a LoRA with {', '.join(unknown)}; merge it with PEFT")
    lora = _lora_settings(config, "r")
    if lora is None:
        raise CheckpointError(f"{folder}: adapter_config.json names no r and lora_alpha above 0")
    return lora, _read_tensors(folder)


def _lora_settings(content: Any, rank_key: str) -> LoraSettings | None:
    """None where there is none, or none that makes sense."""
    if not isinstance(content, dict):
        return None
    r, alpha = content.get(rank_key), content.get("lora_alpha")
    if not isinstance(r, int) or not isinstance(alpha, int | float) or r <= 0 or alpha <= 0:
        return None
    return LoraSettings(r, alpha)


def _read_json(path: Path, *, optional: bool = False) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return None
        raise CheckpointError(f"{path.parent}: {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def _read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name -> tensor of all the weight files of `folder` itself."""
    tensors: dict[str, StoredTensor] = {}
    for file in _weight_files(folder):
        try:
            header = read_header(file)
        except ShardUnreadable as error:
            raise CheckpointError(str(error)) from error
        if twice := sorted(tensors.keys() & header.keys()):
            raise CheckpointError(f"{folder}: stored in more than one file: {_listed(twice)}")
        tensors |= header
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX_NAME
    if index.exists():
        files = sorted(set(_indexed_files(index)))
        if absent := [file.name for file in files if not file.exists()]:
            raise CheckpointError(f"{folder}: the index names shards that are not there: {', '.join(absent)}")
    if not files:
        raise CheckpointError(
            f"{folder}: no *.safetensors file. Give the folder of a Phi-4-multimodal checkpoint "
            f"(config.json, tokenizer.json and the weights as safetensors)"
        )
    return files


def _indexed_files(index: Path) -> Iterator[Path]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: has no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: {name!r} is not the name of a file beside it")
        yield index.parent / name
