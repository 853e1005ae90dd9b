"""`fonoteca train`: corpora into manifests, and a base model into a fine-tuned one."""

from __future__ import annotations

import typer

from cli import train_finetune, train_prepare

train = typer.Typer(no_args_is_help=True, help="Prepare speech corpora, and fine-tune a model on them.")


@train.callback()
def group() -> None:
    """Prepare speech corpora, and fine-tune a model on them."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    train.command("prepare")(train_prepare.prepare)
    train_finetune.add_commands(train)
    app.add_typer(train, name="train")
