"""Make `speech/silero_vad_16k.npz`: the weights of silero VAD for 16 kHz, out of the script in its package.

    python -m speech.make_vad_weights

With them, media workers need no torch (docs/decisions/0030). Needs the extra `dev` (silero-vad, torch). The package's
own `.safetensors` file holds other weights than its script and is not used.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.silero import WEIGHTS_FILE


def package_script() -> Any:
    """The published model as it is in the package, without importing the package: that changes torch's threads.

    Raises ModuleNotFoundError where silero-vad is not installed.
    """
    import torch

    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("silero-vad is not installed; install the dev extra")
    path = Path(spec.origin).parent / "data" / "silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load, the only way into this file
        return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]


def package_weights() -> dict[str, npt.NDArray[np.float32]]:
    """The script's arrays for 16 kHz by its own names, but the Fourier transform's, which is computed."""
    state: dict[str, Any] = package_script()._model.state_dict()  # noqa: SLF001
    return {name: value.numpy().copy() for name, value in state.items() if not name.startswith("stft.")}


if __name__ == "__main__":
    np.savez(WEIGHTS_FILE, allow_pickle=False, **package_weights())
