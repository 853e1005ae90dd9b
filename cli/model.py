"""`fonoteca model`: look into a checkpoint, write it anew, and put it into service."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, count_text, note, size_text
from cli.promotion import add_commands

if TYPE_CHECKING:
    from speech.inspection import Inspection

model = typer.Typer(
    no_args_is_help=True, help="Look into a model's checkpoint, convert it, and put it into service."
)

BaseOption = Annotated[
    Path | None,
    typer.Option(
        "--base", help="Whole checkpoint under a folder that holds audio_embed alone.", show_default=False
    ),
]


class Precision(StrEnum):
    KEEP = "keep"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_commands(model)
    app.add_typer(model, name="model")


@model.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(help="Folder of the checkpoint.", show_default=False)],
    base: BaseOption = None,
    as_json: JsonOption = False,
    no_hash: Annotated[
        bool, typer.Option("--no-hash", help="Do not read the weights for their SHA-256.")
    ] = False,
) -> None:
    """Show what a checkpoint holds and whether it can be opened.

    The weights are read only for their hash. The exit code is 1 where something keeps the checkpoint from being
    opened; everything that does is listed.
    """
    from dataclasses import asdict

    from speech.inspection import inspect_checkpoint

    found = inspect_checkpoint(path, base=base, with_hash=not no_hash)
    if base is not None and found.base_name is None:
        note(f"{path} is a whole checkpoint: --base is not used")
    output = Output(as_json)
    if as_json:
        output.document(asdict(found))
    else:
        _print(found, output)
    if found.problems:
        n_problems = sum(len(listed) for listed in found.problems.values())
        raise CliError(f"{path}: cannot be opened: {count_text(n_problems, 'problem')}")


def _print(found: Inspection, output: Output) -> None:
    decoder, audio = found.decoder, found.audio_encoder
    layout = found.layout.value
    if found.base_name:
        layout += f" over {found.base_name} ({found.base_layout})"
    ends = ", ".join(f"{end.id} {end.text or '(not in the tokenizer)'}" for end in found.end_tokens)
    lines = {
        "name": f"{found.name}{'   (demo model: not for real use)' if found.is_demo else ''}",
        "layout": layout,
        "weights": f"{size_text(found.n_bytes)} in {count_text(found.n_files, 'file')}, "
        f"{count_text(found.n_tensors, 'tensor')}, {_parameters(found.n_parameters)} parameters",
        "opened": f"{_parameters(found.n_parameters_opened)} parameters: "
        f"{size_text(2 * found.n_parameters_opened)} in 16 bits, "
        f"{size_text(4 * found.n_parameters_opened)} in float32",
        "sha256": found.weights_sha256 or "(not asked for)",
        "decoder": f"{decoder['layers']} layers x {decoder['hidden_size']}, intermediate "
        f"{decoder['intermediate_size']}, {decoder['heads']} heads ({decoder['key_value_heads']} key-value)",
        "vocabulary": str(decoder["vocabulary"]),
        "audio encoder": f"{audio['blocks']} blocks x {audio['hidden_size']}, intermediate "
        f"{audio['intermediate_size']}, {audio['heads']} heads",
    }
    if lora := found.speech_lora:
        lines["speech LoRA"] = (
            f"r = {lora.r}, alpha = {lora.alpha:g}, merged into {count_text(lora.n_modules, 'module')}"
        )
    lines["end of text"] = ends
    lines["prompt"] = f"{'its own' if found.is_own_prompt else 'the default'}:"
    for label, value in lines.items():
        output.line(f"{label:<15}{value}")
    output.line(f"  {found.prompt}")
    output.line("")
    output.line(f"{'part':<19}{'tensors':>8}{'parameters':>13}{'size':>13}  type")
    for part in found.parts:
        dropped = "" if part.is_used else "   left out"
        output.line(
            f"{part.name:<19}{part.n_tensors:>8}{_parameters(part.n_parameters):>13}"
            f"{size_text(part.n_bytes):>13}  {', '.join(part.dtypes)}{dropped}"
        )
    for kind, listed in found.problems.items():
        output.line("")
        output.line(f"{kind}:")
        for problem in listed:
            output.line(f"  {problem}")


def _parameters(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 100_000 else f"{count:,}"


@model.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of the checkpoint.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Folder to write; new or empty.", show_default=False)],
    base: BaseOption = None,
    dtype: Annotated[
        Precision, typer.Option(help="Type of the weights written; keep leaves each as it is stored.")
    ] = Precision.KEEP,
    shard_gb: Annotated[float, typer.Option(help="Most GB of weights in one file.", min=0.001)] = 4.0,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint anew: native layout, LoRA merged, no image tower, no code.

    An audio overlay and its base become one. The weights pass through memory one tensor at a time. Nothing
    half-written stays when the command is interrupted.
    """
    from speech.convert import convert_checkpoint

    bar = _Progress()
    done = convert_checkpoint(
        source, target, base=base, dtype=dtype.value, shard_bytes=int(shard_gb * 10**9), progress=bar.update
    )
    bar.end()
    content: dict[str, Any] = {
        "folder": str(target),
        "files": list(done.files),
        "n_tensors": done.n_tensors,
        "n_parameters": done.n_parameters,
        "n_bytes": done.n_bytes,
        "source_sha256": done.source_sha256,
    }
    output = Output(as_json)
    if as_json:
        output.document(content)
    else:
        output.line(
            f"{target}: {_parameters(done.n_parameters)} parameters, {size_text(done.n_bytes)} "
            f"in {count_text(len(done.files), 'file')}"
        )


class _Progress:
    """Bytes read and written, on stderr: a line that moves on a terminal, else one every ten seconds."""

    labels = {"hash": "reading", "write": "writing"}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self._moves = sys.stderr.isatty()
        self._shown_at = time.monotonic()
        self._is_open = False

    def update(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._shown_at < (0.2 if self._moves else 10):
            return
        self._shown_at = now
        text = f"{self.labels[step]} {size_text(done)} of {size_text(total)} ({done / max(1, total):.0%})"
        if not self._moves:
            note(text)
            return
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        self._is_open = True
        if done >= total:
            self.end()

    def end(self) -> None:
        if self._is_open:
            sys.stderr.write("\n")
            self._is_open = False
