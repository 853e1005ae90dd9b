"""Checkpoints open in both layouts without running their code, and say everything that is wrong at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from speech.checkpoint import CheckpointError, open_checkpoint, read_card
from speech.encoder import encode_audio
from speech.features import count_audio_tokens, count_frames, log_mel
from speech.layouts import Layout
from tests import remote_tiny
from tests.speech.layout_variants import write_native, write_native_with_lora, write_remote

DEMO = Path(__file__).parents[2] / "models" / "demo"
AUDIO_ID = 200_011


def recorded_prompt() -> tuple[list[int], list[int]]:
    """Token ids before and after the audio."""
    ids = remote_tiny.expected()["input_ids3"].tolist()
    first = ids.index(AUDIO_ID)
    return ids[:first], ids[first + ids.count(AUDIO_ID) :]


def prompt_embeddings(model: Any, clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with the audio in place, padded on the left, and their mask."""
    waveforms = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    n_frames = [count_frames(len(clip)) for clip in clips]
    features = log_mel(waveforms, torch.tensor(n_frames))
    audio = encode_audio(model.model.embed_tokens_extend.audio_embed, features, n_frames)
    before, after = (model.model.embed_tokens(torch.tensor(ids)) for ids in recorded_prompt())
    rows = [
        torch.cat([before, row[: count_audio_tokens(n)], after])
        for row, n in zip(audio, n_frames, strict=True)
    ]
    longest = max(len(row) for row in rows)
    embeddings = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return embeddings, mask


def last_logits(model: Any, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits: torch.Tensor = model(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, logits_to_keep=1
    ).logits[:, -1]
    return logits


@pytest.mark.parametrize("shards", [1, 3])
@torch.inference_mode()
def test_the_remote_layout_computes_what_the_original_code_did(tmp_path: Path, shards: int) -> None:
    model, _ = open_checkpoint(remote_tiny.write_checkpoint(tmp_path / "remote", shards=shards))
    clips, expected = remote_tiny.clips(), remote_tiny.expected()
    for batch in [(0,), (1,), (2,), (3,), (0, 1, 2, 3), (3, 1)]:
        embeddings, mask = prompt_embeddings(model, [clips[k] for k in batch])
        logits = last_logits(model, embeddings, mask)[:, : remote_tiny.PALETTE_ROWS]
        for row, k in enumerate(batch):
            torch.testing.assert_close(logits[row], expected[f"logits{k}"], atol=1e-4, rtol=0)
    # written on greedily; ids that are equal modulo the palette have equal logits
    for k, clip in enumerate(clips):
        embeddings, mask = prompt_embeddings(model, [clip])
        for token in expected[f"greedy{k}"].tolist():
            chosen = last_logits(model, embeddings, mask).argmax(-1)
            assert chosen.item() % remote_tiny.PALETTE_ROWS == token % remote_tiny.PALETTE_ROWS
            embeddings = torch.cat([embeddings, model.model.embed_tokens(chosen)[None]], dim=1)
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)


def test_card_tells_layout_demo_and_hash(tmp_path: Path) -> None:
    demo = read_card(DEMO)
    assert (demo.name, demo.is_demo, demo.layout) == ("fonoteca-demo", True, Layout.NATIVE)
    assert read_card(DEMO).weights_sha256 == demo.weights_sha256
    remote = read_card(remote_tiny.write_checkpoint(tmp_path / "remote"))
    assert (remote.is_demo, remote.layout) == (False, Layout.REMOTE)
    assert remote.weights_sha256 != demo.weights_sha256


def test_the_image_tower_is_not_built() -> None:
    model, _ = open_checkpoint(DEMO)
    assert not [name for name, _ in model.named_parameters() if "image_embed" in name]


def test_every_wrong_tensor_is_named_in_one_error(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(DEMO, folder)
    tensors = load_file(folder / "model.safetensors")
    gone = "model.norm.weight"
    tensors.pop(gone)
    tensors["model.stray.weight"] = torch.zeros(2)
    bent = "model.layers.0.self_attn.o_proj.weight"
    tensors[bent] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert f"missing: {gone}" in message
    assert "unexpected: model.stray.weight" in message
    assert f"{bent} is [3, 3], not [256, 256]" in message
    assert str(folder) in message


def test_folders_that_are_no_checkpoint_say_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors file"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header at all")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        open_checkpoint(tmp_path)
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not named as a Phi-4-multimodal checkpoint"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00002.safetensors"}})
    )
    with pytest.raises(CheckpointError, match=r"shards that are not there: model-00002\.safetensors"):
        open_checkpoint(tmp_path)


def test_an_output_layer_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "untied")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    open_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight of its own"):
        open_checkpoint(folder)


def broken_lora(folder: Path) -> None:
    """Bend, halve and drop LoRA tensors, one module each, and more, in the only shard of a remote checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    layer = "model.layers.0."
    tensors.pop(layer + "self_attn.qkv_proj.lora_A.speech.weight")
    tensors.pop(layer + "self_attn.o_proj.lora_B.speech.weight")
    tensors[layer + "mlp.down_proj.lora_A.speech.weight"] = torch.zeros(3, 128)
    tensors.pop("model.layers.1.self_attn.o_proj.lora_A.speech.weight")
    tensors.pop("model.layers.1.self_attn.o_proj.lora_B.speech.weight")
    tensors["model.layers.9.mlp.down_proj.lora_A.speech.weight"] = torch.zeros(10, 128)
    tensors["model.layers.9.mlp.down_proj.lora_B.speech.weight"] = torch.zeros(96, 10)
    tensors["model.layers.1.mlp.down_proj.lora_A.other.weight"] = torch.zeros(10, 128)
    tensors["model.norm.weight"] = torch.zeros(96, dtype=torch.int8)
    save_file(tensors, folder / "model.safetensors")


LORA_FAULTS = (
    "model.layers.0.self_attn.qkv_proj has lora_B alone",
    "model.layers.0.self_attn.o_proj has lora_A alone",
    "model.layers.0.mlp.down_proj: lora_A is [3, 128] and lora_B [96, 10], not [10, 128] and [96, 10] (r = 10)",
    "model.layers.1.self_attn.o_proj has no speech LoRA, and config.json names one",
    "model.layers.9.mlp.down_proj has a LoRA, but no weight that it belongs to",
    "unexpected: model.layers.1.mlp.down_proj.lora_A.other.weight",
    "wrong type: model.norm.weight is int8",
)


def test_every_fault_of_a_lora_is_in_the_one_error(tmp_path: Path) -> None:
    folder = write_remote(tmp_path / "remote", shards=1)
    broken_lora(folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    for fault in LORA_FAULTS:
        assert fault in str(caught.value)


def test_a_lora_without_its_scale_is_refused(tmp_path: Path) -> None:
    folder = write_remote(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config.pop("speech_lora")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json names no speech_lora with r and lora_alpha"):
        open_checkpoint(folder)


def test_the_faults_of_a_peft_adapter_are_named(tmp_path: Path) -> None:
    folder = write_native_with_lora(tmp_path / "lora")
    open_checkpoint(folder)
    file = folder / "speech-lora" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight")
    tensors["base_model.model.model.layers.0.mlp.bias"] = torch.zeros(2)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert "model.layers.0.mlp.down_proj has lora_A alone" in str(caught.value)
    assert "unexpected: base_model.model.model.layers.0.mlp.bias" in str(caught.value)
    adapter = json.loads((folder / "speech-lora" / "adapter_config.json").read_text())
    (folder / "speech-lora" / "adapter_config.json").write_text(json.dumps({**adapter, "use_rslora": True}))
    with pytest.raises(CheckpointError, match="cannot merge a LoRA with use_rslora"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "config",
    [{"model_type": "phi4mm"}, {"audio_processor": 3}, {"hidden_size": "wide"}, {"num_attention_heads": 7}],
    ids=lambda config: next(iter(config)),
)
def test_a_config_that_cannot_be_is_named(tmp_path: Path, config: dict[str, object]) -> None:
    folder = write_remote(tmp_path / "remote")
    stored = json.loads((folder / "config.json").read_text())
    content = config if "model_type" in config else {**stored, **config}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        open_checkpoint(folder)


def test_a_shard_that_broke_off_is_named(tmp_path: Path) -> None:
    folder = write_remote(tmp_path / "remote")
    shard = sorted(folder.glob("*.safetensors"))[1]
    with shard.open("rb+") as file:
        file.truncate(shard.stat().st_size - 100)
    with pytest.raises(CheckpointError, match=f"{shard.name}.*the copy probably broke off"):
        read_card(folder)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = remote_tiny.write_checkpoint(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
    (folder / "config.json").write_text(json.dumps(config))
    witness = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')")
    open_checkpoint(folder)
    assert not witness.exists()
