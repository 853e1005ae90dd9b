"""Training goes on past a batch that fails, as if that batch had never been, and stops where nothing else helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import training.finetune
from tests.training.small_runs import small_settings
from training.finetune import read_splits, train
from training.tuning.checkpoints import Checkpoints, load_overlay
from training.tuning.errors import FinetuneError
from training.tuning.run_folder import RunFolder
from training.tuning.settings import Settings
from training.tuning.trainer import FinetuneTrainer, evaluation_steps, training_arguments

Prepare = Callable[[FinetuneTrainer], None]


class GradientsSeen(TrainerCallback):
    """The gradients of each optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        parameters = others["model"].named_parameters()
        self.steps.append({name: p.grad.clone() for name, p in parameters if p.grad is not None})


def trained(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, prepare: Prepare = lambda trainer: None
) -> tuple[FinetuneTrainer, GradientsSeen]:
    """Train, with the trainer prepared by `prepare` before it begins."""
    made: list[FinetuneTrainer] = []
    seen = GradientsSeen()

    def make(*inputs: Any, **named: Any) -> FinetuneTrainer:
        trainer = FinetuneTrainer(*inputs, **named)
        trainer.add_callback(seen)
        trainer._measure = lambda step: {"eval_wer": 1.0}
        prepare(trainer)
        made.append(trainer)
        return trainer

    monkeypatch.setattr(training.finetune, "FinetuneTrainer", make)
    # what comes after training is not looked at here
    monkeypatch.setattr(training.finetune, "draw_curves", lambda *_, **__: None)
    monkeypatch.setattr(training.finetune, "write_result", lambda *_: None)
    run = RunFolder(settings.run)
    arguments = training_arguments(settings, run.checkpoints.folder, resume=False)
    train(settings, run, read_splits(settings), arguments, resume=False)
    return made[0], seen


def one_step(folder: Path, **training_settings: Any) -> Settings:
    """A run of one optimizer step of two batches, its gradients as they are."""
    changes = {"max_steps": 1, "batch_size": 1, "warmup_steps": 0, "max_grad_norm": 0.0}
    return small_settings(folder, training={**changes, **training_settings})


def failing(
    which: set[int], *, backward: bool = False, how: type[Exception] = torch.OutOfMemoryError
) -> Prepare:
    """Let the batches of these numbers fail, before or half-way through the backward pass."""

    def prepare(trainer: FinetuneTrainer) -> None:
        calls: list[int] = []

        def fail(*_: Any) -> None:
            if len(calls) - 1 in which:
                raise how("no room")

        trainer.model.register_forward_pre_hook(lambda *_: calls.append(1))
        encoder = trainer.model.model.model.embed_tokens_extend.audio_embed.encoder
        if backward:
            encoder.encoders[0].register_full_backward_hook(fail)
        else:
            encoder.encoder_embedding.register_forward_pre_hook(fail)

    return prepare


@pytest.mark.parametrize("backward", [False, True])
def test_a_batch_out_of_memory_leaves_no_trace_but_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backward: bool
) -> None:
    settings = one_step(tmp_path)
    trainer, seen = trained(
        replace(settings, run=tmp_path / "failed"), monkeypatch, failing({1}, backward=backward)
    )
    assert trainer.skipped.out_of_memory == 1
    logged = next(line for line in trainer.state.log_history if "loss" in line)
    assert logged["skipped_out_of_memory"] == 1

    # the same step, had its second batch never been
    alone = replace(settings, run=tmp_path / "alone", training=replace(settings.training, accumulation=1))
    without, seen_alone = trained(alone, monkeypatch)
    assert seen.steps[0].keys() == seen_alone.steps[0].keys()
    for name, gradient in seen.steps[0].items():
        torch.testing.assert_close(gradient, seen_alone.steps[0][name], rtol=1e-3, atol=1e-4)
    loss_alone = next(line["loss"] for line in without.state.log_history if "loss" in line)
    assert logged["loss"] == pytest.approx(loss_alone, rel=1e-5)


def test_a_loss_that_is_not_finite_is_left_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(trainer: FinetuneTrainer) -> None:
        calls: list[int] = []

        def spoil(module: Any, inputs: Any, output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            calls.append(1)
            return {"loss": output["loss"] * float("nan")} if len(calls) == 1 else output

        trainer.model.register_forward_hook(spoil)

    trainer, seen = trained(one_step(tmp_path), monkeypatch, prepare)
    assert trainer.skipped.not_finite == 1
    assert all(torch.isfinite(gradient).all() for gradient in seen.steps[0].values())


def test_too_many_in_a_row_end_training_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small_settings(tmp_path, training={"max_skipped_in_a_row": 3})
    with pytest.raises(
        FinetuneError, match=r"4 batches in a row .*4 out of memory.*smaller training\.batch_size"
    ):
        trained(settings, monkeypatch, failing(set(range(100))))


def test_other_errors_are_not_taken_for_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyError, match="no room"):
        trained(one_step(tmp_path), monkeypatch, failing({0}, how=KeyError))


def test_gradients_that_are_not_finite_change_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, torch.Tensor] = {}

    def prepare(trainer: FinetuneTrainer) -> None:
        before.update({name: parameter.detach().clone() for name, parameter in trainer._trained.items()})
        first = next(iter(trainer._trained.values()))
        trainer.accelerator.scaler = None
        trainer._accumulate_plainly = trainer._accumulate

        def spoiled(*inputs: Any) -> Any:
            found = trainer._accumulate_plainly(*inputs)
            first.grad[..., 0] = float("inf")
            return found

        trainer._accumulate = spoiled

    trainer, _ = trained(one_step(tmp_path), monkeypatch, prepare)
    assert trainer.skipped.steps == 1
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer._trained.items())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_16_bit_training_learns_on_float32_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    before: dict[str, torch.Tensor] = {}

    def prepare(trainer: FinetuneTrainer) -> None:
        before.update({name: parameter.detach().clone() for name, parameter in trainer._trained.items()})
        if trainer.accelerator.scaler is not None:
            # a random model's first gradients are so large that the usual scale is looked for for long
            trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)

    settings = small_settings(
        tmp_path, training={"precision": precision, "max_steps": 4, "batch_size": 1, "warmup_steps": 0}
    )
    trainer, seen = trained(settings, monkeypatch, prepare)
    assert {parameter.dtype for parameter in trainer._trained.values()} == {torch.float32}
    assert trainer.model.model.lm_head.weight.dtype == getattr(torch, precision)
    finite = [step for step in seen.steps if all(torch.isfinite(grad).all() for grad in step.values())]
    assert len(finite) >= len(seen.steps) // 2
    moved = [name for name, parameter in trainer._trained.items() if not torch.equal(before[name], parameter)]
    # a constant added to every key changes no attention: its gradient is 0 but for rounding
    assert len(moved) >= len(before) - 4
    assert (trainer.accelerator.scaler is not None) == (precision == "float16")
    if precision == "float16":
        checkpoint = RunFolder(settings.run).checkpoints.newest()
        assert checkpoint is not None
        assert (checkpoint / "scaler.pt").exists()


def test_loss_scaling_is_taken_off_the_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a scaler or without: the same step."""
    settings = one_step(tmp_path)
    _, plain = trained(replace(settings, run=tmp_path / "plain"), monkeypatch)

    def scaled(trainer: FinetuneTrainer) -> None:
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    _, seen = trained(replace(settings, run=tmp_path / "scaled"), monkeypatch, scaled)
    for name, gradient in plain.steps[0].items():
        torch.testing.assert_close(seen.steps[0][name], gradient, rtol=1e-5, atol=1e-7)


# --- checkpoints -----------------------------------------------------------------------------------------


def test_every_share_of_the_progress_is_evaluated() -> None:
    assert list(evaluation_steps(100, 0.2)) == [20, 40, 60, 80, 100]
    assert list(evaluation_steps(7, 0.2)) == [1, 3, 4, 6, 7]
    assert list(evaluation_steps(1, 0.5)) == [1, 1]
    assert list(evaluation_steps(10, 1.0)) == [10]


def test_the_newest_checkpoints_are_kept_and_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speech.checkpoint import open_checkpoint

    settings = small_settings(tmp_path, training={"max_steps": 4}, checkpoints={"every_steps": 1, "keep": 2})
    trainer, _ = trained(settings, monkeypatch)
    kept = RunFolder(settings.run).checkpoints.all()
    assert [path.name for path in kept] == ["checkpoint-3", "checkpoint-4"]
    assert sorted(path.name for path in kept[0].parent.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    model, _ = open_checkpoint(kept[1], dtype="float32", device="cpu")
    for name, parameter in trainer._trained.items():
        assert torch.equal(model.get_parameter(name), parameter)


def test_a_half_written_checkpoint_is_never_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any point of the writing, the folder shows the checkpoint before."""
    settings = small_settings(tmp_path, training={"max_steps": 4}, checkpoints={"every_steps": 2})
    broken_off: list[str] = []

    class Killed(BaseException):
        pass

    def prepare(trainer: FinetuneTrainer) -> None:
        plainly = Checkpoints.finish

        def killed_in_the_second(self: Checkpoints, step: int, keep: int) -> Path:
            if step == 4:
                written = self.folder / "unfinished" / "checkpoint-4"
                broken_off.extend(sorted(path.name for path in written.iterdir()))
                (written / "model.safetensors").write_bytes(b"half")
                raise Killed
            return plainly(self, step, keep)

        monkeypatch.setattr(Checkpoints, "finish", killed_in_the_second)

    with pytest.raises(Killed):
        trained(settings, monkeypatch, prepare)
    assert "model.safetensors" in broken_off
    assert "optimizer.pt" in broken_off
    checkpoints = RunFolder(settings.run).checkpoints
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name == "checkpoint-2"
    assert not any(checkpoints.begin().iterdir())


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(FinetuneError, match="belongs to another model"):
        load_overlay(tmp_path / "checkpoint-1", {"a": torch.nn.Parameter(torch.zeros(1))})
