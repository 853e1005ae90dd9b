"""`fonoteca export` against the real API: subtitles with their offset, and views as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import Said


def test_transcripts_and_views(
    fonoteca: Callable[..., Any],
    api: str,
    make_transcript: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_transcript(
        [Said(1.0, 3.0, "Boas noites."), Said(4, 6, "Ata mañá.")],
        name="novas.wav",
        timecode_offset_ms=36_000_000,
    )
    other = make_transcript(name="outra.wav")
    monkeypatch.chdir(tmp_path)

    # transcripts
    assert fonoteca("export", made.id, "-f", "ttml").code == 0
    assert 'begin="10:00:01.000"' in Path("transcripts/novas.ttml").read_text(encoding="utf-8")
    shown = fonoteca("export", made.id, "-f", "srt", "-o", "-", "--timecode-offset", "0").out
    assert "00:00:01,000 --> " in shown
    assert fonoteca("export", made.id, "-f", "ctm").code == 0
    assert "novas 1 1.000 0.727 Boas 0.951" in Path("transcripts/novas.ctm").read_text(encoding="utf-8")

    # views
    ended = fonoteca("export", "--view", "segments", "-f", "parquet", "-o", "out/segments.parquet")
    assert (ended.code, ended.out) == (0, "out/segments.parquet\n")
    assert pq.read_table("out/segments.parquet").num_rows == 3
    assert fonoteca("export", "--view", "words").code == 0
    assert len(Path("words.csv").read_text(encoding="utf-8").splitlines()) > 4
    ended = fonoteca(
        "export", "--view", "segments", made.id, "--columns", "text,start_timecode", "-f", "ndjson", "-o", "-"
    )
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {"text": "Boas noites.", "start_timecode": "10:00:01.000"},
        {"text": "Ata mañá.", "start_timecode": "10:00:04.000"},
    ]
    ended = fonoteca(
        "export", "--view", "recordings", "--batch", other.batch_id, "--columns", "recording", "-o", "-"
    )
    assert ended.out.split() == ["recording", "outra.wav"]
    ended = fonoteca("export", "--view", "segments", "--to", "1999-12-31", "--columns", "text", "-o", "-")
    assert ended.out.split() == ["text"]

    # what is refused, and leaves nothing behind
    ended = fonoteca("export", "--view", "words")
    assert (ended.code, "words.csv exists: --force overwrites it" in ended.err) == (1, True)
    assert fonoteca("export", "--view", "words", "--force", "--json").code == 0
    ended = fonoteca("export", "--view", "api_keys")
    assert (ended.code, "there is no view 'api_keys': there are" in ended.err) == (1, True)
    ended = fonoteca("export", "--view", "segments", "--columns", "nothing")
    assert (ended.code, "'nothing' is none of its columns" in ended.err) == (1, True)
    ended = fonoteca("export", "--view", "segments", "-o", "out")
    assert (ended.code, "out is a folder" in ended.err) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} - {"home", "media", "uploads"} == {
        "out",
        "transcripts",
        "words.csv",
    }
    for arguments, reason in (
        (["--view", "segments", "-f", "srt"], "a view is csv, parquet or ndjson"),
        ([made.id, "-f", "csv"], "--format csv is for views"),
        ([made.id, "--columns", "text"], "are for views"),
        ([made.id, "--timecode-offset", "10h"], "write what the clock shows"),
        (["--view", "segments", "--all"], "are for transcripts"),
    ):
        ended = fonoteca("export", *arguments)
        assert (ended.code, reason in " ".join(ended.err.replace("│", " ").split())) == (2, True), ended.err


def test_a_view_that_breaks_off_leaves_no_file(
    fonoteca: Callable[..., Any],
    api: str,
    make_transcript: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_off(file_format: object, columns: object, rows: object, about: object) -> Any:
        yield b"text\r\n"
        yield b"Boas"
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("api.archive_export.write_file", break_off)
    monkeypatch.chdir(tmp_path)
    ended = fonoteca("export", "--view", "segments")
    assert (ended.code, "did not arrive whole" in ended.err) == (1, True)
    assert list(tmp_path.glob("*.csv")) == list(tmp_path.glob(".export-*")) == []


def test_submit_says_what_the_clock_showed(fonoteca: Callable[..., Any], api: str, tmp_path: Path) -> None:
    """For all files of the command; another offset is another request."""
    tape = tmp_path / "novas.wav"
    tape.write_bytes(b"RIFF not really audio")
    command = ["submit", tape, "--no-wait", "--json", "--timecode-offset"]
    ended = fonoteca(*command, "09:58:30.040")
    assert ended.code == 0, ended.err
    assert [each["timecode_offset"] for each in json.loads(ended.out)["recordings"]] == ["09:58:30.040"]
    ended = fonoteca(*command, "10:00:00")
    assert (ended.code, "with another --programme" in ended.err, "--timecode-offset" in ended.err) == (
        1,
        True,
        True,
    )
    assert fonoteca(*command, "10").code == 2
