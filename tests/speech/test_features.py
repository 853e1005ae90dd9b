"""Features equal Microsoft's, alone and in a batch."""

from __future__ import annotations

import pytest
import torch

from speech.features import count_frames, log_mel
from tests import remote_tiny


def test_features_equal_the_recorded_ones_in_a_batch_of_unequal_clips() -> None:
    clips = [torch.from_numpy(clip) for clip in remote_tiny.clips()]
    n_frames = torch.tensor([count_frames(len(clip)) for clip in clips])
    features = log_mel(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), n_frames)
    expected = remote_tiny.expected()
    for k, n in enumerate(n_frames.tolist()):
        reference = expected[f"features{k}"]
        assert reference.shape == (n, 80)
        # the floor of the logarithm makes a few quiet bins coarse; transformers' own differ as much
        torch.testing.assert_close(features[k, :n], reference, atol=1e-2, rtol=0)
        assert (features[k, :n] - reference).abs().mean() < 2e-5
        assert not features[k, n:].any()


@pytest.mark.parametrize(
    ("n_samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)]
)
def test_only_whole_windows_count(n_samples: int, frames: int) -> None:
    assert count_frames(n_samples) == frames
