"""Our restatement of the VAD equals the published script, streams, and leaves the process as it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from speech.make_vad_weights import package_script, package_weights
from speech.silero import WEIGHTS_FILE, WINDOW_SAMPLES
from speech.vad import CHUNK_WINDOWS, RUN_UP_WINDOWS, RecordingDetector, SpeechDetector
from tests.speech.media_files import Floats, demo_sentence

Detector = type[SpeechDetector] | type[RecordingDetector]
CHUNK_SAMPLES = CHUNK_WINDOWS * WINDOW_SAMPLES


def probabilities(samples: Floats, portion: int = 10**9, kind: Detector = SpeechDetector) -> Floats:
    detector = kind()
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


@pytest.fixture(scope="module")
def long_speech() -> Floats:
    """Two rounds of lanes and a part of a third, with a minute of digital silence in it."""
    said = np.concatenate([demo_sentence(number) for number in range(18)])
    return np.concatenate([said, np.zeros(60 * 16_000, np.float32), said[: 20 * 16_000]])


@pytest.mark.parametrize("kind", [SpeechDetector, RecordingDetector])
def test_portions_do_not_matter(long_speech: Floats, kind: Detector) -> None:
    wanted = probabilities(long_speech, kind=kind)
    assert len(wanted) == -(-len(long_speech) // WINDOW_SAMPLES)
    for portion in (4321, 64_000, 17 * CHUNK_SAMPLES):
        np.testing.assert_array_equal(probabilities(long_speech, portion, kind), wanted)


def test_each_chunk_of_a_recording_is_a_stream_that_began_a_little_before(long_speech: Floats) -> None:
    found = probabilities(long_speech, kind=RecordingDetector)
    wanted = []
    for start in range(0, len(long_speech), CHUNK_SAMPLES):
        run_up = min(start, RUN_UP_WINDOWS * WINDOW_SAMPLES)
        if not long_speech[start - CHUNK_SAMPLES : start].any():
            run_up = 0
        alone = probabilities(long_speech[start - run_up : start + CHUNK_SAMPLES])
        wanted.append(alone[run_up // WINDOW_SAMPLES :])
    # the first window of a run-up has heard the 4 ms before it there, and nothing here, which few windows tell;
    # one window more or less of run-up moves a hundredth of them by 0.06, none at all by 0.4
    assert np.quantile(np.abs(found - np.concatenate(wanted)), 0.99) < 0.025


@pytest.mark.parametrize("kind", [SpeechDetector, RecordingDetector])
def test_silence_is_zero_and_nothing_global_changes(kind: Detector) -> None:
    threads = [pool["num_threads"] for pool in threadpool_info()]
    assert not probabilities(np.zeros(16000 * 60, np.float32), kind=kind).any()
    probabilities(demo_sentence(0), kind=kind)
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
