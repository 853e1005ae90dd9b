"""`fonoteca train`: corpora into manifests, and a base model into a fine-tuned one."""

from __future__ import annotations

import typer

train = typer.Typer(no_args_is_help=True, help="Prepare speech corpora, and fine-tune a model on them.")


@train.callback()
def group() -> None:
    """Prepare speech corpora, and fine-tune a model on them."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(train, name="train")
