"""A converted checkpoint computes what its source does, alone, without code, and all or nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from speech import convert
from speech.checkpoint import CheckpointError, Layout, open_checkpoint, read_card
from speech.convert import convert_checkpoint
from speech.engine import Phi4Engine
from tests import remote_tiny
from tests.speech.layout_variants import (
    audio_tensors,
    write_native,
    write_native_with_lora,
    write_overlay,
    write_remote,
)


def write_overlay_on_remote(folder: Path) -> Path:
    write_remote(folder / "base")
    audio = audio_tensors(folder / "scratch")
    config = {"fonoteca": {"base": "../base", "name": "radio"}}
    return write_overlay(folder / "overlay", audio, naming="remote, no prefix", config=config)


SOURCES: dict[str, Callable[[Path], Path]] = {
    "recorded remote": remote_tiny.write_checkpoint,
    "remote": write_remote,
    "native": write_native,
    "native+speech-lora": write_native_with_lora,
    "overlay": write_overlay_on_remote,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_converted_checkpoint_computes_the_same(tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind](tmp_path / "source")
    target = tmp_path / "target"
    done = convert_checkpoint(source, target, shard_bytes=500_000)
    assert [file.name for file in sorted(target.glob("*.safetensors"))] == sorted(done.files)
    before, after = open_checkpoint(source), open_checkpoint(target)
    ids = torch.randint(720, (1, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(before[0](input_ids=ids).logits, after[0](input_ids=ids).logits)
    states = before[0].state_dict(), after[0].state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    if kind != "recorded remote":  # its 200,064 words take too long to decode
        clip = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
        heard = [Phi4Engine(*opened).transcribe([clip])[0] for opened in (before, after)]
        assert heard[0] == heard[1]
    assert sum(tensor.numel() for tensor in after[0].parameters()) <= done.n_parameters
    card = read_card(target)
    assert (card.layout, card.n_tensors) == (Layout.NATIVE, done.n_tensors)


def test_the_converted_folder_says_where_it_came_from(tmp_path: Path) -> None:
    source = write_overlay_on_remote(tmp_path / "source")
    done = convert_checkpoint(source, tmp_path / "once")
    own = json.loads((tmp_path / "once" / "config.json").read_text())["fonoteca"]
    assert own == {
        "name": "radio",
        "converted_from": {
            "name": "radio",
            "layout": "audio-overlay",
            "weights_sha256": read_card(source).weights_sha256,
            "base": {"name": "base", "layout": "remote"},
        },
    }
    assert done.source_sha256 == own["converted_from"]["weights_sha256"]
    convert_checkpoint(tmp_path / "once", tmp_path / "twice")
    again = json.loads((tmp_path / "twice" / "config.json").read_text())["fonoteca"]["converted_from"]
    assert (again["layout"], again["converted_from"]) == ("native", own["converted_from"])


def test_converting_twice_gives_identical_bytes(tmp_path: Path) -> None:
    source = write_remote(tmp_path / "source")
    for name in ("one", "two"):
        convert_checkpoint(source, tmp_path / name, dtype="bfloat16", shard_bytes=200_000)
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two
    assert len(one) > 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_merged_weight_is_rounded_once(tmp_path: Path, dtype: str) -> None:
    source = write_remote(tmp_path / "source")
    convert_checkpoint(source, tmp_path / "target", dtype=dtype)
    exact, _ = open_checkpoint(source, dtype="float32")
    with safe_open(tmp_path / "target" / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            rounded = file.get_tensor(name)
            assert rounded.dtype == convert.DTYPES[dtype]
            assert torch.equal(rounded, exact.state_dict()[name].to(rounded.dtype))


def test_only_data_is_copied(tmp_path: Path) -> None:
    source = write_remote(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    assert "auto_map" in config
    (source / "modeling_phi4mm.py").write_text("raise SystemExit")
    (source / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoProcessor": "x.Y"}, "eos_token": "<|endoftext|>"})
    )
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 3]}))
    (source / "README.md").write_text("of the source")
    convert_checkpoint(source, tmp_path / "target")
    assert sorted(file.name for file in (tmp_path / "target").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for file in (tmp_path / "target").glob("*.json"):
        assert "auto_map" not in file.read_text()


@pytest.mark.parametrize("step", ["hash", "write"])
@pytest.mark.parametrize(
    "interruption", [KeyboardInterrupt, SystemExit, OSError(28, "No space left on device")]
)
def test_nothing_half_written_stays(
    tmp_path: Path, step: str, interruption: BaseException | type[BaseException]
) -> None:
    source = write_remote(tmp_path / "source")
    parent = tmp_path / "models"
    parent.mkdir()

    def interrupt(doing: str, done: int, total: int) -> None:
        if doing == step and done > total / 2:
            assert bool(list(parent.iterdir())) == (step == "write")
            raise interruption

    with pytest.raises((KeyboardInterrupt, SystemExit, CheckpointError)):
        convert_checkpoint(source, parent / "target", shard_bytes=300_000, progress=interrupt)
    assert not list(parent.iterdir())


def test_a_target_in_use_is_left_alone(tmp_path: Path) -> None:
    source = write_remote(tmp_path / "source")
    target = tmp_path / "target"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
        convert_checkpoint(source, target)
    with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
        convert_checkpoint(source, target / "notes.txt")
    with pytest.raises(CheckpointError, match="does not exist"):
        convert_checkpoint(source, tmp_path / "no" / "such")
    (target / "notes.txt").unlink()
    convert_checkpoint(source, target)
    assert read_card(target).layout is Layout.NATIVE


def test_what_cannot_be_converted_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_remote(tmp_path / "source")
    with pytest.raises(CheckpointError, match="dtype 'int4' is not one of keep, bfloat16"):
        convert_checkpoint(source, tmp_path / "target", dtype="int4")
    with pytest.raises(CheckpointError, match="give more than 0"):
        convert_checkpoint(source, tmp_path / "target", shard_bytes=0)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
        with pytest.raises(CheckpointError, match=r"0\.0 GiB free, and the converted model needs 0\.1 GiB"):
            convert_checkpoint(source, tmp_path / "target")
    shutil.move(source / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        convert_checkpoint(source, tmp_path / "target")
    shutil.move(tmp_path / "tokenizer.json", source / "tokenizer.json")
    for shard in sorted(source.glob("*.safetensors"))[:1]:
        shard.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        convert_checkpoint(source, tmp_path / "target")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]
