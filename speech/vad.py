"""Speech probability per 32 ms window with the weights of silero VAD 6.2, one unbroken stream at 15x its own speed.

The published model is a script that runs one window at a time (45 seconds of audio per second of one core). Most
of it has no memory: only the LSTM does. So here the memoryless part runs over many windows at once, as an FFT and
four matrix products, and the LSTM runs as one stream whose state is carried from block to block. The result is
the script's own to within 1e-4, for any length.

Rejected: lanes (pieces of the recording side by side, each with a warm-up before it). They are faster still, but
the LSTM remembers for longer than any affordable warm-up: with 1.5 s the probabilities were off by up to 0.5 next
to the joints, with 10 s by 0.34. The `.safetensors` file in the package holds other weights than the script and is
not used.
"""

import importlib.util
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

WINDOW_SAMPLES = 512
"""One probability per this many 16 kHz samples (32 ms)."""
_CONTEXT_SAMPLES = 64
_FFT_SAMPLES = 256
_HOP_SAMPLES = 128
_WIDTH = 128
_CHUNK_WINDOWS = 512
"""Computed at once (16 s, about 5 MB). Always the same, so that rounding does not depend on the caller's blocks."""


class _Weights:
    """The model's arrays, read from the package's own file without importing the package (its import changes
    torch's thread count for the whole process)."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("silero_vad")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("silero-vad is not installed; install the worker extra")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load, the only way into this file
            script = torch.jit.load(
                str(Path(spec.origin).parent / "data" / "silero_vad.jit"), map_location="cpu"
            )  # type: ignore[no-untyped-call]
        state = {key: value.clone() for key, value in script._model.state_dict().items()}  # noqa: SLF001
        self.window = torch.hann_window(_FFT_SAMPLES)
        sizes = ((4, 1), (4, 2), (2, 2), (1, 1))
        self.layers = [
            _as_matrix(
                state[f"encoder.{index}.reparam_conv.weight"],
                state[f"encoder.{index}.reparam_conv.bias"],
                n_in=n_in,
                stride=stride,
            )
            for index, (n_in, stride) in enumerate(sizes)
        ]
        self.lstm = torch.nn.LSTM(_WIDTH, _WIDTH)
        with torch.no_grad():
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(self.lstm, f"{kind}_l0").copy_(state[f"decoder.rnn.{kind}"])
        self.out_weight = state["decoder.decoder.2.weight"].reshape(_WIDTH)
        self.out_bias = state["decoder.decoder.2.bias"]


def _as_matrix(weight: Tensor, bias: Tensor, *, n_in: int, stride: int) -> tuple[Tensor, Tensor]:
    """A 1-D convolution (kernel 3, padding 1) over exactly `n_in` frames as one dense matrix.

    Returns (n_in * channels_in, n_out * channels_out) and its bias. On 1-4 frames the zeros cost less than a
    convolution's set-up.
    """
    channels_out, channels_in, _ = weight.shape
    n_out = (n_in - 1) // stride + 1
    dense = torch.zeros(n_in, channels_in, n_out, channels_out)
    for frame_out in range(n_out):
        for tap in range(3):
            frame_in = frame_out * stride + tap - 1
            if 0 <= frame_in < n_in:
                dense[frame_in, :, frame_out, :] = weight[:, :, tap].T
    return dense.reshape(n_in * channels_in, n_out * channels_out).contiguous(), bias.repeat(n_out)


@lru_cache(maxsize=1)
def _weights() -> _Weights:
    return _Weights()


class SpeechDetector:
    """Feed audio in any portions, then `finish`; the probabilities come out in order, one per 512 samples.

    Memory does not grow with the recording. Deterministic, whatever the portions. Digital silence is not computed:
    its chunk gets probability 0 and the state starts anew after it, which is what makes a day of it cheap.
    """

    def __init__(self) -> None:
        self._model = _weights()
        self._held: list[npt.NDArray[np.float32]] = []
        self._n_held = 0
        self._context = torch.zeros(_CONTEXT_SAMPLES)
        self._state: tuple[Tensor, Tensor] | None = None

    def feed(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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

    def finish(self) -> npt.NDArray[np.float32]:
        """The probabilities of the rest; its last window is filled up with zeros."""
        if not self._n_held:
            return np.empty(0, np.float32)
        rest = np.concatenate(self._held)
        self._held, self._n_held = [], 0
        return self._probabilities(np.pad(rest, (0, -len(rest) % WINDOW_SAMPLES)))

    @torch.inference_mode()
    def _probabilities(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Whole windows only: (n * 512,) -> (n,)."""
        if not samples.any():
            self._context, self._state = torch.zeros(_CONTEXT_SAMPLES), None
            return np.zeros(len(samples) // WINDOW_SAMPLES, np.float32)
        model = self._model
        audio = torch.cat([self._context, torch.from_numpy(np.ascontiguousarray(samples))])
        self._context = audio[-_CONTEXT_SAMPLES:].clone()
        windows = audio.unfold(0, _CONTEXT_SAMPLES + WINDOW_SAMPLES, WINDOW_SAMPLES)
        mirrored = windows[:, -_CONTEXT_SAMPLES - 1 : -1].flip(1)
        frames = torch.cat([windows, mirrored], dim=1).unfold(1, _FFT_SAMPLES, _HOP_SAMPLES)
        hidden = torch.fft.rfft(frames * model.window).abs().reshape(len(windows), -1)
        for weight, bias in model.layers:
            hidden = torch.addmm(bias, hidden, weight).relu_()
        outputs, self._state = model.lstm(hidden.unsqueeze(1), self._state)
        logits = outputs[:, 0].relu() @ model.out_weight + model.out_bias
        return torch.sigmoid(logits).numpy()
