"""`fonoteca model`: what a checkpoint holds, in words and as JSON, and a conversion from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests import remote_tiny
from tests.cli.conftest import REPOSITORY, Ended
from tests.speech.layout_variants import audio_tensors, write_native, write_overlay, write_remote
from tests.speech.test_checkpoint import LORA_FAULTS, broken_lora

DEMO = REPOSITORY / "models" / "demo"


def test_inspect_tells_what_the_demo_model_is(fonoteca: Callable[..., Ended]) -> None:
    ended = fonoteca("model", "inspect", DEMO)
    assert ended.code == 0
    for words in ("fonoteca-demo   (demo model", "4 layers x 256", "0 <|endoftext|>, 3 <|end|>", "left out"):
        assert words in ended.out
    assert max(len(line) for line in ended.out.splitlines()) <= 100
    found = json.loads(fonoteca("model", "inspect", DEMO, "--json").out)
    assert (found["layout"], found["is_demo"], found["problems"]) == ("native", True, {})
    assert found["is_own_prompt"]
    assert found["speech_lora"] is None
    assert len(found["weights_sha256"]) == 64
    assert found["end_tokens"] == [{"id": 0, "text": "<|endoftext|>"}, {"id": 3, "text": "<|end|>"}]
    assert sum(part["n_parameters"] for part in found["parts"]) == found["n_parameters"]
    used = sum(part["n_parameters"] for part in found["parts"] if part["is_used"])
    assert used == found["n_parameters_opened"]


def test_inspect_tells_the_parts_of_a_remote_checkpoint(
    tmp_path: Path, fonoteca: Callable[..., Ended]
) -> None:
    folder = remote_tiny.write_checkpoint(tmp_path / "remote", shards=2)
    found = json.loads(fonoteca("model", "inspect", folder, "--json", "--no-hash").out)
    assert list(found) == [
        "name", "layout", "base_name", "base_layout", "is_demo", "weights_sha256", "n_files", "n_bytes",
        "n_tensors", "n_parameters", "n_parameters_opened", "parts", "speech_lora", "prompt", "is_own_prompt",
        "end_tokens", "decoder", "audio_encoder", "problems",
    ]  # fmt: skip
    assert (found["layout"], found["weights_sha256"], found["n_files"]) == ("remote", None, 2)
    assert found["speech_lora"] == {"r": 10, "alpha": 20, "n_modules": 8}
    assert not found["is_own_prompt"]
    assert found["decoder"] == {
        "layers": 2, "hidden_size": 64, "intermediate_size": 128, "heads": 4, "key_value_heads": 2,
        "vocabulary": 200_064,
    }  # fmt: skip
    parts = {part["name"]: part for part in found["parts"]}
    assert {name for name, part in parts.items() if not part["is_used"]} == {"vision LoRA", "image tower"}
    assert parts["embedding"]["n_bytes"] == 200_064 * 64 * 4
    assert parts["audio projection"]["dtypes"] == ["float32"]


def test_inspect_lists_everything_that_is_wrong(tmp_path: Path, fonoteca: Callable[..., Ended]) -> None:
    folder = write_remote(tmp_path / "remote", shards=1)
    broken_lora(folder)
    (folder / "tokenizer.json").unlink()
    ended = fonoteca("model", "inspect", folder)
    assert ended.code == 1
    for fault in LORA_FAULTS:
        assert fault.removeprefix("unexpected: ").removeprefix("wrong type: ") in ended.out
    assert "tokenizer.json is missing" in ended.out
    assert f"fonoteca: {folder}: cannot be opened: 8 problems" in ended.err
    found = fonoteca("model", "inspect", folder, "--json")
    assert found.code == 1
    assert set(json.loads(found.out)["problems"]) == {"LoRA", "unexpected", "wrong type", "tokenizer"}


def test_inspect_says_why_a_folder_is_no_checkpoint(tmp_path: Path, fonoteca: Callable[..., Ended]) -> None:
    ended = fonoteca("model", "inspect", tmp_path)
    assert (ended.code, ended.err) == (1, f"fonoteca: {tmp_path}: config.json is missing\n")


def test_convert_makes_one_checkpoint_of_overlay_and_base(
    tmp_path: Path, fonoteca: Callable[..., Ended]
) -> None:
    base = write_native(tmp_path / "below")
    overlay = write_overlay(tmp_path / "over", audio_tensors(tmp_path / "scratch"), naming="remote")
    found = json.loads(fonoteca("model", "inspect", overlay, "--base", base, "--json").out)
    assert (found["layout"], found["base_name"], found["base_layout"]) == ("audio-overlay", "below", "native")
    parts = {part["name"]: part["is_used"] for part in found["parts"]}
    assert parts["audio of the base"] is False
    assert parts["audio encoder"] is True
    ended = fonoteca("model", "convert", overlay, tmp_path / "whole", "--base", base, "--dtype", "float16")
    assert ended.code == 0
    assert f"{tmp_path / 'whole'}: 0.4 M parameters" in ended.out
    assert "writing" in ended.err
    whole = json.loads(fonoteca("model", "inspect", tmp_path / "whole", "--json").out)
    assert (whole["name"], whole["layout"], whole["problems"]) == ("over", "native", {})
    assert {dtype for part in whole["parts"] for dtype in part["dtypes"]} == {"float16"}
    again = fonoteca("model", "convert", overlay, tmp_path / "whole", "--base", base)
    assert again.code == 1
    assert "exists and is not an empty folder" in again.err
