"""`fonoteca train finetune` and `train card`: a base model into a fine-tuned one, and the page that describes it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption
from cli.output import Output, note


def add_commands(train: typer.Typer) -> None:
    """Add the commands to `fonoteca train`."""
    train.command("finetune")(finetune)
    train.command("card")(card)


def finetune(
    settings: Annotated[
        Path, typer.Argument(help="TOML file of the run (docs/training.md).", show_default=False)
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's newest whole checkpoint.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a checkpoint's audio part on a manifest, and measure what became of it.

    Only audio_embed learns; every other tensor is compared bit for bit at the end. A run that was killed goes on
    with --resume, and gives what it would have given. On several GPUs:
    accelerate launch --num_processes N -m training.finetune SETTINGS.
    """
    from training.finetune import finetune as run_finetune
    from training.finetune import log_to_stderr
    from training.tuning.settings import read_settings

    log_to_stderr()
    done = run_finetune(read_settings(settings), resume=resume)
    output = Output(as_json)
    if as_json:
        output.document(
            {
                "model": str(done.model),
                "n_steps": done.n_steps,
                "n_frozen_equal": done.n_frozen,
                "wer_before": _number(done.wer_before),
                "wer_after": _number(done.wer_after),
            }
        )
        return
    output.line(f"{done.model}: {done.n_steps} steps, {done.n_frozen} frozen tensors unchanged")
    if done.wer_after is not None:
        before = f"{done.wer_before:.2%} before, " if done.wer_before is not None else ""
        output.line(f"WER on the test split: {before}{done.wer_after:.2%} after")
    note(f"Its card: {done.model / 'README.md'}")


def card(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
) -> None:
    """Write the model card of a finished run anew, from what the run measured."""
    from training.tuning.card import write_card
    from training.tuning.run_folder import RunFolder

    Output().line(str(write_card(RunFolder(run))))


def _number(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
