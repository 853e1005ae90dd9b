"""What a person sees while training runs: a progress bar or lines, and TensorBoard's files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import structlog
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = structlog.get_logger()


class ProgressShown(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """A bar on a terminal; elsewhere a log line for each line of the training log."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show how far a resumed run is already."""
        if not (state.is_world_process_zero and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, told="")
        self._bar.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """One step further."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **_: Any,
    ) -> None:
        """The newest loss or error rate."""
        if not state.is_world_process_zero:
            return
        if self._bar is not None:
            told = [
                f"{label} {logs[key]:.3f}"
                for key, label in (("loss", "loss"), ("eval_wer", "WER"))
                if key in logs
            ]
            if told:
                self._bar.update(self._task, told=", ".join(told))
        else:
            rounded = {
                key: float(f"{value:.5g}") for key, value in logs.items() if isinstance(value, float | int)
            }
            log.info("training_progress", step=state.global_step, of=state.max_steps, **rounded)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class TensorBoardLog(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """The training log as TensorBoard reads it. A resumed run takes the place of what the killed one logged after
    its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Open it, past what a resumed run logged before."""
        if state.is_world_process_zero:
            from tensorboardX import SummaryWriter

            purge = state.global_step + 1 if state.global_step else None
            self._writer = SummaryWriter(str(self._folder), purge_step=purge)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **_: Any,
    ) -> None:
        """Every number of a line."""
        if self._writer is not None:
            for key, value in logs.items():
                if isinstance(value, float | int):
                    group = "validation/" if key.startswith("eval_") else "training/"
                    self._writer.add_scalar(group + key.removeprefix("eval_"), value, state.global_step)
            self._writer.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Close it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
