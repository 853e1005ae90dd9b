"""The build of the demo model as a whole: its stages, its card, and when it may take the place of the present one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.made_speech import made_corpus
from tests.training.test_scratch_training import SETTINGS
from training.scratch import build as stages
from training.scratch.__main__ import main
from training.scratch.build import (
    INSTALLED,
    Build,
    BuildError,
    build,
    first_trial_sentences,
    install,
    read_measured,
)
from training.scratch.measure import HeldOut

QUICK = replace(SETTINGS, n_steps=6, n_looks=0, n_checkpoints=1)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build whose speech is made already, measured on two of the first trial's sentences."""
    sentences = first_trial_sentences()
    few = replace(sentences, utterances=sorted(sentences.utterances, key=lambda one: one.duration_s)[:2])

    monkeypatch.setattr(stages, "test_sets", lambda _folder: {"two sentences": HeldOut.of_manifest(few)})
    wanted = Build(tmp_path / "build", QUICK, hours=0.01, device="cpu", dtype="float32", n_processes=1)
    made_corpus(wanted.speech)
    return wanted


def test_a_build_has_figures_and_a_card_and_replaces_only_what_is_worse(made: Build, tmp_path: Path) -> None:
    found = build(made)
    assert found["two sentences"].n_clips == 2
    assert read_measured(made.out) == (QUICK.seed, found)
    card = (made.out / "model" / "README.md").read_text(encoding="utf-8")
    assert "two sentences" in card
    assert "6 steps" in card

    # random weights, against the model that is there
    present = tmp_path / "demo"
    shutil.copytree(INSTALLED, present)
    before = (present / "model.safetensors").read_bytes()
    with pytest.raises(BuildError, match=r"better on: two sentences: WER"):
        install(made.out, over=present, device="cpu")
    assert (present / "model.safetensors").read_bytes() == before
    install(made.out, over=tmp_path / "new", device="cpu")
    assert (tmp_path / "new" / "README.md").exists()
    assert (tmp_path / "new" / "model.safetensors").exists()


def test_a_folder_with_another_build_is_not_gone_on_with(made: Build) -> None:
    build(replace(made, until=1))
    with pytest.raises(BuildError, match="other settings"):
        build(replace(made, settings=replace(QUICK, seed=2)))


def test_an_unfinished_build_is_not_installed(made: Build, tmp_path: Path) -> None:
    assert build(replace(made, until=1)) == {}
    with pytest.raises(BuildError, match="no finished build"):
        install(made.out, over=tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_any_model_is_measured_as_a_build_is(
    made: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--measure", str(INSTALLED), "--out", str(made.out), "--device", "cpu"]) == 0
    assert "two sentences  2 clips: WER" in capsys.readouterr().out
    assert main(["--measure", str(tmp_path), "--out", str(made.out), "--device", "cpu"]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_steps_to_shorten_by_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "10", "--out", str(tmp_path), "--shorten", "20"]) == 1
    assert "FIRST:END" in capsys.readouterr().err
    assert main(["--minutes", "10", "--out", str(tmp_path), "--shorten", "20:10"]) == 1
    assert "FIRST < END" in capsys.readouterr().err


def test_too_few_minutes_are_refused_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--minutes", "0.1", "--out", str(tmp_path)]) == 1
    assert "give at least 1 minute" in capsys.readouterr().err
