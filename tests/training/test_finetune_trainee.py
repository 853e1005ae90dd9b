"""The loss is the one of the whole computation, in any batch, and checkpointing changes nothing but memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speech.encoder import encode_audio
from speech.features import count_frames, log_mel
from speech.prompt import PromptIds
from tests.benchmarks.random_checkpoint import random_model, tiny_config, write_checkpoint
from training.tuning.checkpoints import load_overlay, write_overlay
from training.tuning.errors import FinetuneError
from training.tuning.examples import Collator, Example
from training.tuning.frozen import (
    check_unchanged,
    check_written,
    constants_of,
    fingerprints,
    freeze,
    is_trained,
)
from training.tuning.settings import Precision
from training.tuning.trainee import Trainee

PROMPT = PromptIds((1, 20, 21), (22, 3, 2))


def trainee(*, checkpointing: bool = False, precision: Precision = "float32") -> Trainee:
    dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[precision]
    model = random_model(tiny_config(), "cpu", dtype, seed=3)
    freeze(model)
    return Trainee(model, PROMPT, precision=precision, gradient_checkpointing=checkpointing).train()


def examples() -> list[Example]:
    rng = np.random.default_rng(5)
    return [
        Example((rng.standard_normal(n) * 0.1).astype(np.float32), answer)
        for n, answer in ((11_000, (40, 41, 42, 43, 3, 0)), (7_000, (50, 3, 0)), (8_130, (60, 61, 3, 0)))
    ]


def loss_and_gradients(found: Trainee, chosen: list[Example]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss = found(**Collator()(chosen))["loss"]
    learning = [parameter for parameter in found.parameters() if parameter.requires_grad]
    return loss.detach(), list(torch.autograd.grad(loss, learning))


def test_the_loss_is_that_of_the_answer_after_the_prompt() -> None:
    """Against the plain way: one item, no padding, all logits, transformers' own loss."""
    found = trainee()
    example = examples()[0]
    model = found.model
    n_frames = count_frames(len(example.clip))
    features = log_mel(torch.from_numpy(example.clip)[None], torch.tensor([n_frames]))
    audio = encode_audio(model.model.embed_tokens_extend.audio_embed, features, [n_frames])[0]
    embed = model.model.embed_tokens
    before, after, answer = (
        embed(torch.tensor(ids)) for ids in (PROMPT.before, PROMPT.after, example.answer)
    )
    embeddings = torch.cat([before, audio, after, answer])
    n_before = len(embeddings) - len(example.answer)
    labels = torch.tensor([[-100] * n_before + list(example.answer)])
    plain = model(inputs_embeds=embeddings[None], labels=labels, use_cache=False).loss
    ours, _ = loss_and_gradients(found, [example])
    torch.testing.assert_close(ours, plain.detach(), rtol=1e-6, atol=1e-6)


def test_a_batch_is_its_items_weighed_by_their_tokens() -> None:
    found = trainee()
    together, gradients = loss_and_gradients(found, examples())
    alone = [loss_and_gradients(found, [example]) for example in examples()]
    n_tokens = [len(example.answer) for example in examples()]
    expected = sum(loss * n for (loss, _), n in zip(alone, n_tokens, strict=True)) / sum(n_tokens)
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
    for number, gradient in enumerate(gradients):
        parts = [part[number] * n for (_, part), n in zip(alone, n_tokens, strict=True)]
        expected_gradient = sum(parts[1:], parts[0]) / sum(n_tokens)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-4)


def test_logits_are_made_for_the_answers_alone() -> None:
    found = trainee()
    seen: list[int] = []
    found.model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    loss_and_gradients(found, examples())
    assert seen == [7]  # the longest answer and one more


def test_gradient_checkpointing_covers_every_block_and_changes_no_bit() -> None:
    plain, checkpointed = trainee(), trainee(checkpointing=True)
    calls: Counter[str] = Counter()
    encoder = checkpointed.model.model.embed_tokens_extend.audio_embed.encoder.encoders
    for part, blocks in (("encoder", encoder), ("decoder", checkpointed.model.model.layers)):
        for block in blocks:
            inner = block.self_attn
            inner.register_forward_pre_hook(lambda *_, part=part: calls.update([part]))
    loss, gradients = loss_and_gradients(checkpointed, examples())
    assert calls == {"encoder": 2 * len(encoder), "decoder": 2 * len(checkpointed.model.model.layers)}
    plain_loss, plain_gradients = loss_and_gradients(plain, examples())
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(*pair) for pair in zip(gradients, plain_gradients, strict=True))
    # generation pays nothing for it
    calls.clear()
    with torch.inference_mode():
        checkpointed.eval()(**Collator()(examples()))
    assert calls == {"encoder": len(encoder), "decoder": len(checkpointed.model.model.layers)}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_in_16_bits_weights_and_gradients_that_learn_are_float32(precision: Precision) -> None:
    found = trainee(precision=precision, checkpointing=True)
    exact, _ = loss_and_gradients(trainee(), examples())
    loss, gradients = loss_and_gradients(found, examples())
    assert loss.dtype == torch.float32
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert found.model.lm_head.weight.dtype == getattr(torch, precision)
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.02)


# --- what may change -------------------------------------------------------------------------------------


def test_only_audio_embed_learns_and_not_its_part_for_pictures() -> None:
    model = random_model(tiny_config(), "cpu", torch.float32)
    trained = freeze(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == trained.keys()
    assert all("audio_embed" in name for name in learning)
    left = {name for name, _ in model.named_parameters() if "audio_embed" in name} - learning
    assert {name.split(".")[-2] for name in left} == {
        "up_proj_for_vision_speech",
        "down_proj_for_vision_speech",
    }
    assert len(left) == 4
    with pytest.raises(FinetuneError, match="no parameter named audio_embed"):
        freeze(nn.Linear(2, 2))


def test_a_single_changed_bit_of_a_frozen_tensor_is_found() -> None:
    model = random_model(tiny_config(), "cpu", torch.bfloat16)
    freeze(model)
    before = fingerprints(model)
    check_unchanged(before, fingerprints(model))
    name = "model.layers.1.mlp.down_proj.weight"
    weight = model.get_parameter(name)
    with torch.no_grad():
        weight.view(torch.int16)[3, 5] ^= 1
    with pytest.raises(FinetuneError, match=f"1 frozen tensors .*{name}"):
        check_unchanged(before, fingerprints(model))


def test_constants_of_the_encoder_count_as_frozen() -> None:
    model = random_model(tiny_config(), "cpu", torch.float32)
    freeze(model)
    assert any(name.endswith("encoder_embedding.global_mean") for name in fingerprints(model))


def test_a_written_checkpoint_is_compared_with_its_base(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", size="tiny", layout="native", seed=1)
    same = write_checkpoint(tmp_path / "same", size="tiny", layout="native", seed=1)
    other = write_checkpoint(tmp_path / "other", size="tiny", layout="native", seed=2)
    assert check_written(same, base) == 2 + 2 + 4 + 2 * 6
    with pytest.raises(FinetuneError, match="frozen tensors differ from the base's"):
        check_written(other, base)


def test_an_overlay_gives_back_the_very_bits(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", size="tiny", layout="native", seed=1)
    model = random_model(tiny_config(), "cpu", torch.float32, seed=4)
    trained = freeze(model)
    write_overlay(tmp_path / "overlay", {**trained, **constants_of(base)}, base, "some")
    again = random_model(tiny_config(), "cpu", torch.float32, seed=5)
    parameters = freeze(again)
    weight = "model.embed_tokens_extend.audio_embed.down_proj_for_speech.weight"
    assert not torch.equal(parameters[weight], trained[weight])
    load_overlay(tmp_path / "overlay", parameters)
    assert all(torch.equal(parameters[name], trained[name]) for name in trained)
    assert all(is_trained(name) for name in trained)
    with pytest.raises(FinetuneError, match=r"lacks 1 of the .* belongs to another model"):
        load_overlay(tmp_path / "overlay", {**parameters, "audio_embed.new": nn.Parameter(torch.zeros(1))})
