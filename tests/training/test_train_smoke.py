"""`make train-smoke`: a tiny model through prepare, fine-tuning, kill -9, resume, measuring and its card."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from speech.checkpoint import open_checkpoint, read_card
from speech.inspection import inspect_checkpoint
from tests.demo_speech import FOLDER
from tests.training.small_runs import small_settings, utterances
from training.corpora.description import describe
from training.corpora.preparation import PrepareSettings
from training.finetune import finetune
from training.prepare import prepare
from training.tuning.frozen import is_trained
from training.tuning.run_folder import RunFolder

pytestmark = pytest.mark.slow

STEPS = 8
CHANGES = {"training": {"max_steps": STEPS}, "checkpoints": {"every_steps": 3}}


def numbers(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    return [{key: line[key] for key in sorted(line) if "runtime" not in key} for line in history]


def prepare_corpus(folder: Path) -> None:
    """A corpus as its owner has it, a broken file among the others, into `folder`/manifest.parquet."""
    corpus = folder / "corpus"
    corpus.mkdir()
    rows = [
        {"id": one.audio.removesuffix(".flac"), "audio": one.audio, "text": one.text, "speaker": one.speaker,
         "split": one.split}
        for one in utterances()
    ]  # fmt: skip
    for row in rows:
        shutil.copy(FOLDER / str(row["audio"]), corpus)
    (corpus / "broken.flac").write_bytes(b"no sound")
    rows.append({**rows[0], "id": "broken", "audio": "broken.flac"})
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (corpus / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    done = prepare([describe(f"demo-speech={corpus}")], folder, PrepareSettings(workers=1))
    assert len(done.utterances) == len(rows) - 1
    assert [reject.key for reject in done.rejects] == ["broken"]


def kill_after_a_checkpoint(settings_file: Path, run: RunFolder) -> None:
    """Train in a process of its own, and kill it between two checkpoints."""
    command = [sys.executable, "-m", "cli.main", "train", "finetune", str(settings_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line)
            if "training_progress" in line and run.checkpoints.newest() is not None and "loss=" in line:
                os.kill(process.pid, signal.SIGKILL)
                break
        else:
            raise AssertionError("".join(told))
    assert process.returncode == -signal.SIGKILL
    newest = run.checkpoints.newest()
    assert newest is not None
    assert newest.name == "checkpoint-3"
    assert not run.model.exists()


def test_a_killed_run_goes_on_and_gives_what_an_unbroken_one_gives(tmp_path: Path) -> None:
    # prepared: a manifest, and a base in Microsoft's layout, LoRA inside
    prepare_corpus(tmp_path)
    settings = small_settings(tmp_path, layout="remote", **CHANGES)
    unbroken = replace(settings, run=tmp_path / "unbroken")
    whole = finetune(unbroken)

    killed = RunFolder(settings.run)
    kill_after_a_checkpoint(tmp_path / "settings.toml", killed)
    # as a process killed while writing leaves it: not to be gone on from
    half = killed.checkpoints.folder / "unfinished" / "checkpoint-6"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half of it")
    command = [sys.executable, "-m", "cli.main", "train", "finetune", "--resume", "--json"]
    done = subprocess.run(
        [*command, str(tmp_path / "settings.toml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["n_steps"] == STEPS

    # resumed equals unbroken: every loss, gradient norm and error rate, and every weight
    history = killed.read("history.json")
    assert numbers(history) == numbers(RunFolder(unbroken.run).read("history.json"))
    assert [line["step"] for line in history if "loss" in line] == list(range(1, STEPS + 1))
    assert read_card(killed.model).weights_sha256 == read_card(whole.model).weights_sha256
    sessions = killed.read("run.json")["sessions"]
    assert [session["from_checkpoint"] for session in sessions] == [None, "checkpoint-3"]

    # it learnt
    losses = [line["loss"] for line in history if "loss" in line]
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.02
    # evaluated by generation, before, halfway and at the end
    assert [line["step"] for line in history if "eval_wer" in line] == [0, 4, 8]

    # frozen tensors are the base's, the LoRA merged; the others moved
    base, _ = open_checkpoint(settings.base, device="cpu")
    result, _ = open_checkpoint(killed.model, device="cpu")
    tensors = base.state_dict()
    assert result.state_dict().keys() == tensors.keys()
    parameters = dict(base.named_parameters())
    changed = {name for name, tensor in result.state_dict().items() if not torch.equal(tensor, tensors[name])}
    assert changed
    assert all(is_trained(name) and name in parameters for name in changed)
    n_trained = sum(is_trained(name) for name in parameters)
    assert len(changed) >= n_trained - 2 * len(base.model.embed_tokens_extend.audio_embed.encoder.encoders)
    assert (
        answer["n_frozen_equal"] == len(tensors) - 1 - n_trained
    )  # the output layer is the embedding's twin

    # opens, and has a card that says what was measured
    assert not inspect_checkpoint(killed.model).problems
    head, text = (
        (killed.model / "README.md").read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    )
    card = yaml.safe_load(head)
    results = card["model-index"][0]["results"]
    assert [result["dataset"]["name"] for result in results] == ["demo-speech"]
    rates = killed.read("test.json")["result"]["demo-speech"]
    assert {metric["type"]: metric["value"] for metric in results[0]["metrics"]} == {
        "wer": round(100 * rates["wer"], 2),
        "cer": round(100 * rates["cer"], 2),
    }
    assert answer["wer_after"] == rates["wer"]
    for section in ("What it cannot do", "How good it is", "What it was trained on", "How it was trained"):
        assert f"## {section}" in text
    assert (killed.model / "curves.png").read_bytes().startswith(b"\x89PNG")
