"""Where exported files go: inside the folder, never onto one another."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from cli.client import Recording
from cli.errors import CliError
from cli.export import Form, Wanted, safe_name, target_paths, write_atomically


def wanted(name: str, folder: str = "", recording_id: str = "1") -> Wanted:
    return Wanted(cast("Recording", {"id": recording_id, "name": name}), folder)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("2024/01/news.mp3", "2024/01/news.mp3"),
        ("/etc/passwd", "etc/passwd"),
        ("../../etc/passwd", "etc/passwd"),
        ("a/../../b", "a/b"),
        ("..", "recording"),
        ("", "recording"),
        ("a\\..\\b", "a_.._b"),
        ("c:news\n\x00.wav", "c_news__.wav"),
        ("Xornal de Galicia – 8 ás 9.wav", "Xornal de Galicia – 8 ás 9.wav"),
    ],
)
def test_names_stay_inside(name: str, safe: str) -> None:
    assert str(safe_name(name)) == safe


def test_long_names_keep_their_extension() -> None:
    name = safe_name("ñ" * 500 + ".wav")
    assert len(str(name).encode()) <= 200
    assert name.suffix == ".wav"


def test_the_extension_is_replaced_unless_two_would_meet(tmp_path: Path) -> None:
    paths = target_paths(
        [wanted("a/news.mp4"), wanted("b/x.wav"), wanted("b/X.mp3"), wanted(".wav"), wanted("v1.2")],
        Form.SRT,
        tmp_path,
    )
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "a/news.srt",
        "b/x.wav.srt",
        "b/X.mp3.srt",
        ".wav.srt",
        "v1.srt",
    ]


def test_one_name_from_two_batches_gets_the_ids(tmp_path: Path) -> None:
    paths = target_paths(
        [wanted("x.wav", recording_id="1"), wanted("x.wav", recording_id="2")], Form.TXT, tmp_path
    )
    assert [path.name for path in paths] == ["x.wav 1.txt", "x.wav 2.txt"]


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "jan").symlink_to(tmp_path)
    with pytest.raises(CliError, match="outside"):
        target_paths([wanted("jan/x.wav")], Form.TXT, folder)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    write_atomically(path, [b"o", b"ld"])

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, [b"new"])
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]
