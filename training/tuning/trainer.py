"""transformers' Trainer, changed where speech and 5.6 billion parameters need it.

- A batch that runs out of memory, or whose loss is not finite, is left out and counted; training goes on, and stops
  when it happens many times in a row. Gradients of a batch are taken whole or not at all (`torch.autograd.grad`):
  one that fails half-way through the backward pass leaves no trace in what the others accumulated.
- Each process holds a whole model, and gradients are summed once per optimizer step. With torch's
  DistributedDataParallel a process that leaves a batch out would let the others wait for ever.
- fp16's loss scaling is applied here, so that it is the same on every device.
- Evaluation is by generation; checkpoints are whole or not there (`training.tuning.checkpoints`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
import torch.distributed
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.tuning.checkpoints import Checkpoints, load_overlay, write_overlay
from training.tuning.errors import FinetuneError
from training.tuning.examples import Collator, Example, Examples, GroupedBatches
from training.tuning.settings import Settings
from training.tuning.trainee import Trainee

log = structlog.get_logger()

SKIPPED_FILE = "skipped.json"


@dataclass
class Skipped:
    """What was left out so far."""

    out_of_memory: int = 0
    """Batches."""
    not_finite: int = 0
    """Batches whose loss was NaN or infinite."""
    steps: int = 0
    """Optimizer steps whose gradients were not finite. With loss scaling some at the start are as they should be."""


def training_arguments(settings: Settings, folder: Path, *, resume: bool) -> TrainingArguments:
    """Our settings in the Trainer's words. It also finds the devices, and joins the other processes of the run."""
    training = settings.training
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_steps,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        average_tokens_across_devices=True,
        optim="adamw_torch",
        weight_decay=training.weight_decay,
        adam_beta1=0.9,
        adam_beta2=training.adam_beta2,
        adam_epsilon=1e-7,
        max_grad_norm=training.max_grad_norm or math.inf,
        seed=settings.seed,
        use_cpu=settings.device == "cpu",
        # how the processes of a run talk to each other, where there are several
        ddp_backend="gloo" if _has_others() and not on_gpu else None,
        logging_strategy="steps",
        logging_steps=training.log_steps,
        # a NaN is to be seen, not averaged away
        logging_nan_inf_filter=False,
        # precision, checkpointing, evaluating and saving are looked after here
        fp16=False,
        bf16=False,
        eval_strategy="no",
        eval_on_start=not resume,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=training.readers,
        remove_unused_columns=False,
    )
    if settings.device == "cuda" and arguments.device.type != "cuda":
        raise FinetuneError('device is "cuda", and torch finds none here: give device = "cpu", or "auto"')
    return arguments


def _has_others() -> bool:
    """Whether torchrun or `accelerate launch` started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class FinetuneTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """Trains the parameters of a `Trainee` that learn.

    Args:
        trainee: on its device.
        trained: its parameters that learn, by their names in the checkpoint.
        constants: what else belongs into an overlay (`training.tuning.frozen.constants_of`).
        settings: of the run.
        arguments: from `training_arguments`.
        examples: what is trained on.
        measure: gives metrics such as `eval_wer`, for a given step.
        checkpoints: where they are written.
    """

    control: TrainerControl

    def __init__(
        self,
        trainee: Trainee,
        trained: Mapping[str, nn.Parameter],
        constants: Mapping[str, torch.Tensor],
        settings: Settings,
        arguments: TrainingArguments,
        examples: Examples,
        *,
        measure: Callable[[int], dict[str, float]],
        checkpoints: Checkpoints,
        callbacks: list[TrainerCallback],
    ) -> None:
        self._settings = settings
        self._trained = dict(trained)
        self._constants = dict(constants)
        self._measure = measure
        self._checkpoints = checkpoints
        self._batches = GroupedBatches(
            [utterance.duration_s for utterance in examples.utterances],
            batch_size=settings.training.batch_size,
            accumulation=settings.training.accumulation,
            seed=settings.seed,
            rank=arguments.process_index,
            world_size=arguments.world_size,
        )
        self._writing: Path | None = None
        self.skipped = Skipped()
        self._n_in_a_row = 0
        self._tokens_lost = 0
        self._step_loss = torch.zeros((), device=arguments.device)
        super().__init__(
            model=trainee,
            args=arguments,
            data_collator=Collator(),
            train_dataset=examples,
            callbacks=[*callbacks, _Rhythm(settings)],
        )
        for callback in list(self.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)

    # --- what is trained on ------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Example]:
        """This process's batches. Not accelerate's loader: the order, dealt out already, is ours."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda",
        )

    def _run_epoch(self, *, epoch: int, **others: Any) -> None:
        self._batches.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **others)

    # --- one step ----------------------------------------------------------------------------------------

    def create_accelerator_and_postprocess(self) -> None:
        """accelerate's processes, without its wrapping of the model; loss scaling for float16."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = lambda model, **_: model
        if self._settings.training.precision == "float16":
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Add a batch's gradients to those of its optimizer step, or leave it out; its loss, detached."""
        model.train()
        loss, reason = self._accumulate(model, self._prepare_inputs(inputs), num_items_in_batch)
        if loss is None:
            # outside the handler: the error's traceback would keep the batch's tensors alive
            self._skip(inputs, reason)
            loss = torch.zeros((), device=self.args.device)
        else:
            self._n_in_a_row = 0
        self._step_loss += loss
        if self.accelerator.sync_gradients:
            loss = loss + self._finish_gradients(num_items_in_batch)
        # the Trainer logs the mean over processes, and each has its share of the sum
        shown: torch.Tensor = loss * self.args.world_size
        return shown

    def _accumulate(
        self, model: nn.Module, inputs: dict[str, Any], n_items: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, str]:
        parameters = list(self._trained.values())
        scaler = self.accelerator.scaler
        try:
            loss: torch.Tensor = model(**inputs, num_items_in_batch=n_items)["loss"]
            if not torch.isfinite(loss):
                return None, "not_finite"
            gradients = torch.autograd.grad(scaler.scale(loss) if scaler else loss, parameters)
        except torch.OutOfMemoryError:
            return None, "out_of_memory"
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return loss.detach(), ""

    def _skip(self, inputs: dict[str, Any], reason: str) -> None:
        setattr(self.skipped, reason, getattr(self.skipped, reason) + 1)
        self._n_in_a_row += 1
        self._tokens_lost += int(inputs["labels"].ne(-100).sum())
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "training_batch_left_out",
            reason=reason,
            longest_s=max(inputs["n_frames"]) / 100,
            n_utterances=len(inputs["labels"]),
            n_in_a_row=self._n_in_a_row,
            step=self.state.global_step,
        )

    def _finish_gradients(self, n_items: torch.Tensor | None) -> torch.Tensor:
        """Bring the gradients of an optimizer step to what they are over all processes; what the loss lacks yet.

        Raises:
            FinetuneError: too many batches in a row were left out, in one of the processes.
        """
        # every process has gradients to sum, even where all its batches were left out
        for parameter in self._trained.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        lost, in_a_row = self._tokens_lost, self._n_in_a_row
        if self.args.world_size > 1:
            told = torch.tensor([[lost, in_a_row]], device=self.args.device)
            everyone = [torch.zeros_like(told) for _ in range(self.args.world_size)]
            torch.distributed.all_gather(everyone, told)
            lost = int(sum(one[0, 0] for one in everyone))
            in_a_row = int(max(one[0, 1] for one in everyone))
            for parameter in self._trained.values():
                torch.distributed.all_reduce(parameter.grad)
        most = self._settings.training.max_skipped_in_a_row
        if in_a_row > most:
            raise FinetuneError(
                f"{in_a_row} batches in a row had to be left out ({self._why()}), and training.max_skipped_in_a_row "
                f"is {most}: {self._advice()}"
            )
        # the loss is a mean over the step's tokens: what was left out must not count as learnt
        factor = 1.0
        if lost and n_items is not None and lost < int(n_items):
            factor = int(n_items) / (int(n_items) - lost)
            for parameter in self._trained.values():
                assert parameter.grad is not None
                parameter.grad.mul_(factor)
        missing = self._step_loss * (factor - 1)
        self._step_loss = torch.zeros_like(self._step_loss)
        self._tokens_lost = 0
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        return missing

    def _why(self) -> str:
        return f"{self.skipped.out_of_memory} out of memory, {self.skipped.not_finite} not finite so far"

    def _advice(self) -> str:
        if self.skipped.out_of_memory >= self.skipped.not_finite:
            return "give a smaller training.batch_size or data.max_audio_s, or gradient_checkpointing = true"
        return 'give training.precision = "bfloat16", or a lower learning_rate; the data may hold noise'

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        """Scale gradients down to the greatest norm allowed. A step that is not finite changes nothing."""
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self.args.max_grad_norm)
        if not torch.isfinite(norm):
            self.skipped.steps += 1
            log.warning("training_step_left_out", reason="gradients not finite", step=self.state.global_step)
            if self.accelerator.scaler is None:  # a scaler sees it too, and lowers its scale
                for parameter in self._trained.values():
                    parameter.grad = None
        return norm

    # --- evaluating and saving ---------------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Error rates by generation on the validation sample."""
        self.model.eval()
        metrics = self._measure(self.state.global_step)
        self.model.train()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Also what was left out so far."""
        if "loss" in logs:
            logs |= {f"skipped_{kind}": count for kind, count in asdict(self.skipped).items()}
        super().log(logs, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writing or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        if self.args.should_save:
            self._checkpoints.begin()
        self._wait_for_all()
        self._writing = self._checkpoints.folder / "unfinished"
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing = None
        if self.args.should_save:
            written = self._checkpoints.folder / "unfinished" / f"checkpoint-{step}"
            (written / SKIPPED_FILE).write_text(json.dumps(asdict(self.skipped)), encoding="utf-8")
        self._wait_for_all()
        if self.args.should_save:
            self._checkpoints.finish(step, self._settings.checkpoints.keep)
            log.info("training_checkpoint_written", step=step)
        self._wait_for_all()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trained tensors alone, as float32, as an overlay that opens over the base."""
        if self.args.should_save:
            name = f"{self._settings.name}-step-{self.state.global_step}"
            folder = Path(output_dir or self.args.output_dir)
            write_overlay(folder, {**self._trained, **self._constants}, self._settings.base, name)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        load_overlay(checkpoint, self._trained)
        self.skipped = Skipped(**json.loads((checkpoint / SKIPPED_FILE).read_text(encoding="utf-8")))

    def _wait_for_all(self) -> None:
        if self.args.world_size > 1:
            torch.distributed.barrier()


class _Rhythm(TrainerCallback):  # type: ignore[misc]
    """When to evaluate and when to save. What is logged is cut at each checkpoint, so that a resumed run's log is
    the unbroken one's."""

    def __init__(self, settings: Settings) -> None:
        self._share = settings.evaluation.every_percent / 100
        self._save_every = settings.checkpoints.every_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        step = state.global_step
        control.should_evaluate = step in set(evaluation_steps(state.max_steps, self._share))
        control.should_save = step % self._save_every == 0 or step >= state.max_steps
        control.should_log = control.should_log or control.should_save or control.should_evaluate
        return control


def evaluation_steps(max_steps: int, share: float) -> Iterator[int]:
    """The steps at which each `share` of training is done; the last one always."""
    number = 1
    while number * share < 1 - 1e-9:
        yield max(1, round(number * share * max_steps))
        number += 1
    yield max_steps
