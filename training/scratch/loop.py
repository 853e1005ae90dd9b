"""The training itself: step after step, checkpoints on the way, to be gone on from after a kill.

Run by two single-thread processes on a CPU (`training.scratch.processes`), or by one on a GPU. Every random choice
is drawn from the seed and the step's number, so that a resumed training goes on as an unbroken one would.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import structlog
import torch

from training.scratch.batches import Loader
from training.scratch.flat import FlatParameters
from training.scratch.network import Network, ctc_loss, phoneme_loss, text_loss
from training.scratch.settings import Settings, Weights

CHECKPOINT, LOSSES = "checkpoint.pt", "losses.jsonl"
MAX_SKIPPED = 50
"""Steps left out because a number was not finite, before the training gives up."""

log = structlog.get_logger()

Exchange = Callable[[torch.Tensor], None]
"""Replaces a vector by its mean over all processes, in place."""


class TrainingFailed(RuntimeError):
    """The training cannot go on. Says why and what to do."""


@dataclass(frozen=True)
class Losses:
    """Of one step, before weighting; mean over the shards."""

    step: int
    total: float
    text: float
    ctc: float
    phonemes: float
    guide: float


N_LOSSES = len(fields(Losses)) - 1
"""All but the step."""


def rate_at(settings: Settings, step: int) -> float:
    """Learning rate: up in a line, then down as a cosine."""
    warm_up = max(1, round(settings.n_steps * settings.warm_up_share))
    place = settings.place(step)
    if place < warm_up:
        return settings.peak_rate * (place + 1) / warm_up
    share = (place - warm_up) / max(1, settings.n_steps - warm_up)
    return settings.final_rate + (settings.peak_rate - settings.final_rate) * 0.5 * (
        1 + math.cos(math.pi * share)
    )


def weights_at(settings: Settings, step: int) -> Weights:
    """How much each loss counts at `step`."""
    number, share = settings.phase_at(step)
    phase = settings.phases[number]
    return phase.first.towards(phase.last, share)


def train(
    network: Network,
    flat: FlatParameters,
    loader: Loader,
    settings: Settings,
    folder: Path,
    *,
    shards: Sequence[int],
    exchange: Exchange,
    is_first: bool,
    look: Callable[[int], None],
    until: int | None = None,
) -> None:
    """Train from the newest checkpoint in `folder`, or from the start, to the end.

    Args:
        shards: parts of each step that this process computes.
        exchange: mean over the processes.
        is_first: this process writes checkpoints and losses.
        look: called by every process with the number of steps done, a few times on the way.
        until: stop after this many steps, with a checkpoint.

    Raises:
        TrainingFailed: losses are not finite again and again, or the checkpoint is of other settings.
    """
    device = flat.masters.device
    step = _resume(flat, settings, folder)
    if is_first:
        _cut_losses(folder / LOSSES, step)
    end = min(settings.end, until or settings.end)
    save_at = _spread(settings.end, settings.n_checkpoints) | {end}
    look_at = _spread(settings.end, settings.n_looks)
    n_skipped = 0
    # the losses travel with the gradient: one exchange
    told = torch.zeros(len(flat.masters) + N_LOSSES, device=device)
    gradient = told[: len(flat.masters)]
    for batch in loader.batches(range(step, end), shards, n_workers=_n_workers(device)):
        weights = weights_at(settings, step)
        batch = batch.to(device)
        total, parts = _losses(network, batch, weights, settings)
        torch.autograd.backward(total)
        flat.take_gradient(gradient)
        told[len(gradient) :] = torch.stack([total.detach().float(), *parts])
        exchange(told)
        numbers = told[len(gradient) :].tolist()
        norm = float(gradient.norm())
        if math.isfinite(norm):
            gradient *= min(1.0, settings.max_norm / (norm + 1e-6))
            flat.step(gradient, rate_at(settings, step), step)
        else:
            n_skipped += 1
            log.warning("step_skipped", step=step, n_skipped=n_skipped)
            if n_skipped > MAX_SKIPPED:
                raise TrainingFailed(
                    f"losses were not finite in {n_skipped} steps, the last was {step}: try another seed, or "
                    f"--dtype float32"
                )
        step += 1
        if is_first:
            _write_losses(folder / LOSSES, Losses(step, *numbers))
            if step in save_at:
                _save(flat, settings, step, folder)
        if step in look_at:
            look(step)


def _n_workers(device: torch.device) -> int:
    """Processes that make batches ahead: on a GPU, where the others' cores are idle."""
    return min(12, max(1, (os.cpu_count() or 2) - 1)) if device.type == "cuda" else 0


def _losses(
    network: Network, batch: Any, weights: Weights, settings: Settings
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The weighted loss, and the text's, CTC's, phonemes' and guide's own."""
    outputs = network(batch, with_text=weights.text > 0)
    zero = outputs.phonemes.new_zeros(()).float()
    text = text_loss(outputs, settings.label_smoothing) if weights.text > 0 else zero
    ctc = ctc_loss(outputs, batch)
    phonemes = phoneme_loss(outputs, batch)
    guide = outputs.guide.float()
    total = weights.text * text + weights.ctc * ctc + weights.phonemes * phonemes + weights.guide * guide
    return total, [part.detach().float() for part in (text, ctc, phonemes, guide)]


def _spread(n_steps: int, times: int) -> set[int]:
    """`times` step numbers, evenly, the last at the end."""
    return {round(n_steps * (number + 1) / times) for number in range(times)} if times else set()


def _save(flat: FlatParameters, settings: Settings, step: int, folder: Path) -> None:
    unfinished = folder / f"{CHECKPOINT}.unfinished"
    torch.save({"step": step, "settings": settings.digest(), "flat": flat.state()}, unfinished)
    unfinished.replace(folder / CHECKPOINT)
    log.info("checkpoint_written", step=step, n_steps=settings.end)


def _resume(flat: FlatParameters, settings: Settings, folder: Path) -> int:
    """Steps done, by the checkpoint in `folder`; 0 without one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    saved = torch.load(path, map_location=flat.masters.device, weights_only=True)
    allowed = {settings.digest()}
    if settings.shortened and saved["step"] <= settings.shortened[0]:
        allowed.add(replace(settings, shortened=None).digest())
    if saved["settings"] not in allowed:
        raise TrainingFailed(f"{path} is of other settings: give those again, or another --out")
    flat.load(saved["flat"])
    log.info("training_resumed", step=saved["step"])
    return int(saved["step"])


def _write_losses(path: Path, losses: Losses) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: round(value, 5) for name, value in vars(losses).items()}) + "\n")


def read_losses(path: Path) -> list[Losses]:
    """What `train` wrote, a row for each step."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Losses(**json.loads(line)))
        except json.JSONDecodeError:  # a line that a kill broke off
            break
    return found


def _cut_losses(path: Path, step: int) -> None:
    """Forget the steps after the checkpoint: they are done again."""
    kept = [losses for losses in read_losses(path) if losses.step <= step]
    path.write_text("".join(json.dumps(vars(losses)) + "\n" for losses in kept), encoding="utf-8")
