"""A folder with audio_embed alone opens over a whole checkpoint, in every naming, and says what it lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from speech.checkpoint import CheckpointError, open_checkpoint, read_card
from speech.layouts import AUDIO_EMBED, Layout
from speech.prompt import DEFAULT_PROMPT, prompt_of
from tests.speech.layout_variants import (
    NAMINGS,
    audio_tensors,
    write_native,
    write_native_with_lora,
    write_overlay,
    write_remote,
)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return audio_tensors(tmp_path_factory.mktemp("audio") / "scratch")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_remote(tmp_path_factory.mktemp("remote") / "remote-base")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, remote: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "remote": remote,
        "native": write_native(folder / "native", shards=2),
        "native+speech-lora": write_native_with_lora(folder / "lora"),
    }


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("below", ["remote", "native", "native+speech-lora"])
def test_an_overlay_is_its_audio_over_its_base(
    tmp_path: Path, audio: dict[str, torch.Tensor], bases: dict[str, Path], below: str, naming: str
) -> None:
    overlay = write_overlay(tmp_path / "overlay", audio, naming=naming)
    model, tokenizer = open_checkpoint(overlay, base=bases[below])
    base, _ = open_checkpoint(bases[below])
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, audio.get(name, base.state_dict()[name]), rtol=0, atol=0)
    assert tokenizer.encode("<|end|>", add_special_tokens=False) == [3]


def test_the_base_is_the_one_that_the_overlay_names(
    tmp_path: Path, audio: dict[str, torch.Tensor], remote: Path
) -> None:
    relative = os.path.relpath(remote, tmp_path / "overlay")
    config = {"fonoteca": {"base": relative, "name": "radio", "prompt": "<|audio|>fala"}}
    overlay = write_overlay(tmp_path / "overlay", audio, naming="native", config=config)
    model, _ = open_checkpoint(overlay)
    assert prompt_of(model.config) == "<|audio|>fala"
    card = read_card(overlay)
    assert (card.name, card.layout) == ("radio", Layout.AUDIO_OVERLAY)


def test_an_overlay_that_names_no_base_says_how_to_give_it(
    tmp_path: Path, audio: dict[str, torch.Tensor]
) -> None:
    overlay = write_overlay(tmp_path / "overlay", audio, naming="remote, no prefix")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(overlay)
    for way in ("FONOTECA_MODEL_BASE", "--base", '{"fonoteca": {"base": "../base-model"}}'):
        assert way in str(caught.value)
    with pytest.raises(CheckpointError, match=r"its base cannot be opened: .*no such folder"):
        open_checkpoint(overlay, base=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"its base .*: holds only audio_embed tensors itself"):
        open_checkpoint(overlay, base=overlay)


def test_what_the_overlay_does_not_say_is_its_base_s(
    tmp_path: Path, audio: dict[str, torch.Tensor], remote: Path
) -> None:
    base = write_native(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["fonoteca"] = {"name": "below", "is_demo": True, "prompt": "<|audio|>abaixo"}
    (base / "config.json").write_text(json.dumps(config))
    overlay = write_overlay(tmp_path / "over", audio, naming="native", config={"fonoteca": {}})
    card = read_card(overlay, base=base)
    assert (card.name, card.is_demo) == ("over", True)
    assert prompt_of(open_checkpoint(overlay, base=base)[0].config) == "<|audio|>abaixo"
    assert prompt_of(open_checkpoint(overlay, base=remote)[0].config) == DEFAULT_PROMPT


def test_the_hash_covers_overlay_and_base(
    tmp_path: Path, audio: dict[str, torch.Tensor], bases: dict[str, Path]
) -> None:
    overlay = write_overlay(tmp_path / "overlay", audio, naming="native")
    over_remote, over_native = (read_card(overlay, base=bases[name]) for name in ("remote", "native"))
    assert over_remote.weights_sha256 != over_native.weights_sha256
    changed = {**audio, f"{AUDIO_EMBED}up_proj_for_speech.bias": torch.ones(96)}
    other = write_overlay(tmp_path / "other", changed, naming="native")
    hashes = {over_remote.weights_sha256, read_card(other, base=bases["remote"]).weights_sha256}
    assert len(hashes) == 2
    base = read_card(bases["remote"])
    assert over_remote.n_tensors == base.n_tensors + len(audio)
    assert over_remote.n_bytes == base.n_bytes + (overlay / "audio.safetensors").stat().st_size
    # a whole checkpoint needs no base, and its hash no mention of one
    assert read_card(bases["remote"], base=bases["native"]) == base


def test_the_vision_speech_projection_may_be_left_to_the_base(
    tmp_path: Path, audio: dict[str, torch.Tensor], remote: Path
) -> None:
    part = {name: tensor for name, tensor in audio.items() if "vision_speech" not in name}
    assert len(part) == len(audio) - 4
    overlay = write_overlay(tmp_path / "overlay", part, naming="remote")
    model, _ = open_checkpoint(overlay, base=remote)
    base, _ = open_checkpoint(remote)
    name = f"{AUDIO_EMBED}up_proj_for_vision_speech.weight"
    assert torch.equal(model.get_parameter(name), base.get_parameter(name))


def test_all_that_is_wrong_with_an_overlay_is_in_one_error(
    tmp_path: Path, audio: dict[str, torch.Tensor], remote: Path
) -> None:
    tensors = dict(audio)
    gone = f"{AUDIO_EMBED}encoder.encoders.1.self_attn.o_proj.weight"
    tensors.pop(gone)
    bent = f"{AUDIO_EMBED}encoder.embed.out.bias"
    tensors[bent] = torch.zeros(3)
    folder = tmp_path / "overlay"
    folder.mkdir()
    stray = {"encoder.encoders.7.layer_norm.weight": torch.zeros(64), "stray": torch.zeros(1)}
    twice = {"up_proj_for_speech.bias": tensors[f"{AUDIO_EMBED}up_proj_for_speech.bias"].clone()}
    save_file({**tensors, **stray, **twice}, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, base=remote)
    message = str(caught.value)
    assert f"missing: {gone};" in message
    assert f"wrong shape: {bent} is [3], not [64]" in message
    for name in (*stray, "(a second model.embed_tokens_extend.audio_embed.up_proj_for_speech.bias)"):
        assert name in message
    assert str(folder) in message
    assert str(remote) in message
