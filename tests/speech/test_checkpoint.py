"""Checkpoints open in both layouts without running their code, and say everything that is wrong at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speech.checkpoint import CheckpointError, open_checkpoint, read_card
from speech.engine import Phi4Engine
from speech.layouts import Layout
from speech.prompt import PromptIds
from tests import remote_tiny

DEMO = Path(__file__).parents[2] / "models" / "demo"
AUDIO_ID = 200_011


def recorded_prompt() -> PromptIds:
    ids = remote_tiny.expected()["input_ids3"].tolist()
    first = ids.index(AUDIO_ID)
    return PromptIds(tuple(ids[:first]), tuple(ids[first + ids.count(AUDIO_ID) :]))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("batch", [(0,), (1,), (2,), (3,), (0, 1, 2, 3), (3, 1)])
def test_the_remote_layout_computes_what_the_original_code_did(
    tmp_path: Path, shards: int, batch: tuple[int, ...]
) -> None:
    model, tokenizer = open_checkpoint(remote_tiny.write_checkpoint(tmp_path / "remote", shards=shards))
    engine = Phi4Engine(model, tokenizer, prompt=recorded_prompt())
    clips, expected = remote_tiny.clips(), remote_tiny.expected()
    with torch.inference_mode():
        embeddings, attention = engine._prompt_embeddings([clips[k] for k in batch])
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        logits = model(
            inputs_embeds=embeddings, attention_mask=attention, position_ids=positions, logits_to_keep=1
        ).logits[:, -1, : remote_tiny.PALETTE_ROWS]
        greedy = engine._generate(embeddings, attention, [12] * len(batch))
    for row, k in enumerate(batch):
        torch.testing.assert_close(logits[row], expected[f"logits{k}"], atol=1e-4, rtol=0)
        # ids that are equal modulo the palette have equal logits
        tokens = [token % remote_tiny.PALETTE_ROWS for token in greedy[row][0]]
        assert tokens == (expected[f"greedy{k}"] % remote_tiny.PALETTE_ROWS).tolist()


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


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = remote_tiny.write_checkpoint(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
    (folder / "config.json").write_text(json.dumps(config))
    witness = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')")
    open_checkpoint(folder)
    assert not witness.exists()
