"""Speech probability per 32 ms window with the weights of silero VAD 6.2, one unbroken stream, in numpy.

The published model is a script that runs one window at a time (45 seconds of audio per second of one core) and wants
torch. Most of it has no memory: only the LSTM does. So here the memoryless part runs over many windows at once, as
matrix products, and the LSTM as one stream whose state is carried from block to block, in nine calls of numpy a
window. The result is the script's own to within 1e-4, for any length (unless it `forgets`).

Three things make the products small. A windowed frame's Fourier transform sees sums and differences of the samples
on both sides of the frame's middle, so two products of half the size give real and imaginary parts. A convolution over
four frames is a product per output frame with the input frames that it sees. And a sigmoid is a tanh of half the
argument: the halves are in the weights, so that one call of tanh serves all four gates.

Rejected: lanes (pieces of the recording side by side, each with a warm-up before it). They are faster still, but
the LSTM remembers for longer than any affordable warm-up: with 1.5 s the probabilities were off by up to 0.5 next
to the joints, with 10 s by 0.34.
"""

from __future__ import annotations

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
_WIDTH = 128
_CHUNK_WINDOWS = 192
"""Taken at once (6 s). Always the same, so that rounding does not depend on the caller's blocks."""
_NOTHING_SAID = 0.02
"""A chunk in which no window reaches this probability holds nothing like speech."""
_ENCODED_WINDOWS = 64
"""Of a chunk, encoded at once: what is between two products (1 MB) stays in a core's cache."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Product:
    """The output frames of one convolution that see the same input frames, as one matrix."""

    inputs: slice
    """Columns of the layer's input."""
    weight: Floats
    bias: Floats


class _Weights:
    """The model's arrays in the shapes that the passes below multiply with."""

    def __init__(self) -> None:
        with np.load(WEIGHTS_FILE, allow_pickle=False) as arrays:
            state: dict[str, Floats] = {name: arrays[name] for name in arrays.files}
        self.cosines, self.sines = _fourier()
        # frames that each layer takes, stride, and how its output frames are grouped
        shapes = ((4, 1, ((0, 1), (2, 3))), (4, 2, ((0,), (1,))), (2, 2, ((0,),)), (1, 1, ((0,),)))
        self.layers = [
            _as_products(
                state[f"encoder.{number}.reparam_conv.weight"],
                state[f"encoder.{number}.reparam_conv.bias"],
                n_in=n_in,
                stride=stride,
                groups=groups,
            )
            for number, (n_in, stride, groups) in enumerate(shapes)
        ]
        # input, forget, output, cell: the first three are sigmoids of their argument, so tanh of half of it
        order = np.concatenate([np.arange(start, start + _WIDTH) for start in (0, 128, 384, 256)])
        scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), _WIDTH)
        bias = state["decoder.rnn.bias_ih"] + state["decoder.rnn.bias_hh"]
        self.gates_from_input = np.ascontiguousarray(
            (state["decoder.rnn.weight_ih"][order] * scale[:, None]).T
        )
        self.gates_bias = bias[order] * scale
        # the stream below carries twice the published hidden state
        self.gates_from_hidden = np.ascontiguousarray(
            (state["decoder.rnn.weight_hh"][order] * scale[:, None] * np.float32(0.5)).T
        )
        self.out_weight = state["decoder.decoder.2.weight"].reshape(_WIDTH) * np.float32(0.5)
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


def _as_products(
    weight: Floats, bias: Floats, *, n_in: int, stride: int, groups: tuple[tuple[int, ...], ...]
) -> list[_Product]:
    """A 1-D convolution (kernel 3, padding 1) over exactly `n_in` frames as dense matrices, one for each group of
    output frames. On 1 to 4 frames the few zeros cost less than a convolution's set-up."""
    channels_out, channels_in, _ = weight.shape
    products: list[_Product] = []
    for group in groups:
        first = max(0, group[0] * stride - 1)
        last = min(n_in, group[-1] * stride + 2)
        dense = np.zeros((last - first, channels_in, len(group), channels_out), np.float32)
        for place, frame_out in enumerate(group):
            for tap in range(3):
                frame_in = frame_out * stride + tap - 1
                if 0 <= frame_in < n_in:
                    dense[frame_in - first, :, place, :] = weight[:, :, tap].T
        products.append(
            _Product(
                slice(first * channels_in, last * channels_in),
                np.ascontiguousarray(dense.reshape((last - first) * channels_in, len(group) * channels_out)),
                np.tile(bias, len(group)),
            )
        )
    return products


@lru_cache(maxsize=1)
def _weights() -> _Weights:
    return _Weights()


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The library of numpy's matrix products. Found once, which takes a millisecond; to set its threads takes 10 µs."""
    return ThreadpoolController().select(user_api="blas")


class _Encoder:
    """The part without memory, but for the 64 samples before each window. Its arrays are made once: to give megabytes
    back and ask for them again costs as much as the products."""

    def __init__(self, model: _Weights) -> None:
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
        encoded = np.empty((len(windows), _WIDTH), np.float32)
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


class SpeechDetector:
    """Feed audio in any portions, then `finish`; the probabilities come out in order, one per 512 samples.

    Memory does not grow with the recording. Deterministic, whatever the portions. Digital silence is not computed:
    its chunk gets probability 0 and the state starts anew after it, which is what makes a day of it cheap.

    With `forgets`, the state starts anew after any chunk in which nothing like speech was. The network remembers for
    long: after noise or music it takes faint speech for more of the same, for whole sentences, which it hears at once
    when it begins there.
    """

    def __init__(self, *, forgets: bool = False) -> None:
        self._forgets = forgets
        self._model = _weights()
        self._encoder = _Encoder(self._model)
        self._held: list[Floats] = []
        self._n_held = 0
        self._hidden, self._cell = np.zeros((2, _WIDTH), np.float32)

    def feed(self, samples: Floats) -> Floats:
        """Take 16 kHz mono samples, shape (n,); return the probabilities that are ready, shape (n_windows,)."""
        self._held.append(samples)
        self._n_held += len(samples)
        chunk_samples = _CHUNK_WINDOWS * WINDOW_SAMPLES
        if self._n_held < chunk_samples:
            return np.empty(0, np.float32)
        joined = np.concatenate(self._held)
        n_ready = self._n_held - self._n_held % chunk_samples
        self._held, self._n_held = [joined[n_ready:]], self._n_held - n_ready
        return np.concatenate(
            [self._probabilities(joined[at : at + chunk_samples]) for at in range(0, n_ready, chunk_samples)]
        )

    def finish(self) -> Floats:
        """The probabilities of the rest; its last window is filled up with zeros."""
        if not self._n_held:
            return np.empty(0, np.float32)
        rest = np.concatenate(self._held)
        self._held, self._n_held = [], 0
        return self._probabilities(np.pad(rest, (0, -len(rest) % WINDOW_SAMPLES)))

    def _probabilities(self, samples: Floats) -> Floats:
        """Whole windows only: (n * 512,) -> (n,)."""
        windows = samples.reshape(-1, WINDOW_SAMPLES)
        if not samples.any():
            self._encoder.forget()
            self._hidden, self._cell = np.zeros((2, _WIDTH), np.float32)
            return np.zeros(len(windows), np.float32)
        # One thread: on busy cores two take several times the computing, and more speed comes from more processes. And
        # numpy's products may warn of invalid values that are not in their operands.
        with _blas().limit(limits=1), np.errstate(all="ignore"):
            hidden = self._stream(self._encoder.encode(windows))
            logits = np.maximum(hidden, 0, out=hidden) @ self._model.out_weight + self._model.out_bias
            probabilities: Floats = 1 / (1 + np.exp(-logits))
        if self._forgets and probabilities.max() < _NOTHING_SAID:
            self._hidden, self._cell = np.zeros((2, _WIDTH), np.float32)
        return probabilities

    def _stream(self, values: Floats) -> Floats:
        """The LSTM's hidden states, doubled: (n, 128) -> (n, 128). Every line is a call: this runs 112,500 times an
        hour of audio, and what a call costs is half of it."""
        model = self._model
        inputs = values @ model.gates_from_input
        inputs += model.gates_bias
        hidden_states = np.empty((len(values), _WIDTH), np.float32)
        state = np.empty(5 * _WIDTH, np.float32)  # input, forget, output; candidate; cell
        gates, sigmoids = state[: 4 * _WIDTH], state[: 3 * _WIDTH]
        kept_and_new, output = state[: 2 * _WIDTH], state[2 * _WIDTH : 3 * _WIDTH]
        candidate_and_cell, cell = state[3 * _WIDTH :], state[4 * _WIDTH :]
        both = np.empty(2 * _WIDTH, np.float32)
        new, kept = both[:_WIDTH], both[_WIDTH:]
        squashed = np.empty(_WIDTH, np.float32)
        half, one, from_hidden = np.float32(0.5), np.float32(1), model.gates_from_hidden
        dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh
        cell[:] = self._cell
        hidden = self._hidden
        for step_input, step_hidden in zip(inputs, hidden_states, strict=True):
            dot(hidden, from_hidden, gates)
            add(gates, step_input, gates)
            tanh(gates, gates)
            add(sigmoids, one, sigmoids)
            multiply(kept_and_new, candidate_and_cell, both)
            add(new, kept, cell)
            multiply(cell, half, cell)
            tanh(cell, squashed)
            multiply(output, squashed, step_hidden)
            hidden = step_hidden
        self._hidden, self._cell = hidden.copy(), cell.copy()
        return hidden_states
