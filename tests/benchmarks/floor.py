"""The least time that a device needs for the arithmetic and the memory traffic of transcribing some clips.

Counted from the model's shapes, at rates measured in the same run: each matrix product once at the device's
16-bit rate, and in each decode step all weights and the keys and values held, at its copy rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_PROMPT_TOKENS = 15
_FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class DeviceRates:
    """What the device does at best."""

    flops: float
    """Of a large matrix product in the model's type, per second."""
    bytes: float
    """Read and written by a large copy, per second."""


def measure_device(device: torch.device, dtype: torch.dtype) -> DeviceRates:
    """Rates of a large matrix product and a large copy: medians of ten."""
    side, n_bytes = (8192, 1 << 31) if device.type == "cuda" else (1024, 1 << 27)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    flops = 2 * side**3 / _median_seconds(device, lambda: a @ b)
    block = torch.zeros(n_bytes, dtype=torch.int8, device=device)
    target = torch.empty_like(block)
    return DeviceRates(flops, 2 * n_bytes / _median_seconds(device, lambda: target.copy_(block)))


def _median_seconds(device: torch.device, work: Callable[[], object]) -> float:
    times = []
    for number in range(13):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


class Floor:
    """The floor of one model on one device."""

    def __init__(self, config: Any, dtype: torch.dtype, rates: DeviceRates) -> None:
        self._rates = rates
        self._bytes = dtype.itemsize
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        hidden, n_layers = config.hidden_size, config.num_hidden_layers
        per_layer = (
            hidden * head * (config.num_attention_heads + 2 * config.num_key_value_heads)
            + config.num_attention_heads * head * hidden
            + 3 * hidden * config.intermediate_size
        )
        self._decoder_weights = n_layers * per_layer
        self._head_weights = hidden * config.vocab_size
        self._kv_bytes_per_token = 2 * n_layers * config.num_key_value_heads * head * self._bytes
        self._attention_width = n_layers * config.num_attention_heads * head
        self._audio = config.audio_config
        self._hidden = hidden

    def seconds(self, durations_s: Sequence[float], batch: int, tokens_per_second: float) -> float:
        """For clips of these lengths, `batch` of them decoded together at a time."""
        flops = traffic = 0.0
        for duration_s in durations_s:
            audio = int(duration_s * _FRAMES_PER_SECOND / 8)
            prompt, written = audio + _PROMPT_TOKENS, round(duration_s * tokens_per_second)
            flops += self._encoder_flops(audio) + 2 * prompt * self._decoder_weights
            flops += 2 * self._attention_width * prompt * prompt + 2 * self._head_weights
            # the weights are read once for the whole batch
            weights = (self._decoder_weights + self._head_weights) * self._bytes / batch
            traffic += written * (weights + self._kv_bytes_per_token * (prompt + written / 2))
        return flops / self._rates.flops + traffic / self._rates.bytes

    def _encoder_flops(self, steps: int) -> float:
        audio = self._audio
        width, inner = audio.hidden_size, audio.intermediate_size
        # two feed-forwards (gated), attention, gated convolution
        per_block = 2 * 3 * width * inner + 4 * width * width + 3 * width * width
        linear = audio.num_blocks * per_block + width * self._hidden + self._hidden * self._hidden
        channels = audio.nemo_conv_channels
        # pointwise convolutions at a quarter and an eighth of the frames, on 20 and 10 bands
        grids = channels * channels * (2 * 20 + 10) + 10 * channels * width
        return float(2 * steps * (linear + grids) + 4 * audio.num_blocks * steps * steps * width)
