"""Fine-tune a checkpoint's audio part on a manifest: the model card's recipe, made repeatable.

    fonoteca train finetune SETTINGS.toml [--resume]
    accelerate launch --num_processes 4 -m training.finetune SETTINGS.toml      # on several GPUs

Reads from top to bottom: what goes in, what may change, training, what comes out, how good it is. Each step's own
module in `training/tuning/` says how; `docs/training.md` says why.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import Phi4MultimodalForCausalLM, PreTrainedTokenizerFast, TrainingArguments

from speech.checkpoint import CheckpointError, open_checkpoint, read_card
from speech.convert import convert_checkpoint
from speech.prompt import prompt_of, tokenize_prompt
from speech.stored import read_stored
from training.manifest import Manifest, ManifestError, read_manifest
from training.tuning.callbacks import ProgressShown, TensorBoardLog
from training.tuning.card import write_card
from training.tuning.checkpoints import load_overlay, write_overlay
from training.tuning.curves import draw_curves
from training.tuning.errors import FinetuneError
from training.tuning.examples import AnswerTokenizer, Examples
from training.tuning.frozen import check_unchanged, check_written, constants_of, fingerprints, freeze
from training.tuning.measuring import ALL, rates_by_dataset, rates_of, sample_of, write_texts
from training.tuning.run_folder import RunFolder
from training.tuning.settings import Settings, read_settings
from training.tuning.trainee import Trainee
from training.tuning.trainer import FinetuneTrainer, training_arguments

log = structlog.get_logger()

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Finetuned:
    """What came out."""

    model: Path
    """A whole checkpoint, with its card."""
    n_steps: int
    n_frozen: int
    """Tensors found equal to the base's, bit for bit."""
    wer_before: float | None
    """On the test split; None where that was not measured."""
    wer_after: float | None


@dataclass(frozen=True)
class Splits:
    """The utterances a run sees."""

    train: Manifest
    validation: Manifest
    test: Manifest | None
    n_too_long: int
    """Utterances for training that were left out."""


def finetune(settings: Settings, *, resume: bool = False) -> Finetuned:
    """Run, or go on with, one fine-tuning.

    Args:
        resume: go on from the newest whole checkpoint of `settings.run`.

    Raises:
        FinetuneError: settings, data or an earlier run do not allow it, or training broke down.
        CheckpointError: the base cannot be opened.
        ManifestError: the manifest cannot be read.
    """
    run = RunFolder(settings.run)
    arguments = training_arguments(settings, run.checkpoints.folder, resume=resume)
    is_main = arguments.process_index == 0
    make_repeatable(arguments.device)

    # --- what goes in
    splits = read_splits(settings)
    if is_main:
        run.begin(settings, inputs_of(settings, splits, arguments.world_size), resume=resume)
    wait_for_all()
    if run.model.exists():
        log.info("training_already_done", model=str(run.model))
    else:
        train(settings, run, splits, arguments, resume=resume)
        free_memory()
    wait_for_all()

    # --- how good it is
    n_frozen = check_written(run.model, settings.base) if is_main else 0
    measured = measure_test(settings, run, splits.test, arguments)
    if is_main:
        run.end({"n_frozen_equal": n_frozen})
        write_card(run)
    return Finetuned(
        model=run.model,
        n_steps=run.read("history.json")[-1]["step"],
        n_frozen=n_frozen,
        wer_before=measured.get("base", {}).get(ALL, {}).get("wer"),
        wer_after=measured.get("result", {}).get(ALL, {}).get("wer"),
    )


def read_splits(settings: Settings) -> Splits:
    """The manifest's parts that this run sees.

    Raises:
        ManifestError, FinetuneError: it cannot be read, or lacks a split.
    """
    data = settings.data
    manifest = read_manifest(data.manifest, folders=data.folders)
    parts: dict[str, Manifest] = {}
    for split in filter(None, (data.train_split, data.validation_split, data.test_split)):
        part = manifest.of_split(split)
        kept = tuple(u for u in part.utterances if u.duration_s <= data.max_audio_s)
        if not kept:
            there = sorted({utterance.split for utterance in manifest.utterances})
            raise FinetuneError(
                f"{data.manifest}: has no utterance of split {split!r} up to {data.max_audio_s:g} s (there are: "
                f"{', '.join(there) or 'none'}): name another under [data], or prepare one"
            )
        parts[split] = replace(part, utterances=kept)
    n_train = len(manifest.of_split(data.train_split).utterances)
    evaluation, seed = settings.evaluation, settings.seed
    test = parts.get(data.test_split)
    return Splits(
        train=parts[data.train_split],
        validation=sample_of(parts[data.validation_split], evaluation.sample, seed),
        test=sample_of(test, evaluation.test_sample, seed) if test else None,
        n_too_long=n_train - len(parts[data.train_split].utterances),
    )


def inputs_of(settings: Settings, splits: Splits, n_processes: int) -> dict[str, Any]:
    """Hashes and counts of what goes in: a resumed run must find the same."""
    card = read_card(settings.base)
    return {
        "base": {"name": card.name, "layout": card.layout.value, "weights_sha256": card.weights_sha256},
        "train": {**_counts(splits.train), "n_too_long": splits.n_too_long},
        "validation": _counts(splits.validation),
        "n_processes": n_processes,
    }


def _counts(manifest: Manifest) -> dict[str, Any]:
    datasets: dict[str, dict[str, float]] = {}
    for utterance in manifest.utterances:
        found = datasets.setdefault(utterance.dataset, {"n_utterances": 0, "hours": 0.0})
        found["n_utterances"] += 1
        found["hours"] += utterance.duration_s / 3600
    return {
        "sha256": manifest.sha256(),
        "n_utterances": len(manifest.utterances),
        "hours": round(sum(utterance.duration_s for utterance in manifest.utterances) / 3600, 4),
        "datasets": {
            name: {"n_utterances": int(found["n_utterances"]), "hours": round(found["hours"], 4)}
            for name, found in sorted(datasets.items())
        },
    }


def train(
    settings: Settings, run: RunFolder, splits: Splits, arguments: TrainingArguments, *, resume: bool
) -> None:
    """Train from the base or the newest checkpoint, and write the result."""
    training = settings.training
    is_main = arguments.process_index == 0
    model, tokenizer = open_checkpoint(
        settings.base, device=str(arguments.device), dtype=DTYPES[training.precision]
    )

    # --- what may change
    trained = freeze(model)
    constants = constants_of(settings.base)
    before = fingerprints(model) if is_main else {}

    # --- training
    to_answer = AnswerTokenizer(tokenizer)
    to_answer.check(end_ids_of(model))
    trainee = Trainee(
        model,
        tokenize_prompt(prompt_of(model.config), tokenizer),
        precision=training.precision,
        gradient_checkpointing=training.gradient_checkpointing,
    )

    def measure(step: int) -> dict[str, float]:
        written = write_texts(model, tokenizer, splits.validation, max_slots=settings.evaluation.max_slots)
        free_memory()
        if is_main:
            run.write_texts(f"step-{step}", written)
        rates = rates_of(written)
        return {"eval_wer": rates.wer, "eval_cer": rates.cer, "eval_failed": float(rates.n_failed)}

    trainer = FinetuneTrainer(
        trainee,
        trained,
        constants,
        settings,
        arguments,
        Examples(splits.train, to_answer),
        measure=measure,
        checkpoints=run.checkpoints,
        callbacks=[ProgressShown(), TensorBoardLog(run.tensorboard)],
    )
    checkpoint = run.checkpoints.newest() if resume else None
    if checkpoint is not None and is_last(checkpoint):
        # killed while the result was written: the Trainer would train one step more
        load_overlay(checkpoint, trained)
        history = state_of(checkpoint)["log_history"]
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        history = trainer.state.log_history

    # --- what comes out
    if is_main:
        check_unchanged(before, fingerprints(model))
        # without the Trainer's summary of this session, which is not the whole run's
        history = [line for line in history if "train_runtime" not in line]
        run.write("history.json", history)
        draw_curves(history, run.curves, title=settings.name)
        write_result(settings, run, {**trained, **constants})


def state_of(checkpoint: Path) -> dict[str, Any]:
    """The Trainer's state in a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def is_last(checkpoint: Path) -> bool:
    """Whether training is over with it."""
    state = state_of(checkpoint)
    return bool(state["global_step"] >= state["max_steps"])


def end_ids_of(model: Phi4MultimodalForCausalLM) -> list[int]:
    """Token ids that end a text."""
    ids: int | list[int] = model.config.eos_token_id
    return ids if isinstance(ids, list) else [ids]


def write_result(settings: Settings, run: RunFolder, tensors: dict[str, torch.Tensor]) -> None:
    """Write base and `tensors` (all of `audio_embed`) as one whole checkpoint: what `open_checkpoint` opens."""
    dtypes = {}
    if settings.output.dtype == "base":
        stored = read_stored(settings.base).gathered.sources
        dtypes = {name: stored[name].base.dtype for name in tensors}
    overlay = run.folder / "overlay"
    shutil.rmtree(overlay, ignore_errors=True)
    write_overlay(overlay, tensors, settings.base, settings.name, dtypes=dtypes)
    convert_checkpoint(overlay, run.model)
    shutil.rmtree(overlay)


def measure_test(
    settings: Settings, run: RunFolder, test: Manifest | None, arguments: TrainingArguments
) -> dict[str, Any]:
    """Error rates on the test split, of the base and of the result as it was written; done once."""
    if test is None:
        return {}
    measured: dict[str, Any] = {}
    models = (
        {"base": settings.base, "result": run.model}
        if settings.evaluation.test_base
        else {"result": run.model}
    )
    for name, path in models.items():
        written = run.read_texts(f"test-{name}")
        wait_for_all()
        if written is None or [one.id for one in written] != [one.id for one in test.utterances]:
            model, tokenizer = open_for_measuring(path, settings, arguments)
            log.info("training_test_begins", model=name, n_utterances=len(test.utterances))
            written = write_texts(model, tokenizer, test, max_slots=settings.evaluation.max_slots)
            del model
            free_memory()
            if arguments.process_index == 0:
                run.write_texts(f"test-{name}", written)
        measured[name] = rates_by_dataset(written)
    if arguments.process_index == 0:
        run.write("test.json", measured)
    return measured


def open_for_measuring(
    path: Path, settings: Settings, arguments: TrainingArguments
) -> tuple[Phi4MultimodalForCausalLM, PreTrainedTokenizerFast]:
    """A checkpoint in the run's precision, as production would open it."""
    return open_checkpoint(path, device=str(arguments.device), dtype=DTYPES[settings.training.precision])


def log_to_stderr() -> None:
    """Logs beside the result, not in it: stdout is for what a program may read."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def make_repeatable(device: torch.device) -> None:
    """Choose kernels that give the same bits each time, where there are such: a resumed run repeats the losses."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def free_memory() -> None:
    """Give back what Python and the device's allocator hold without need. Host memory comes back by itself."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def wait_for_all() -> None:
    """Until every process of the run is here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.finetune", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("settings", type=Path, help="TOML file (docs/training.md)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    chosen = parser.parse_args(arguments)
    log_to_stderr()
    try:
        found = finetune(read_settings(chosen.settings), resume=chosen.resume)
    except (FinetuneError, CheckpointError, ManifestError) as error:
        sys.exit(f"{error}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    sys.stdout.write(f"{found.model}\n")


if __name__ == "__main__":
    main()
