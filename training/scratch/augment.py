"""What is done to an item's audio each time it is seen, so that no clip is ever heard twice.

On the samples: level, noise, other voices. On the features: tempo, the width of the mouth (mel axis stretched), the
colour of microphone and line (a smooth curve added to the bands), bands and moments left out (SpecAugment, Park et
al. 2019, arXiv:1904.08779). All from one generator, so that a step's batch is a function of its number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from speech.features import N_MELS

Samples = npt.NDArray[np.float32]

LEVEL_DB = (-14.0, 4.0)
NOISE_SHARE, BABBLE_SHARE = 0.15, 0.04
SNR_DB = (8.0, 30.0)
NOISE_BLOCK = 65_536
"""Samples of noise before it comes again: 4 s."""
STRETCH = (0.9, 1.12)
WARP = (0.9, 1.1)
COLOUR = 0.8
"""Spread of the curve added to the bands, in natural logarithms: 1 is 4.3 dB."""
BAND_MASKS, BAND_MASK_WIDTH = 2, 7
MASKED_S, MASK_FRAMES = 2.5, 10
"""One moment left out for so many seconds, of so many frames at most."""


def augment_samples(samples: Samples, babble: Samples | None, rng: np.random.Generator) -> Samples:
    """Level, and at times noise or other voices, below the speech by 8 to 30 dB.

    Args:
        samples: float32 in -1..1.
        babble: of the same length, or None.
    """
    power = float(np.mean(np.square(samples))) + 1e-10
    if rng.random() < NOISE_SHARE and power > 1e-8:
        samples = samples + _at_snr(_noise(len(samples), rng), power, rng)
    if babble is not None and power > 1e-8:
        samples = samples + _at_snr(babble, power, rng)
    gain = 10 ** (rng.uniform(*LEVEL_DB) / 20)
    loud: Samples = np.clip(samples * np.float32(gain), -1.0, 1.0).astype(np.float32)
    return loud


def _at_snr(noise: Samples, power: float, rng: np.random.Generator) -> Samples:
    wanted = power / 10 ** (rng.uniform(*SNR_DB) / 10)
    scale = np.sqrt(wanted / (float(np.mean(np.square(noise))) + 1e-10))
    return (noise * np.float32(scale)).astype(np.float32)


def _noise(n_samples: int, rng: np.random.Generator) -> Samples:
    """Noise whose spectrum falls by 0 to 9 dB an octave."""
    # one block over and over, of a length that the transform is fast for
    block = NOISE_BLOCK
    spectrum = rng.standard_normal((2, block // 2 + 1))
    falling = np.maximum(np.arange(block // 2 + 1), 20.0) ** (-rng.uniform(0.0, 1.5))
    coloured = np.fft.irfft((spectrum[0] + 1j * spectrum[1]) * falling, n=block).astype(np.float32)
    return np.resize(np.roll(coloured, int(rng.integers(block))), n_samples)


def augment_features(
    features: torch.Tensor, mean: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Tempo, mel warp, colour and masks.

    Args:
        features: [frames, 80], log-mel.
        mean: [80], what masked places are filled with.

    Returns:
        The features, and how much longer they became.
    """
    stretch = rng.uniform(*STRETCH)
    n_frames = max(8, round(len(features) * stretch))
    features = _resample(features, torch.linspace(0, len(features) - 1, n_frames))
    warp = rng.uniform(*WARP)
    bands = (torch.arange(N_MELS) * warp).clamp(max=N_MELS - 1)
    features = _resample(features.T, bands).T
    knots = torch.from_numpy(rng.normal(0.0, COLOUR, 6).astype(np.float32))
    curve = _resample(knots[:, None], torch.linspace(0, len(knots) - 1, N_MELS))[:, 0]
    # features are logarithms of at least 1: silence stays silence
    features = torch.where(features > 0, features + curve, features).clamp(min=0.0)
    for _ in range(BAND_MASKS):
        width = int(rng.integers(0, BAND_MASK_WIDTH + 1))
        first = int(rng.integers(0, N_MELS - width))
        features[:, first : first + width] = mean[first : first + width]
    for _ in range(int(n_frames / 100 / MASKED_S)):
        width = int(rng.integers(0, MASK_FRAMES + 1))
        first = int(rng.integers(0, max(1, n_frames - width)))
        features[first : first + width] = mean
    return features, n_frames / max(1, round(n_frames / stretch))


def _resample(rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Rows of `rows` [n, ...] at the places `at`, between neighbours in proportion."""
    low = at.floor().long().clamp(0, len(rows) - 1)
    high = (low + 1).clamp(max=len(rows) - 1)
    share = (at - low)[:, None]
    return rows[low] * (1 - share) + rows[high] * share
