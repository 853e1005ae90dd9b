"""A run is decided by its settings file, and a typo in it is never silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import write_settings
from training.tuning.errors import FinetuneError
from training.tuning.run_folder import RunFolder
from training.tuning.settings import Settings, read_settings

LEAST = 'base = "base"\nrun = "run"\n[data]\nmanifest = "m.parquet"\n'


def read(folder: Path, text: str) -> Settings:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return read_settings(file)


def test_what_is_not_said_is_as_the_model_card_has_it(tmp_path: Path) -> None:
    settings = read(tmp_path, LEAST)
    training = settings.training
    assert (training.epochs, training.learning_rate) == (3.0, 5e-5)
    assert (training.batch_size, training.accumulation) == (1, 16)
    assert (training.precision, training.gradient_checkpointing) == ("float16", True)
    assert settings.evaluation.every_percent == 20
    assert settings.checkpoints.every_steps == 1000


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, LEAST + 'folders = { cv = "../corpora/cv", here = "/abs" }\n')
    assert settings.base == tmp_path / "base"
    assert settings.data.manifest == tmp_path / "m.parquet"
    assert dict(settings.data.folders) == {"cv": tmp_path / "../corpora/cv", "here": Path("/abs")}
    assert settings.name == "run"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LEAST + "[training]\nlearnig_rate = 1\n", "training.learnig_rate is no setting"),
        (LEAST + "[trainings]\n", "trainings is no setting"),
        ('base = "base"\nrun = "run"\n', "data is missing"),
        (LEAST + "[training]\nepochs = true\n", "training.epochs is True, and must be float"),
        (LEAST + "[training]\nbatch_size = 1.5\n", "training.batch_size is 1.5, and must be int"),
        (LEAST + '[training]\nprecision = "fp16"\n', "not one of float16, bfloat16, float32"),
        (LEAST + "[training]\nbatch_size = 0\n", "must be from 1"),
        (LEAST + "max_audio_s = 60\n", "must be from 0.1 to 40"),
        (LEAST + 'test_split = "train"\n', "three different splits"),
        (LEAST + "training = 3\n", "data.training is no setting"),
        ("training = 3\n" + LEAST, "training must be a table"),
        ("base = [\n", "not valid TOML"),
    ],
)
def test_what_has_no_meaning_is_refused_by_its_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FinetuneError, match=r"settings\.toml") as error:
        read(tmp_path, text)
    assert told in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"none\.toml: No such file"):
        read_settings(tmp_path / "none.toml")


def test_a_run_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    inputs = {"train": {"sha256": "a"}}
    settings = read_settings(write_settings(tmp_path))
    run = RunFolder(settings.run)
    with pytest.raises(FinetuneError, match="no run to go on with"):
        run.begin(settings, inputs, resume=True)
    run.begin(settings, inputs, resume=False)
    with pytest.raises(FinetuneError, match="holds a run already"):
        run.begin(settings, inputs, resume=False)
    run.begin(settings, inputs, resume=True)

    slower = read_settings(write_settings(tmp_path, training={"learning_rate": 1e-5}))
    with pytest.raises(FinetuneError, match=r"settings\.training\.learning_rate was 0\.003 and is 1e-05"):
        run.begin(slower, inputs, resume=True)
    with pytest.raises(FinetuneError, match=r"inputs\.train\.sha256 was 'a' and is 'b'"):
        run.begin(settings, {"train": {"sha256": "b"}}, resume=True)
    # what does not decide the weights may change
    other_readers = read_settings(write_settings(tmp_path, training={"readers": 3, "log_steps": 1}))
    run.begin(other_readers, inputs, resume=True)
    assert len(run.read("run.json")["sessions"]) == 3
