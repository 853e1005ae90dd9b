"""In-flight generation: what a clip is written with, before or after changes nothing; nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.checkpoint import open_checkpoint
from speech.decoder import Decoder
from speech.engine import ClipError, DecodeSettings, Hypothesis, Phi4Engine, ScoresNotFinite, StreamOpen
from speech.prompt import PromptIds
from speech.prompting import Prompter
from speech.sizing import available_host_bytes
from tests import remote_tiny
from tests.benchmarks.random_checkpoint import random_model, tiny_config

AUDIO_ID = 200_011
N_CLIPS = 10


class Digits:
    """A tokenizer for random weights."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        raise NotImplementedError

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, token_ids))


def tiny(seed: int, **settings: Any) -> Phi4Engine:
    model = random_model(tiny_config(), "cpu", torch.float32, seed)
    prompt = PromptIds((7, 8), (9, 10, 11))
    return Phi4Engine(model, Digits(), prompt=prompt, settings=DecodeSettings(**settings))


@pytest.fixture(autouse=True)
def _no_guards_and_short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights write on and on; one try of a few tokens is enough."""
    monkeypatch.setattr("speech.engine.flags_for", lambda *_, **__: ())
    monkeypatch.setattr("speech.prompting.token_limit", lambda duration_s: 4 + int(duration_s * 6))


def noise(number: int) -> np.ndarray:
    """0.1 to 6 s."""
    rng = np.random.default_rng(number)
    return rng.normal(0, 0.1, int(rng.uniform(0.1, 6.0) * 16_000)).astype(np.float32)


@pytest.mark.parametrize("fixed_shapes", [False, True])
@pytest.mark.parametrize("slots", [1, 3])
def test_microsofts_greedy_tokens_alone_and_in_every_batch(
    tmp_path: Path, slots: int, fixed_shapes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.prompting.token_limit", lambda _: 12)
    model, _ = open_checkpoint(remote_tiny.write_checkpoint(tmp_path / "remote"))
    expected, clips = remote_tiny.expected(), remote_tiny.clips()
    ids = expected["input_ids3"].tolist()
    first = ids.index(AUDIO_ID)
    prompt = PromptIds(tuple(ids[:first]), tuple(ids[first + ids.count(AUDIO_ID) :]))
    engine = Phi4Engine(
        model,
        Digits(),
        prompt=prompt,
        settings=DecodeSettings(max_slots=slots, fixed_shapes=fixed_shapes, max_encoder_frames=2_000),
    )
    batches = [batch for n in range(1, 5) for batch in combinations(range(4), n)]
    for batch in [*batches, (3, 2, 1, 0), (2, 0, 2)]:
        for k, hypothesis in zip(batch, engine.transcribe([clips[k] for k in batch]), strict=True):
            # ids that are equal modulo the palette have equal logits
            tokens = [token % remote_tiny.PALETTE_ROWS for token in hypothesis.token_ids]
            assert tokens == (expected[f"greedy{k}"] % remote_tiny.PALETTE_ROWS).tolist()[: len(tokens)]
            assert len(tokens) == 12


@torch.inference_mode()
def test_microsofts_logits_from_the_slots(tmp_path: Path) -> None:
    model, _ = open_checkpoint(remote_tiny.write_checkpoint(tmp_path / "remote"))
    expected, clips = remote_tiny.expected(), remote_tiny.clips()
    ids = expected["input_ids3"].tolist()
    first = ids.index(AUDIO_ID)
    prompt = PromptIds(tuple(ids[:first]), tuple(ids[first + ids.count(AUDIO_ID) :]))
    prompts = Prompter(model, prompt, max_frames=4_000, fixed_shapes=False).embed(clips)
    decoder = Decoder(model, n_slots=4, capacity=300)
    scores = decoder.prefill(prompts, [2, 0, 3, 1])
    for k in range(4):
        logits = scores[k, : remote_tiny.PALETTE_ROWS]
        torch.testing.assert_close(logits, expected[f"logits{k}"], atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 3),
    chosen=st.lists(st.integers(0, N_CLIPS - 1), min_size=2, max_size=12),
    slots=st.integers(1, 6),
    window=st.integers(1, 12),
    frames=st.sampled_from([600, 1_500, 6_000]),
)
def test_random_models_write_the_same_whatever_the_company(
    seed: int, chosen: list[int], slots: int, window: int, frames: int
) -> None:
    lone = tiny(seed, max_slots=1)
    crowded = tiny(seed, max_slots=slots, max_encoder_frames=frames)
    found = dict(crowded.stream(((n, noise(k)) for n, k in enumerate(chosen)), window=window))
    assert sorted(found) == list(range(len(chosen)))
    for n, k in enumerate(chosen):
        assert _tokens(found[n]) == lone.transcribe([noise(k)])[0].token_ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=8, deadline=None)
@given(chosen=st.lists(st.integers(0, N_CLIPS - 1), min_size=2, max_size=12), window=st.integers(1, 12))
def test_with_fixed_shapes_not_one_bit_depends_on_the_company(
    dtype: torch.dtype, chosen: list[int], window: int
) -> None:
    """In 16 bits too, where near-equal scores are many and any other rounding would change words."""
    model = random_model(tiny_config(), "cpu", dtype, seed=5)
    engine = Phi4Engine(
        model,
        Digits(),
        prompt=PromptIds((7, 8), (9, 10, 11)),
        settings=DecodeSettings(max_slots=4, max_encoder_frames=2_000, fixed_shapes=True),
    )
    found = dict(engine.stream(((n, noise(k)) for n, k in enumerate(chosen)), window=window))
    for n, k in enumerate(chosen):
        alone, together = engine.transcribe([noise(k)])[0], found[n]
        assert isinstance(together, Hypothesis)
        assert together.token_ids == alone.token_ids
        assert together.token_logprobs == alone.token_logprobs


def _tokens(outcome: object) -> tuple[int, ...]:
    assert isinstance(outcome, Hypothesis)
    return outcome.token_ids


def test_a_long_text_does_not_hold_the_others() -> None:
    """Two slots: while one writes a long text, the other is used by all the short ones in turn."""
    engine = tiny(0, max_slots=2, max_encoder_frames=600)
    long = np.random.default_rng(0).normal(0, 0.1, 20 * 16_000).astype(np.float32)
    short = [long[: 16_000 // 2 + 160 * k] for k in range(8)]
    order = [key for key, _ in engine.stream(enumerate([*short, long]), window=9)]
    assert order[-1] == 8, "the long one is begun first and ends last"


def test_clips_are_looked_at_only_as_they_are_needed() -> None:
    engine = tiny(0, max_slots=2)
    seen = 0

    def endless() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal seen
        while True:
            seen += 1
            yield seen, noise(seen % N_CLIPS)

    stream = engine.stream(endless(), window=3)
    keys = [next(stream)[0] for _ in range(20)]
    assert len(set(keys)) == 20
    assert seen <= 20 + 2 + 2 * 3, "slots and windows, no more"
    stream.close()
    # left in the middle: the next run starts with empty slots
    assert (
        engine.transcribe([noise(1)])[0].token_ids == tiny(0, max_slots=1).transcribe([noise(1)])[0].token_ids
    )


def test_two_streams_at_once_are_refused_and_a_closed_one_leaves_nothing_behind() -> None:
    engine, lone = tiny(0, max_slots=2), tiny(0, max_slots=1)
    first = engine.stream(enumerate([noise(1), noise(2), noise(3), noise(4)]))
    next(first)
    with pytest.raises(StreamOpen, match="close"):
        engine.transcribe([noise(5)])
    first.close()
    assert engine.transcribe([noise(5)])[0].token_ids == lone.transcribe([noise(5)])[0].token_ids


def test_a_clip_that_may_not_be_written_to_is_fine() -> None:
    clip = noise(1)
    clip.flags.writeable = False
    assert tiny(0).transcribe([clip])[0].token_ids == tiny(0).transcribe([noise(1)])[0].token_ids


def test_every_clip_of_an_endless_stream_has_its_turn() -> None:
    """Short clips do not wait for ever behind longer ones that keep coming."""
    engine = tiny(0, max_slots=2)
    clips = ((n, noise(3)[: 8_000 if n == 2 else None]) for n in range(40))
    order = [key for key, _ in engine.stream(clips, window=4)]
    assert order.index(2) < 10


def test_a_clip_that_cannot_be_transcribed_costs_the_others_nothing() -> None:
    engine = tiny(1, max_slots=2)
    clips = {"good": noise(1), "empty": np.zeros(0, np.float32), "nan": np.full(9_000, np.nan, np.float32)}
    found = dict(engine.stream(clips.items()))
    assert found.keys() == clips.keys()
    assert _tokens(found["good"]) == tiny(1, max_slots=1).transcribe([noise(1)])[0].token_ids
    assert isinstance(found["empty"], ClipError)
    assert "clip nan: holds NaN" in str(found["nan"])


def test_numbers_that_are_not_finite_stay_with_their_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny(1, max_slots=2)
    lone = tiny(1, max_slots=1)
    embed = Prompter.embed
    poisoned = len(noise(4))

    def embed_with_nan(self: Prompter, clips: list[np.ndarray]) -> list[torch.Tensor]:
        prompts = embed(self, clips)
        for clip, prompt in zip(clips, prompts, strict=True):
            if len(clip) == poisoned:
                prompt[1] = torch.nan
        return prompts

    monkeypatch.setattr(Prompter, "embed", embed_with_nan)
    found = dict(engine.stream((k, noise(k)) for k in (4, 1, 2, 3, 5, 6)))
    assert isinstance(found.pop(4), ScoresNotFinite)
    for k, outcome in found.items():
        assert _tokens(outcome) == lone.transcribe([noise(k)])[0].token_ids, "its slot is clean for the next"


@pytest.mark.parametrize("where", ["prefill", "step"])
def test_out_of_memory_halves_the_slots_and_loses_nothing(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny(2, max_slots=8)
    original = getattr(Decoder, where)
    n_calls = 0

    def small_device(self: Decoder, *args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal n_calls
        n_calls += 1
        if self.n_slots > 2 and n_calls > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        result: torch.Tensor = original(self, *args, **kwargs)
        return result

    monkeypatch.setattr(Decoder, where, small_device)
    clips = [noise(k % N_CLIPS) for k in range(20)]
    found = [hypothesis.token_ids for hypothesis in engine.transcribe(clips)]
    assert engine.n_slots == 2
    monkeypatch.undo()
    monkeypatch.setattr("speech.prompting.token_limit", lambda duration_s: 4 + int(duration_s * 6))
    lone = tiny(2, max_slots=1)
    expected = {k: lone.transcribe([noise(k)])[0].token_ids for k in range(N_CLIPS)}
    assert found == [expected[k % N_CLIPS] for k in range(20)]


def test_out_of_memory_in_the_encoder_halves_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny(2, max_slots=8)
    embed = Prompter.embed

    def small_device(self: Prompter, clips: list[np.ndarray]) -> list[torch.Tensor]:
        if len(clips) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, clips)

    monkeypatch.setattr(Prompter, "embed", small_device)
    assert len(engine.transcribe([noise(k) for k in range(N_CLIPS)])) == N_CLIPS
    assert engine.n_slots == 8, "the slots are not at fault"


def test_a_device_without_room_for_one_clip_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny(2, max_slots=4)

    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "step", full)
        with pytest.raises(torch.OutOfMemoryError):
            engine.transcribe([noise(1), noise(2)])
    # once there is room again, the engine is as new
    lone = tiny(2, max_slots=1)
    assert engine.transcribe([noise(3)])[0].token_ids == lone.transcribe([noise(3)])[0].token_ids


def test_slots_fit_the_memory_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    per_slot = tiny(0, max_slots=1)
    slot_bytes = Decoder.slot_bytes(per_slot.model, per_slot._capacity) + 12 * 720
    monkeypatch.setattr("speech.sizing.available_host_bytes", lambda: 2 * 6 * slot_bytes)
    assert tiny(0, max_slots=64).n_slots == 5, "and one more that takes the padding"
    monkeypatch.setattr("speech.sizing.available_host_bytes", lambda: slot_bytes)
    with pytest.raises(torch.OutOfMemoryError, match="one clip needs"):
        tiny(0, max_slots=64)


def test_memory_that_only_caches_files_counts_as_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container that has just read a checkpoint of 8 GB is full of its pages, and not full at all."""
    monkeypatch.setattr("speech.sizing._CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2900000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 2500000\nactive_file 0\n")
    assert available_host_bytes() == 2_600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_host_bytes() > 2_600_000
