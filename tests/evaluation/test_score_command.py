"""`fonoteca score` as a person and a script see it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jiwer
import pytest

from cli.main import main

REFS = ["o vento do norte", "choveu moito", "custou 20 €", ""]
GOOD = ["o vento do norte", "choveu moito", "custou vinte euros", ""]
BAD = ["o tempo do norte", "choveu", "custou vinte euros", "grazas"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, texts in (("refs", REFS), ("good", GOOD), ("bad", BAD)):
        rows = (json.dumps({"id": index, "text": text}) for index, text in enumerate(texts))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (tmp_path / "speakers.csv").write_text("id,cluster\n0,ana\n1,ana\n2,xan\n3,\n", encoding="utf-8")
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["score", *map(str, arguments)])
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def test_json_has_the_counts_and_both_normalisers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files / "refs.jsonl", files / "bad.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = jiwer.process_words(["o vento do norte", "choveu moito", "custou 20", ""], BAD)
    assert found["wer"] == expected.wer
    assert found["n_utterances"] == 4
    assert found["n_words"] == 8
    for name in ("hits", "substitutions", "deletions", "insertions"):
        assert found[name] == getattr(expected, name)
    assert found["insertions_on_empty"] == 1
    assert found["wer_ci95"][0] <= found["wer"] <= found["wer_ci95"][1]
    assert found["cer_ci95"][0] <= found["cer"] <= found["cer_ci95"][1]
    assert found["normalizer"] == "basic"
    assert found["galician"]["wer"] == pytest.approx(3 / 9)


def test_lines_and_ids_give_the_same(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for ending in ("txt", "jsonl"):
        run(files / f"refs.{ending}", files / f"bad.{ending}", "--json", "--normalizer", "galician")
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]
    assert outputs[0]["normalizer"] == "galician"


def test_the_table_shows_rates_counts_and_errors(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files / "refs.txt", files / "bad.txt", "--errors", "2") == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert lines["galician"][1:3] == ["9", "33.33"]
    assert "4 utterances; 95 % intervals over utterances" in shown
    assert "moito      ->  (nothing)" in shown
    assert "written where nothing was said" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_clusters_widen_nothing_but_the_interval(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(files / "refs.jsonl", files / "bad.jsonl", "--json", "--clusters", files / "speakers.csv")
    with_clusters = json.loads(capsys.readouterr().out)
    run(files / "refs.jsonl", files / "bad.jsonl", "--json")
    without = json.loads(capsys.readouterr().out)
    assert with_clusters["wer"] == without["wer"]
    assert with_clusters["wer_ci95"] != without["wer_ci95"]


@pytest.mark.parametrize("form", ["third file", "against"])
def test_two_sets_are_compared(files: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    refs, good, bad = (
        [f"{name} {index}" for index in range(60) for name in texts] for texts in ("ab", "ab", "xb")
    )
    for name, texts in (("refs", refs), ("good", good), ("bad", bad)):
        (files / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    second = (
        [files / "good.txt", files / "bad.txt"]
        if form == "third file"
        else [files / "bad.txt", "--against", files / "good.txt"]
    )
    assert run(files / "refs.txt", *second, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["b_is"] == "worse"
    assert found["wer_difference"] == pytest.approx(60 / 240)
    assert found["a"]["wer"] == 0
    assert found["matched_pairs"]["n_segments"] == 60
    run(files / "refs.txt", *second)
    assert "basic: B is worse than A" in capsys.readouterr().out


def test_csv_is_one_row_a_set_and_normaliser(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(files / "refs.txt", files / "good.txt", files / "bad.txt", "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(Path(row["file"]).name, row["normalizer"]) for row in rows] == [
        ("good.txt", "basic"),
        ("bad.txt", "basic"),
        ("good.txt", "galician"),
        ("bad.txt", "galician"),
    ]
    assert rows[0]["wer_difference"] == ""
    assert float(rows[1]["wer_difference"]) > 0


def test_infinite_rates_are_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.txt").write_text("\n", encoding="utf-8")
    (tmp_path / "h.txt").write_text("grazas\n", encoding="utf-8")
    run(tmp_path / "r.txt", tmp_path / "h.txt", "--json")
    assert json.loads(capsys.readouterr().out)["wer"] is None
    run(tmp_path / "r.txt", tmp_path / "h.txt")
    assert "inf" not in capsys.readouterr().out


def test_errors_are_one_line_and_name_the_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files / "refs.jsonl", files / "bad.txt") == 1
    assert run(files / "refs.txt", files / "none.txt") == 1
    assert (
        run(files / "refs.txt", files / "bad.txt", files / "good.txt", "--against", files / "good.txt") == 1
    )
    assert run(files / "refs.txt", files / "bad.txt", "--csv", "--json") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("fonoteca: ") for line in lines)
    assert "none.txt: No such file" in lines[1]
