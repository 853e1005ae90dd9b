"""How much fits on the device: measured when the engine starts, not guessed.

On CUDA one full encoder batch and one full prefill of the longest clips are really run, and what they take at
their peak is left free beside the slots. On a CPU the memory that the system says is available is divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Phi4MultimodalForCausalLM

from speech.decoder import Decoder
from speech.features import SAMPLE_RATE_HZ, count_frames
from speech.prompting import Clip, Prompter

_CUDA_SHARE = 0.95
"""Of the free memory: the rest is for the allocator's fragments and the graph's own buffers."""
_CPU_SHARE = 0.5
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sizing:
    """What the engine may do at a time."""

    n_slots: int
    max_encoder_frames: int
    max_prefill_rows: int


def fit_to_device(
    model: Phi4MultimodalForCausalLM, prompter: Prompter, wanted: Sizing, *, capacity: int, max_clip_s: float
) -> Sizing:
    """`wanted`, or less where the device's memory is smaller.

    Args:
        model: opened, on its device.
        prompter: encodes clips with that model.
        wanted: never exceeded.
        capacity: tokens of one slot.
        max_clip_s: length of the longest clip, in seconds.

    Raises:
        torch.OutOfMemoryError: not even one slot fits beside the model; the message says how much is missing.
    """
    n_vocabulary = model.config.vocab_size
    # a step's scores in 32 bits, with the copies that are made of them
    per_slot = Decoder.slot_bytes(model, capacity) + 3 * 4 * n_vocabulary
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(model.device)
        wanted, workspace = _measure_workspace(model, prompter, wanted, capacity, max_clip_s)
        room = int(free * _CUDA_SHARE) - workspace
    else:
        room = int(available_host_bytes() * _CPU_SHARE)
    # one slot more than is used: see Decoder
    n_slots = min(wanted.n_slots, room // per_slot - 1)
    if n_slots < 1:
        raise torch.OutOfMemoryError(
            f"{model.device} has {room / 2**30:.2f} GiB left beside the model and its work space; one clip needs "
            f"{2 * per_slot / 2**30:.2f} GiB. Use a device with more memory, or a 16-bit FONOTECA_DTYPE"
        )
    return Sizing(n_slots, wanted.max_encoder_frames, wanted.max_prefill_rows)


def _measure_workspace(
    model: Phi4MultimodalForCausalLM, prompter: Prompter, wanted: Sizing, capacity: int, max_clip_s: float
) -> tuple[Sizing, int]:
    """Run the largest encoder pass and prefill; with half as much where that does not fit. Peak bytes."""
    clip = np.zeros(int(max_clip_s * SAMPLE_RATE_HZ), np.float32)
    least_frames = count_frames(len(clip))
    frames, rows = wanted.max_encoder_frames, max(wanted.max_prefill_rows, capacity)
    while True:
        prompter.max_frames = frames
        try:
            return Sizing(wanted.n_slots, frames, rows), _peak_bytes(model, prompter, clip, rows, capacity)
        except torch.OutOfMemoryError:
            if frames <= least_frames and rows <= capacity:
                raise
        # outside the handler: the error's traceback would keep the tensors alive
        frames, rows = max(frames // 2, least_frames), max(rows // 2, capacity)


@torch.inference_mode()
def _peak_bytes(
    model: Phi4MultimodalForCausalLM, prompter: Prompter, clip: Clip, rows: int, capacity: int
) -> int:
    """What an encoder pass, or a prefill of so many rows, takes at its peak, without slots."""
    device = model.device
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    prompts = prompter.embed([clip] * prompter.batch_size(clip))
    torch.cuda.synchronize(device)
    encoder_peak = torch.cuda.max_memory_allocated(device) - before
    n_together = max(1, min(len(prompts), rows // len(prompts[0])))
    decoder = Decoder(model, n_slots=n_together, capacity=capacity)
    torch.cuda.reset_peak_memory_stats(device)
    decoder.prefill(prompts[:n_together], range(n_together), n_rows=rows)
    torch.cuda.synchronize(device)
    slots = (n_together + 1) * Decoder.slot_bytes(model, capacity)
    return max(encoder_peak, torch.cuda.max_memory_allocated(device) - before - slots)


def available_host_bytes() -> int:
    """Memory that this process may still take without swapping, the container's limit included."""
    available = 1 << 62
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        taken = int(used.read_text()) - _page_cache_bytes()
        available = min(available, max(0, int(most) - taken))
    return available


def _page_cache_bytes() -> int:
    """File contents that the container's memory holds and gives up when it is needed: a checkpoint just read."""
    for line in (_CGROUP / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0
