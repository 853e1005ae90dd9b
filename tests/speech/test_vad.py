"""Our restatement of the VAD equals the published script, streams, and leaves the process as it was."""

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from speech.vad import WINDOW_SAMPLES, SpeechDetector
from tests.speech.media_files import Floats, demo_sentence, one_torch_thread


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


def probabilities(samples: Floats, portion: int = 10**9) -> Floats:
    detector = SpeechDetector()
    parts = [detector.feed(samples[at : at + portion]) for at in range(0, len(samples), portion)]
    return np.concatenate([*parts, detector.finish()])


@pytest.fixture(scope="module")
def speech() -> Floats:
    pause = np.zeros(6000, np.float32)
    return np.concatenate([part for number in (0, 3, 27, 41) for part in (demo_sentence(number), pause)])


def test_equals_the_published_script(speech: Floats) -> None:
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load(str(Path(spec.origin).parent / "data" / "silero_vad.jit"))
    padded = torch.from_numpy(np.pad(speech, (0, -len(speech) % WINDOW_SAMPLES)))
    with torch.inference_mode():
        wanted = [float(script(window[None], 16000)) for window in padded.split(WINDOW_SAMPLES)]
    np.testing.assert_allclose(probabilities(speech), wanted, atol=1e-3)


def test_portions_do_not_matter(speech: Floats) -> None:
    np.testing.assert_array_equal(probabilities(speech), probabilities(speech, 4321))


def test_silence_is_zero_and_nothing_global_changes() -> None:
    threads = torch.get_num_threads()
    assert not probabilities(np.zeros(16000 * 40, np.float32)).any()
    assert torch.get_num_threads() == threads
