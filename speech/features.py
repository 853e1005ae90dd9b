"""Log-mel features as Phi-4-multimodal was trained on them, computed in batch on the model's device.

The reference is Microsoft's `processing_phi4mm.py` (numpy): frames of 25 ms every 10 ms without centring,
pre-emphasis 0.97 inside each frame, Hamming window, 512-point power spectrum of samples scaled to 16 bits,
80 Kaldi mel bands, logarithm of at least 1. `tests/speech/test_features.py` compares with its recorded output.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
FFT_SIZE = 512
N_MELS = 80
PREEMPHASIS = 0.97
INT16_SCALE = 32_768.0
MEL_HIGH_HZ = 7_690.0
FRAMES_PER_AUDIO_TOKEN = 8
"""The encoder's convolutions keep one of 8 frames: 12.5 audio tokens a second."""


def count_frames(n_samples: int) -> int:
    """Feature frames of a clip of `n_samples`: only whole windows count."""
    return max(0, (n_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1)


def count_audio_tokens(n_frames: int) -> int:
    """Audio tokens that stand for `n_frames` in the prompt."""
    return -(-n_frames // FRAMES_PER_AUDIO_TOKEN)


@lru_cache(maxsize=4)
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Window [400] and mel filters [257, 80], float32."""
    window = torch.hamming_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float32, device=device)
    filters = mel_filter_bank(
        num_frequency_bins=FFT_SIZE // 2 + 1,
        num_mel_filters=N_MELS,
        min_frequency=0.0,
        max_frequency=MEL_HIGH_HZ,
        sampling_rate=SAMPLE_RATE_HZ,
        triangularize_in_mel_space=True,
        mel_scale="kaldi",
    )
    return window, torch.from_numpy(filters).to(device, torch.float32)


def log_mel(waveforms: torch.Tensor, n_frames: torch.Tensor) -> torch.Tensor:
    """Features of a batch of padded clips.

    Args:
        waveforms: [batch, samples], float32 in -1..1, zeros after each clip's end.
        n_frames: [batch], frames of each clip (`count_frames`).

    Returns:
        [batch, count_frames(samples), 80], float32, zeros after each clip's last frame.
    """
    window, filters = _constants(waveforms.device)
    frames = waveforms.unfold(-1, WINDOW_SAMPLES, HOP_SAMPLES)
    # within a frame the first sample is its own predecessor
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    emphasised = (frames - PREEMPHASIS * previous) * INT16_SCALE
    spectrum = torch.fft.rfft(emphasised * window, n=FFT_SIZE)
    power = spectrum.real.square() + spectrum.imag.square()
    features: torch.Tensor = (power @ filters).clamp(min=1.0).log()
    inside = torch.arange(features.shape[1], device=features.device) < n_frames[:, None]
    return features * inside[..., None]
