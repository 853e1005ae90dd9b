"""The network of silero VAD 6.2 in numpy: its part without memory over many windows at once, its LSTM in lanes.

The published model is a script that runs one window at a time (45 seconds of audio per second of one core) and wants
torch. Most of it has no memory: only the LSTM does. So here the memoryless part runs over many windows at once, as
matrix products, and the LSTM in nine calls of numpy a step, for as many stretches of audio as there are lanes. The
result is the script's own to within 1e-4, for any length.

Three things make the products small. A windowed frame's Fourier transform sees sums and differences of the samples
on both sides of the frame's middle, so two products of half the size give real and imaginary parts. A convolution over
four frames is a product per output frame with the input frames that it sees. And a sigmoid is a tanh of half the
argument: the halves are in the weights, so that one call of tanh serves all four gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

WINDOW_SAMPLES = 512
"""One probability per this many 16 kHz samples (32 ms)."""
WEIGHTS_FILE = Path(__file__).with_name("silero_vad_16k.npz")
"""Made by `speech/make_vad_weights.py`."""
_CONTEXT_SAMPLES = 64
_FRAME_SAMPLES = 256
_HOP_SAMPLES = 128
_FRAMES = 4
"""Of a window."""
_BINS = _FRAME_SAMPLES // 2 + 1
WIDTH = 128
_ENCODED_WINDOWS = 96
"""Encoded at once, a chunk of `speech.vad`: what is between two products (1.5 MB) stays in a core's cache."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Product:
    """One output frame of a convolution, as a matrix over the input frames that it sees."""

    inputs: slice
    """Columns of the layer's input."""
    weight: Floats
    bias: Floats


class Weights:
    """The model's arrays in the shapes that the passes below multiply with."""

    def __init__(self) -> None:
        with np.load(WEIGHTS_FILE, allow_pickle=False) as arrays:
            state: dict[str, Floats] = {name: arrays[name] for name in arrays.files}
        self.cosines, self.sines = _fourier()
        # frames that each layer takes, stride, and frames that it gives
        shapes = ((4, 1, 4), (4, 2, 2), (2, 2, 1), (1, 1, 1))
        self.layers = [
            _as_products(
                state[f"encoder.{number}.reparam_conv.weight"],
                state[f"encoder.{number}.reparam_conv.bias"],
                n_in=n_in,
                stride=stride,
                n_out=n_out,
            )
            for number, (n_in, stride, n_out) in enumerate(shapes)
        ]
        # input, forget, output, cell: the first three are sigmoids of their argument, so tanh of half of it
        order = np.concatenate([np.arange(start, start + WIDTH) for start in (0, 128, 384, 256)])
        scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), WIDTH)
        bias = state["decoder.rnn.bias_ih"] + state["decoder.rnn.bias_hh"]
        self.gates_from_input = np.ascontiguousarray(
            (state["decoder.rnn.weight_ih"][order] * scale[:, None]).T
        )
        self.gates_bias = bias[order] * scale
        # the stream below carries twice the published hidden state
        self.gates_from_hidden = np.ascontiguousarray(
            (state["decoder.rnn.weight_hh"][order] * scale[:, None] * np.float32(0.5)).T
        )
        self.out_weight = state["decoder.decoder.2.weight"].reshape(WIDTH) * np.float32(0.5)
        self.out_bias = state["decoder.decoder.2.bias"]


def _fourier() -> tuple[Floats, Floats]:
    """(128, 129) each: from sums and differences of mirrored samples to real and (negative) imaginary parts.

    Row n - 1 belongs to samples n and 256 - n of a frame under a Hann window, whose sample 0 is 0. At n = 128 both
    are the same sample.
    """
    places = np.arange(1, _HOP_SAMPLES + 1)
    angles = 2 * np.pi / _FRAME_SAMPLES * places[:, None] * np.arange(_BINS)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * places / _FRAME_SAMPLES)
    hann[-1] /= 2
    return (
        (hann[:, None] * np.cos(angles)).astype(np.float32),
        (hann[:, None] * np.sin(angles)).astype(np.float32),
    )


def _as_products(weight: Floats, bias: Floats, *, n_in: int, stride: int, n_out: int) -> list[_Product]:
    """A 1-D convolution (kernel 3, padding 1) over exactly `n_in` frames as a matrix for each output frame, which holds
    the taps that fall on frames."""
    channels_in = weight.shape[1]
    products: list[_Product] = []
    for frame_out in range(n_out):
        at = frame_out * stride - 1
        taps = [tap for tap in range(3) if 0 <= at + tap < n_in]
        dense = np.concatenate([weight[:, :, tap].T for tap in taps])
        seen = slice((at + taps[0]) * channels_in, (at + taps[-1] + 1) * channels_in)
        products.append(_Product(seen, np.ascontiguousarray(dense), bias))
    return products


@lru_cache(maxsize=1)
def weights() -> Weights:
    return Weights()


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The library of numpy's matrix products. Found once, which takes a millisecond; to set its threads takes 10 µs."""
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def quiet_products() -> Iterator[None]:
    """What is below runs within this. One thread: on busy cores two take several times the computing, and more speed
    comes from more processes. And numpy's products may warn of invalid values that are not in their operands."""
    with _blas().limit(limits=1), np.errstate(all="ignore"):
        yield


class Encoder:
    """The part without memory, but for the 64 samples before each window. Its arrays are made once: to give megabytes
    back and ask for them again costs as much as the products."""

    def __init__(self, model: Weights) -> None:
        self._model = model
        self._before = np.zeros(_CONTEXT_SAMPLES, np.float32)
        n = _ENCODED_WINDOWS
        self._audio, self._mirrored = np.empty((2, n, WINDOW_SAMPLES + 2 * _CONTEXT_SAMPLES), np.float32)
        self._sums, self._differences = np.empty((2, n, _FRAMES, _HOP_SAMPLES), np.float32)
        self._real, self._imaginary = np.empty((2, n * _FRAMES, _BINS), np.float32)
        self._outputs = [
            np.empty((n, sum(len(product.bias) for product in layer)), np.float32) for layer in model.layers
        ]

    def forget(self) -> None:
        """What comes next follows on silence."""
        self._before[:] = 0

    def encode(self, windows: Floats) -> Floats:
        """(n, 512) -> (n, 128)."""
        encoded = np.empty((len(windows), WIDTH), np.float32)
        for start in range(0, len(windows), _ENCODED_WINDOWS):
            part = windows[start : start + _ENCODED_WINDOWS]
            encoded[start : start + len(part)] = self._convolved(self._magnitudes(part))
        return encoded

    def _magnitudes(self, windows: Floats) -> Floats:
        """Of the short-time Fourier transform: (n, 512) -> (n, 4 * 129). Each window is heard with the 64 samples
        before it, and mirrored at its end."""
        n = len(windows)
        audio, mirrored = self._audio[:n], self._mirrored[:n]
        audio[:, _CONTEXT_SAMPLES:-_CONTEXT_SAMPLES] = windows
        audio[0, :_CONTEXT_SAMPLES] = self._before
        audio[1:, :_CONTEXT_SAMPLES] = windows[:-1, -_CONTEXT_SAMPLES:]
        audio[:, -_CONTEXT_SAMPLES:] = windows[:, -_CONTEXT_SAMPLES - 1 : -1][:, ::-1]
        self._before[:] = windows[-1, -_CONTEXT_SAMPLES:]
        mirrored[:] = audio[:, ::-1]
        sums, differences = self._sums[:n], self._differences[:n]
        for frame in range(_FRAMES):
            start = frame * _HOP_SAMPLES
            near = audio[:, start + 1 : start + 1 + _HOP_SAMPLES]
            far_start = audio.shape[1] - start - _FRAME_SAMPLES
            far = mirrored[:, far_start : far_start + _HOP_SAMPLES]
            np.add(near, far, out=sums[:, frame])
            np.subtract(near, far, out=differences[:, frame])
        real, imaginary = self._real[: n * _FRAMES], self._imaginary[: n * _FRAMES]
        np.matmul(sums.reshape(-1, _HOP_SAMPLES), self._model.cosines, out=real)
        np.matmul(differences.reshape(-1, _HOP_SAMPLES), self._model.sines, out=imaginary)
        np.multiply(real, real, out=real)
        np.multiply(imaginary, imaginary, out=imaginary)
        np.add(real, imaginary, out=real)
        return np.sqrt(real, out=real).reshape(n, _FRAMES * _BINS)

    def _convolved(self, values: Floats) -> Floats:
        """(n, 516) -> (n, 128)."""
        for layer, whole in zip(self._model.layers, self._outputs, strict=True):
            outputs = whole[: len(values)]
            column = 0
            for product in layer:
                part = outputs[:, column : column + len(product.bias)]
                np.matmul(values[:, product.inputs], product.weight, out=part)
                part += product.bias
                column += len(product.bias)
            values = np.maximum(outputs, 0, out=outputs)
        return values


class Lstm:
    """The part with memory, in lanes side by side: each is a stream of its own."""

    def __init__(self, model: Weights, n_lanes: int) -> None:
        self._model = model
        self._state = np.zeros((n_lanes, 5 * WIDTH), np.float32)
        """Of each lane input, forget, output; candidate; cell. The cell is what is carried on."""
        self._hidden = np.zeros((n_lanes, WIDTH), np.float32)
        """Twice the published one."""
        self._gates, self._kept_and_new, self._squashed = (
            np.empty((n_lanes, width), np.float32) for width in (4 * WIDTH, 2 * WIDTH, WIDTH)
        )

    def forget(self, lanes: Sequence[int] | slice = slice(None)) -> None:
        """Begin anew in these lanes, or in all."""
        self._state[lanes, 4 * WIDTH :] = 0
        self._hidden[lanes] = 0

    def inputs(self, encoded: Floats) -> Floats:
        """What the gates see of encoded windows: (n, 128) -> (n, 512)."""
        inputs: Floats = encoded @ self._model.gates_from_input
        inputs += self._model.gates_bias
        return inputs

    def run(self, inputs: Floats) -> Floats:
        """(steps, lanes, 512) of `inputs` -> (steps, lanes, 128), the hidden states, doubled.

        Every line of the loop is a call. With one lane it runs 112,500 times an hour of audio, and what a call costs is
        most of it.
        """
        gates, both, squashed, state = self._gates, self._kept_and_new, self._squashed, self._state
        squashed_gates, sigmoids = state[:, : 4 * WIDTH], state[:, : 3 * WIDTH]
        kept_and_new, output = state[:, : 2 * WIDTH], state[:, 2 * WIDTH : 3 * WIDTH]
        candidate_and_cell, cell = state[:, 3 * WIDTH :], state[:, 4 * WIDTH :]
        new, kept = both[:, :WIDTH], both[:, WIDTH:]
        half, one, from_hidden = np.float32(0.5), np.float32(1), self._model.gates_from_hidden
        dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh
        hidden_states = np.empty((*inputs.shape[:2], WIDTH), np.float32)
        hidden = self._hidden
        for step_input, step_hidden in zip(inputs, hidden_states, strict=True):
            dot(hidden, from_hidden, gates)
            add(gates, step_input, gates)
            tanh(gates, squashed_gates)
            add(sigmoids, one, sigmoids)
            multiply(kept_and_new, candidate_and_cell, both)
            add(new, kept, cell)
            multiply(cell, half, cell)
            tanh(cell, squashed)
            multiply(output, squashed, step_hidden)
            hidden = step_hidden
        self._hidden = hidden.copy()
        return hidden_states

    def probabilities(self, hidden: Floats) -> Floats:
        """Of speech, by `run`'s result, which is changed: (..., 128) -> (...,)."""
        logits = np.maximum(hidden, 0, out=hidden) @ self._model.out_weight + self._model.out_bias
        probabilities: Floats = 1 / (1 + np.exp(-logits))
        return probabilities
