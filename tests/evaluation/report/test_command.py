"""`fonoteca report`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from tests.evaluation.report.conftest import MadeReport


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`command(*arguments)`: exit code, stdout, stderr of `fonoteca report`."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["report", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def _environment(made: MadeReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", made.database_url)
    monkeypatch.setenv("FONOTECA_STORAGE_URL", made.store.url)


@pytest.mark.usefixtures("_environment")
def test_it_prints_the_newest_night_as_text(
    command: Callable[..., tuple[int, str, str]], made: MadeReport
) -> None:
    code, out, _ = command()
    assert code == 0
    assert out == made.read("report.gl.txt")
    assert command("--date", "2026-11-22", "--language", "en")[1] == made.read("report.en.txt")


@pytest.mark.usefixtures("_environment")
def test_json_and_files(
    command: Callable[..., tuple[int, str, str]], made: MadeReport, tmp_path: Path
) -> None:
    assert json.loads(command("--json")[1]) == made.written.document
    target = tmp_path / "page.html"
    code, out, err = command("--out", target, "--language", "es")
    assert (code, out) == (0, "")
    assert str(target) in err
    assert target.read_text() == made.read("report.es.html")
    command("--out", target, "--json")
    assert json.loads(target.read_text()) == made.written.document


@pytest.mark.usefixtures("_environment")
def test_a_page_that_is_gone_is_made_again(
    command: Callable[..., tuple[int, str, str]], made: MadeReport, tmp_path: Path
) -> None:
    kept = made.read("report.en.html")
    (made.folder / "report.en.html").unlink()
    try:
        command("--out", tmp_path / "page.html", "--language", "en")
        assert (tmp_path / "page.html").read_text() == kept
    finally:
        (made.folder / "report.en.html").write_text(kept)


@pytest.mark.usefixtures("_environment")
def test_it_opens_the_page_where_it_lies(
    command: Callable[..., tuple[int, str, str]],
    made: MadeReport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    # Python reads BROWSER once
    monkeypatch.setattr("webbrowser._tryorder", None)
    monkeypatch.setattr("webbrowser._browsers", {})
    code, out, _ = command("--open")
    assert (code, out) == (0, "")
    assert opened.read_text().strip() == (made.folder / "report.gl.html").as_uri()


@pytest.mark.usefixtures("_environment")
def test_errors_say_what_to_do(command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command("--date", "2026-11-20")
    assert code == 1
    assert "there is no report of 2026-11-20; the nearest: 2026-11-22" in err
    assert "YYYY-MM-DD" in command("--date", "yesterday")[2]
    assert "one of --json and --text" in command("--json", "--text")[2]


def test_without_any_night_it_says_when_there_will_be_one(
    command: Callable[..., tuple[int, str, str]],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", database_url)
    monkeypatch.setenv("FONOTECA_STORAGE_URL", f"file://{tmp_path}")
    code, _, err = command()
    assert code == 1
    assert "there is no report yet" in err
    assert "fonoteca night run" in err
