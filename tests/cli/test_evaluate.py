"""`fonoteca evaluate` with the demo model and real servers: figures, resuming, overlap, errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from compose.local.spawn import wait_until
from db.code_version import code_version
from db.settings import Settings
from evaluation.score import score
from tests.cli.conftest import REPOSITORY, Ended
from tests.evaluation.made_sets import SENTENCES, make_set

Run = Callable[..., Ended]


@pytest.fixture
def datasets(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("FONOTECA_DATASETS", str(folder))
    return folder


def predictions(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT u.key, p.text, p.token_ids, p.mean_logprob, p.flags FROM predictions p "
                "JOIN held_out_utterances u ON u.id = p.utterance_id"
            )
        )
        return {row.key: row for row in rows}


def test_the_tables_are_the_cards_and_right_to_the_last_digit(
    fonoteca: Run, datasets: Path, tmp_path: Path
) -> None:
    make_set(datasets, "radio", 5)
    make_set(datasets, "CommonVoice", 3, start=5)
    found = fonoteca("evaluate", "--json", "--csv", tmp_path / "f.csv", "--predictions", tmp_path / "p.jsonl")
    assert found.code == 0, found.err
    result = json.loads(found.out)
    assert [one["dataset"] for one in result["sets"]] == ["CommonVoice", "radio"]
    assert result["model"]["is_demo"]
    written = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    assert [row["reference"] for row in written] == [row["text"] for row in [*SENTENCES[5:8], *SENTENCES[:5]]]
    expected = score([row["reference"] for row in written], [row["text"] for row in written])
    combined = result["combined"]["basic"]
    assert (combined["wer"], combined["cer"]) == (expected.wer.value, expected.cer.value)
    assert combined["n_words"] == expected.wer.counts.reference_length
    assert combined["wer"] < 0.2
    assert set(result["combined"]) == {"basic", "galician"}
    assert result["sets"][0]["card"] == {"n_utterances": 14_563, "wer": 0.0290, "cer": 0.0073}
    assert result["sets"][1]["card"] is None
    assert result["combined_card"] is None, "these are not all of the card's sets"
    with (tmp_path / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["normalizer"], row["dataset"]) for row in rows[:3]] == [
        ("basic", "CommonVoice"),
        ("basic", "radio"),
        ("basic", "Combined"),
    ]
    assert float(rows[2]["wer"]) == expected.wer.value

    again = fonoteca("evaluate", "commonvoice", "radio")
    assert "evaluated already" in again.err
    table = again.out.splitlines()
    line = next(row for row in table if row.startswith("CommonVoice "))
    assert line.split("|")[1].split() == ["14,563", "0.0290", "0.0073"]
    assert f"{expected.wer.value:.4f}" in next(row for row in table if row.startswith("Combined"))
    assert "3 utterances here and 14,563 on the card" in again.out
    assert "not looked for" in again.out
    assert "demo model" in again.out


def test_overlap_with_training_data_is_printed_with_the_scores(
    fonoteca: Run, datasets: Path, tmp_path: Path
) -> None:
    folder = make_set(datasets, "radio", 2, settings='dataset = "Transcrispeech"')
    manifest = tmp_path / "train.csv"
    first = folder / SENTENCES[0]["file"]
    manifest.write_text(
        "audio,text,dataset,speaker\n"
        f"{first},Outra cousa ben distinta.,transcrispeech,ninguén\n"
        f'nowhere.wav,"{SENTENCES[1]["text"].upper()}",x,{SENTENCES[1]["voice"]}\n',
        encoding="utf-8",
    )
    found = fonoteca("evaluate", "--training", manifest, "--json")
    assert found.code == 0, found.err
    shared = {one["kind"]: one["n_utterances"] for one in json.loads(found.out)["overlap"]}
    assert shared == {"text": 1, "similar_text": 0, "audio": 1, "speaker": 0, "programme": 0}
    printed = fonoteca("evaluate", "--training", manifest).out
    assert "Transcrispeech, audio: 1 of 2 utterances" in printed
    assert "programme: not known in the set" in printed


def test_what_cannot_be_transcribed_is_named_and_left_out(fonoteca: Run, datasets: Path) -> None:
    folder = make_set(datasets, "radio", 2)
    (folder / SENTENCES[0]["file"]).write_bytes(b"not sound at all" * 100)
    found = fonoteca("evaluate")
    assert found.code == 1
    assert "1 utterance could not be transcribed" in found.err
    assert "radio: 000.flac left out: NotMedia" in found.out
    assert "radio" in found.out
    second = fonoteca("evaluate", "--again", "--json")
    assert json.loads(second.out)["sets"][0]["scores"]["basic"]["n_failed"] == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "holds no set 'nowhere' (there are: bad, radio)"),
        (["bad"], "bad/manifest.jsonl, line 1: 'x.wav'"),
        (["--training", "/nowhere/train.jsonl"], "/nowhere/train.jsonl: No such file"),
        (["--csv", "/nowhere/f.csv"], "the folder /nowhere does not exist"),
        (["radio", "--model", "/nowhere"], "/nowhere"),
        (["--datasets", "/nowhere"], "/nowhere: the folder of the held-out sets cannot be read"),
    ],
)
def test_errors_name_the_thing_and_the_reason(
    fonoteca: Run, datasets: Path, arguments: list[str], reason: str
) -> None:
    make_set(datasets, "radio", 1)
    (datasets / "bad").mkdir()
    (datasets / "bad" / "manifest.jsonl").write_text('{"audio": "../x.wav", "text": "si"}\n')
    found = fonoteca("evaluate", *arguments)
    assert found.code == 1
    assert reason.replace("'x.wav'", "'../x.wav' leads out of the set's folder") in found.err
    assert "unexpected error" not in found.err


def test_limit_is_a_beginning_that_the_whole_goes_on_from(fonoteca: Run, datasets: Path) -> None:
    make_set(datasets, "radio", 3)
    first = json.loads(fonoteca("evaluate", "--limit", 2, "--json").out)
    assert first["sets"][0]["scores"]["basic"]["n_utterances"] == 2
    assert not first["sets"][0]["is_complete"]
    whole = fonoteca("evaluate", "--json")
    assert "resumed, 2 of 3 utterances were there" in whole.err
    assert json.loads(whole.out)["sets"][0]["is_complete"]


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(
    fonoteca: Run, datasets: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 10
    make_set(datasets, "radio", n)
    monkeypatch.setenv("FONOTECA_GPU_SLOTS", "1")
    # killed without a chance to say goodbye
    storing_often = (
        "import evaluation.predict; evaluation.predict.STORE_UTTERANCES = 2; "
        "import cli.main; cli.main.main(['evaluate'])"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", storing_often],
        cwd=REPOSITORY,
        # the same code as here, also where somebody commits meanwhile
        env={**os.environ, "OMP_NUM_THREADS": "1", "FONOTECA_CODE_VERSION": code_version()},
        stderr=subprocess.PIPE,
        text=True,
    )

    def some() -> bool:
        assert killed.poll() is None, killed.communicate()
        return len(predictions(engine)) > 0

    assert wait_until(some, 120)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    after_kill = predictions(engine)
    assert 0 < len(after_kill) < n

    # then Ctrl-C, once something more is stored
    def press_ctrl_c(*_: object) -> Callable[[object], None]:
        return lambda _: signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("cli.evaluate._plain_lines", press_ctrl_c)
        patch.setattr("evaluation.predict.STORE_UTTERANCES", 3)
        stopped = fonoteca("evaluate")
    assert stopped.code == 130
    assert f"resumed, {len(after_kill)} of {n}" in stopped.err
    after_ctrl_c = predictions(engine)
    assert f"{len(after_ctrl_c)} of {n} utterances, and they are kept" in stopped.err
    assert len(after_kill) < len(after_ctrl_c) < n

    resumed = json.loads(fonoteca("evaluate", "--json").out)
    interrupted = predictions(engine)
    assert after_kill.items() <= after_ctrl_c.items() <= interrupted.items()
    with engine.connect() as connection:
        runs = connection.execute(text("SELECT count(*), count(finished_at) FROM evaluation_runs")).one()
        assert tuple(runs) == (1, 1)
        connection.execute(text("TRUNCATE evaluation_runs CASCADE"))
        connection.commit()
    whole = json.loads(fonoteca("evaluate", "--json").out)
    assert whole["sets"][0]["n_resumed"] == 0
    uninterrupted = predictions(engine)
    assert interrupted.keys() == uninterrupted.keys()
    for key, (_, written, token_ids, mean_logprob, flags) in uninterrupted.items():
        assert interrupted[key][1:3] == (written, token_ids)
        assert interrupted[key].flags == flags
        assert interrupted[key].mean_logprob == pytest.approx(mean_logprob, abs=1e-5)
    assert whole["sets"][0]["scores"] == resumed["sets"][0]["scores"]
