"""Everything that decides a fine-tuning run, in one TOML file. Unknown keys are refused: a typo must not be silent.

Defaults are the model card's where it says something, and Microsoft's sample script's where it does not
(`docs/training.md` has both, and where this departs from them).
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.tuning.errors import FinetuneError

Precision = Literal["float16", "bfloat16", "float32"]
Schedule = Literal["linear", "cosine", "constant_with_warmup"]


@dataclass(frozen=True)
class DataSettings:
    """What is trained on. Paths are relative to the settings file's folder."""

    manifest: Path
    """From `fonoteca train prepare`."""
    train_split: str = "train"
    validation_split: str = "validation"
    """Generated from while training runs, to see it learn."""
    test_split: str = "test"
    """Generated from once at the end, by the base model and by the result. "" measures nothing."""
    max_audio_s: float = 40.0
    """Longer utterances are left out, and counted. The encoder takes 40 s at most."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Where datasets lie that were moved since the manifest was made, by name."""


@dataclass(frozen=True)
class TrainingSettings:
    """The optimisation itself."""

    epochs: float = 3.0
    """The card's."""
    max_steps: int = 0
    """Optimizer steps after which training ends, whatever `epochs` says. 0: `epochs` decides."""
    learning_rate: float = 5e-5
    """At its peak. The card's."""
    schedule: Schedule = "linear"
    """How the learning rate falls to 0 (the card does not say; Microsoft's sample is linear)."""
    warmup_steps: int = 50
    """Steps in which the learning rate rises from 0 (Microsoft's sample)."""
    batch_size: int = 1
    """Utterances computed together on one device. The card's."""
    accumulation: int = 16
    """Batches whose gradients make one optimizer step. The card's."""
    precision: Precision = "float16"
    """float16: the card's, with loss scaling. bfloat16: the same speed without overflow, where the device has it.
    float32: for a CPU. The trained weights and their gradients are float32 in any case, the frozen ones are held
    in this type."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass instead of keeping them, in decoder and audio encoder."""
    weight_decay: float = 0.01
    """AdamW's (Microsoft's sample)."""
    adam_beta2: float = 0.95
    """AdamW's second (Microsoft's sample); the first is 0.9, epsilon 1e-7."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm (Microsoft's sample)."""
    max_skipped_in_a_row: int = 10
    """Batches left out one after another, out of memory or not finite, after which training stops."""
    readers: int = 2
    """Processes that decode audio ahead. 0: in the training process itself."""
    log_steps: int = 10
    """Optimizer steps between two lines of the log."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Measuring by generation, as production generates."""

    every_percent: float = 20.0
    """Of the training's progress. The card's. Before the first step too, so that there is something to compare."""
    sample: int = 256
    """Utterances of the validation split, the same every time, picked with the run's seed. 0: all."""
    max_slots: int = 16
    """Most clips decoded together: the device also holds the training's memory."""
    test_sample: int = 0
    """Utterances of the test split measured at the end, picked with the run's seed. 0: all."""
    test_base: bool = True
    """Whether the base model is measured on the test split too, for the before and after."""


@dataclass(frozen=True)
class CheckpointSettings:
    """Where a killed run goes on from."""

    every_steps: int = 1000
    """The card's."""
    keep: int = 3
    """The newest so many; older ones are removed."""


@dataclass(frozen=True)
class OutputSettings:
    """The result."""

    name: str = ""
    """The model's name. "" takes the run folder's."""
    dtype: Literal["base", "float32"] = "base"
    """Type of the trained tensors as written: rounded to the type that the base has them in, or float32 as trained.
    The frozen ones are written as the base has them."""
    license: str = ""
    """For the model card, as the hub spells it (`mit`, `cc-by-4.0`). "" leaves it out."""
    notes: str = ""
    """A paragraph for the model card."""


@dataclass(frozen=True)
class Settings:
    """One run."""

    base: Path
    """Checkpoint that is fine-tuned, in any layout that can be opened."""
    run: Path
    """Folder of the run: checkpoints, logs and the result. Made if it is not there."""
    data: DataSettings
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    seed: int = 42
    """Decides the order of the data and the samples that are measured."""
    device: Literal["auto", "cuda", "cpu"] = "auto"

    @property
    def name(self) -> str:
        return self.output.name or self.run.name

    def decisive(self) -> dict[str, Any]:
        """What a resumed run must share with the one it goes on from: all that decides the weights."""
        content: dict[str, Any] = to_json(self)
        for section, keys in _FREE.items():
            for key in keys:
                del content[section][key]
        for key in ("run", "base", "device", "output"):
            del content[key]
        return content


_FREE = {
    "data": ("manifest", "folders", "test_split"),  # what the manifest holds is compared by its hash
    "training": ("readers", "log_steps", "max_skipped_in_a_row", "gradient_checkpointing"),
    "evaluation": ("max_slots", "test_sample", "test_base"),
    "checkpoints": ("every_steps", "keep"),
}


def read_settings(file: Path) -> Settings:
    """Settings from a TOML file.

    Raises:
        FinetuneError: it cannot be read, lacks something, or holds a key or value that has no meaning.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FinetuneError(f"{file}: {error.strerror}: give the file with the run's settings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FinetuneError(f"{file}: not valid TOML: {error}") from error
    settings: Settings = _build(Settings, content, str(file), "", file.parent)
    _check(settings, str(file))
    return settings


def to_json(settings: Any) -> Any:
    """Settings as JSON can hold them, paths as text."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {item.name: to_json(getattr(settings, item.name)) for item in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {str(key): to_json(value) for key, value in settings.items()}
    return str(settings) if isinstance(settings, Path) else settings


def _build(kind: Any, content: Mapping[str, Any], file: str, prefix: str, folder: Path) -> Any:
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    if unknown := sorted(content.keys() - known.keys()):
        raise FinetuneError(
            f"{file}: {', '.join(prefix + key for key in unknown)} is no setting. "
            f"{prefix.rstrip('.') or 'The file'} may hold: {', '.join(known)}"
        )
    values = {}
    for name, item in known.items():
        if name in content:
            values[name] = _value(hints[name], content[name], file, prefix + name, folder)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise FinetuneError(f"{file}: {prefix}{name} is missing: {(kind.__doc__ or '').splitlines()[0]}")
    return kind(**values)


def _value(hint: Any, value: Any, file: str, name: str, folder: Path) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise FinetuneError(f"{file}: {name} must be a table: [{name}]")
        return _build(hint, value, file, f"{name}.", folder)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise FinetuneError(
                f"{file}: {name} is {value!r}, not one of {', '.join(map(str, typing.get_args(hint)))}"
            )
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise FinetuneError(f"{file}: {name} must be a table: [{name}]")
        return types.MappingProxyType(
            {key: _value(Path, path, file, f"{name}.{key}", folder) for key, path in value.items()}
        )
    if hint is Path and isinstance(value, str):
        return folder / Path(value).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path or not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        wanted = {Path: "a path in quotes", str: "text in quotes", bool: "true or false"}.get(
            hint, hint.__name__
        )
        raise FinetuneError(f"{file}: {name} is {value!r}, and must be {wanted}")
    return value


def _check(settings: Settings, file: str) -> None:
    training, data = settings.training, settings.data
    for name, value, low, high in (
        ("data.max_audio_s", data.max_audio_s, 0.1, 40.0),
        ("training.epochs", training.epochs, 0.0, 1e6),
        ("training.max_steps", training.max_steps, 0, 10**9),
        ("training.learning_rate", training.learning_rate, 0.0, 1.0),
        ("training.warmup_steps", training.warmup_steps, 0, 10**9),
        ("training.batch_size", training.batch_size, 1, 10**6),
        ("training.accumulation", training.accumulation, 1, 10**6),
        ("training.adam_beta2", training.adam_beta2, 0.0, 0.999999),
        ("training.max_grad_norm", training.max_grad_norm, 0.0, 1e9),
        ("training.max_skipped_in_a_row", training.max_skipped_in_a_row, 0, 10**9),
        ("training.readers", training.readers, 0, 256),
        ("training.log_steps", training.log_steps, 1, 10**9),
        ("evaluation.every_percent", settings.evaluation.every_percent, 0.01, 100.0),
        ("evaluation.sample", settings.evaluation.sample, 0, 10**9),
        ("evaluation.max_slots", settings.evaluation.max_slots, 1, 10**6),
        ("evaluation.test_sample", settings.evaluation.test_sample, 0, 10**9),
        ("checkpoints.every_steps", settings.checkpoints.every_steps, 1, 10**9),
        ("checkpoints.keep", settings.checkpoints.keep, 1, 10**6),
    ):
        if not low <= value <= high:
            raise FinetuneError(f"{file}: {name} is {value}, and must be from {low:g} to {high:g}")
    if len({data.train_split, data.validation_split, data.test_split}) < 3:
        raise FinetuneError(
            f"{file}: data.train_split, validation_split and test_split must be three different splits: "
            f"figures on what was trained on mean nothing"
        )
