"""Our restatement of the VAD equals the published script, streams, and leaves the process as it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from speech.make_vad_weights import package_script, package_weights
from speech.vad import WEIGHTS_FILE, WINDOW_SAMPLES, SpeechDetector
from tests.speech.media_files import Floats, demo_sentence


def probabilities(samples: Floats, portion: int = 10**9) -> Floats:
    detector = SpeechDetector()
    parts = [detector.feed(samples[at : at + portion]) for at in range(0, len(samples), portion)]
    return np.concatenate([*parts, detector.finish()])


@pytest.fixture(scope="module")
def speech() -> Floats:
    pause = np.zeros(6000, np.float32)
    return np.concatenate([part for number in (0, 3, 27, 41) for part in (demo_sentence(number), pause)])


def test_equals_the_published_script(speech: Floats) -> None:
    script = package_script()
    padded = torch.from_numpy(np.pad(speech, (0, -len(speech) % WINDOW_SAMPLES)))
    with torch.inference_mode():
        wanted = [float(script(window[None], 16000)) for window in padded.split(WINDOW_SAMPLES)]
    np.testing.assert_allclose(probabilities(speech), wanted, atol=2e-4)


def test_the_weights_are_those_of_the_package() -> None:
    wanted = package_weights()
    with np.load(WEIGHTS_FILE, allow_pickle=False) as kept:
        assert set(kept.files) == set(wanted)
        for name, values in wanted.items():
            np.testing.assert_array_equal(kept[name], values)


def test_portions_do_not_matter(speech: Floats) -> None:
    np.testing.assert_array_equal(probabilities(speech), probabilities(speech, 4321))


def test_silence_is_zero_and_nothing_global_changes() -> None:
    threads = [pool["num_threads"] for pool in threadpool_info()]
    assert not probabilities(np.zeros(16000 * 40, np.float32)).any()
    probabilities(demo_sentence(0))
    assert [pool["num_threads"] for pool in threadpool_info()] == threads


SPLIT_WITHOUT_TORCH = """
import sys
from speech.split import split_media
found = split_media(sys.argv[1], name="fita")
assert found.segments
import workers.split, workers.sweep, workers.index  # what a media worker does
heavy = {"torch", "transformers", "scipy", "silero_vad", "safetensors", "matplotlib"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_a_media_worker_needs_no_torch() -> None:
    clip = next((Path(__file__).parents[1] / "data" / "demo-speech").glob("*.flac"))
    run = subprocess.run(
        [sys.executable, "-c", SPLIT_WITHOUT_TORCH, str(clip)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
