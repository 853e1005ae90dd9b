"""What only a CUDA device can show: the graph, flash attention, real lack of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from speech.checkpoint import open_checkpoint
from speech.engine import DecodeSettings, Phi4Engine
from speech.prompt import PromptIds
from tests.benchmarks.random_checkpoint import random_model, small_config
from tests.demo_speech import sentences
from tests.speech.test_generation import Digits

pytestmark = pytest.mark.gpu
DEMO = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture
def _small_device() -> Iterator[None]:
    """Only 3 GiB of the device may be used."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(3 * 2**30 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_device_writes_what_the_cpu_writes() -> None:
    clips = [sentence.clip for sentence in sentences()[:24]]
    texts = [
        [h.token_ids for h in Phi4Engine(*open_checkpoint(DEMO, device=d, dtype="float32")).transcribe(clips)]
        for d in ("cpu", "cuda")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_alone_and_together_are_the_same_to_the_bit(dtype: str) -> None:
    """With the step as a CUDA graph, slots refilled in flight, and another order."""
    engine = Phi4Engine(
        *open_checkpoint(DEMO, device="cuda", dtype=dtype), settings=DecodeSettings(max_slots=8)
    )
    assert engine.describe()["attention"] == "flash"
    clips = [sentence.clip for sentence in sentences()[:40]]
    alone = [engine.transcribe([clip])[0] for clip in clips]
    together = engine.transcribe(clips[::-1])[::-1]
    assert [h.token_ids for h in together] == [h.token_ids for h in alone]
    assert [h.token_logprobs for h in together] == [h.token_logprobs for h in alone]


def test_the_graph_and_flash_attention_compute_what_plain_attention_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = random_model(small_config(), "cuda", torch.bfloat16, seed=1)
    prompt = PromptIds((7, 8), (9, 10, 11))
    monkeypatch.setattr("speech.engine.flags_for", lambda *_, **__: ())
    monkeypatch.setattr("speech.prompting.token_limit", lambda _: 2)
    clips = [np.random.default_rng(k).normal(0, 0.1, 16_000 * (2 + k)).astype(np.float32) for k in range(6)]
    flash = Phi4Engine(model, Digits(), prompt=prompt).transcribe(clips)
    monkeypatch.setattr("speech.flash.has_flash", lambda *_: False)
    plain = Phi4Engine(model, Digits(), prompt=prompt).transcribe(clips)
    for a, b in zip(flash, plain, strict=True):
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=0.05)


@pytest.mark.usefixtures("_small_device")
def test_the_slots_fit_a_small_device() -> None:
    model = random_model(small_config(), "cuda", torch.bfloat16, seed=1)
    engine = Phi4Engine(
        model, Digits(), prompt=PromptIds((7, 8), (9, 10, 11)), settings=DecodeSettings(max_slots=4_096)
    )
    assert 1 <= engine.n_slots < 4_096


@pytest.mark.usefixtures("_small_device")
def test_memory_that_others_take_later_halves_the_slots() -> None:
    model = random_model(small_config(), "cuda", torch.bfloat16, seed=1)
    engine = Phi4Engine(
        model, Digits(), prompt=PromptIds((7, 8), (9, 10, 11)), settings=DecodeSettings(max_slots=4_096)
    )
    before = engine.n_slots
    hog = torch.empty(int(0.15 * 2**30), dtype=torch.uint8, device="cuda")
    clips = [
        np.random.default_rng(k).normal(0, 0.1, 16_000 * 4).astype(np.float32) for k in range(2 * before)
    ]
    assert len(engine.transcribe(clips)) == len(clips)
    assert engine.n_slots <= before
    del hog
