"""`fonoteca clip`: a passage as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.clip import Form, _name_of, seconds
from db.media_store import MediaStore, working_copy_key
from speech.working_copy import WorkingCopyWriter
from tests.cli.conftest import Ended
from tests.speech.test_clip import tone


def test_clip(
    fonoteca: Callable[..., Ended],
    api: str,
    make_transcript: Callable[..., Any],
    media_store: MediaStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_transcript(name="vello/día 1.wav", duration_s=90)
    with WorkingCopyWriter(tmp_path / "copy.flac") as writer:
        writer.write(tone(90, 0.1))
    media_store.put_file(working_copy_key(made.owner.id, made.id, 1), tmp_path / "copy.flac")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = fonoteca("clip", str(made.id), "1:05", "0:01:10.5")
    assert done.code == 0, done.err
    (file,) = Path().iterdir()
    assert file.name == "día 1_00-01-05_00-01-10.mp3"
    assert file.name in done.err
    named = fonoteca("clip", str(made.id), "65", "70", "--format", "opus", "-o", "x.ogg")
    assert named.code == 0, named.err
    assert Path("x.ogg").read_bytes().startswith(b"OggS")
    refused = fonoteca("clip", str(made.id), "70", "65")
    assert refused.code == 1
    assert "within its 90.000 s" in refused.err
    assert "is no place in a recording" in fonoteca("clip", str(made.id), "1:75", "2:00").err


def test_places_are_written_as_people_do() -> None:
    written = {"90": 90, "90.25": 90.25, "1:30": 90, "01:01:30.5": 3690.5, "100:00:00": 360_000, "600": 600}
    assert {text: seconds(text) for text in written} == written
    for wrong in ("", "1:", ":30", "1:60", "1:60:00", "1:2:3:4", "-5", "nan", "1e3"):
        with pytest.raises(typer.BadParameter):
            seconds(wrong)


def test_the_servers_name_opens_no_folder() -> None:
    assert _name_of("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", Form.MP3) == "_.._etc_passwd"
    assert _name_of("attachment", Form.OPUS) == "clip.opus"
