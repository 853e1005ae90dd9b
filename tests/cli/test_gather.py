"""Which files a submission means, and which it refuses."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import pytest

from cli.errors import CliError
from cli.gather import (
    MediaFile,
    against_checksums,
    fault_of_name,
    find_files,
    hash_file,
    read_checksums,
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with what archives hold."""
    folder = tmp_path / "arquivo"
    for name in ("01/noticias.wav", "01/deportes.mp3", "02/noticias.wav"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content of {name}".encode())
    return folder


def names(paths: list[Path]) -> list[str]:
    found = find_files(paths)
    assert not found.refusals
    return [file.name for file in found.files]


def hashed(paths: list[Path]) -> list[MediaFile]:
    found = find_files(paths).files
    return [
        MediaFile(f.path, f.name, f.size_bytes, f.modified_ns, hash_file(f, lambda n: None)) for f in found
    ]


def test_names_are_relative_with_the_folder_first(archive: Path) -> None:
    expected = ["arquivo/01/deportes.mp3", "arquivo/01/noticias.wav", "arquivo/02/noticias.wav"]
    assert names([archive]) == expected
    assert names([archive / "01" / ".." / "01"]) == ["01/deportes.mp3", "01/noticias.wav"]


def test_the_working_folder_is_named(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive / "01")
    assert names([Path()]) == ["01/deportes.mp3", "01/noticias.wav"]
    assert names([Path("deportes.mp3")]) == ["deportes.mp3"]


def test_names_are_nfc(tmp_path: Path) -> None:
    """macOS hands out decomposed names; the same file must have the same name from anywhere."""
    path = tmp_path / unicodedata.normalize("NFD", "xúri.wav")
    path.write_bytes(b"x")
    assert names([path]) == ["xúri.wav"]


def test_hidden_files_are_left_out(archive: Path) -> None:
    (archive / ".DS_Store").write_bytes(b"x")
    (archive / ".trash").mkdir()
    (archive / ".trash" / "old.wav").write_bytes(b"x")
    assert len(names([archive])) == 3


def test_links_are_followed_inside_the_folder_only(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "keys.txt").write_bytes(b"x")
    (archive / "out").symlink_to(tmp_path / "secret")
    (archive / "out.txt").symlink_to(tmp_path / "secret" / "keys.txt")
    (archive / "loop").symlink_to(archive)
    (archive / "again.wav").symlink_to(archive / "01" / "noticias.wav")
    found = find_files([archive])
    assert [file.name for file in found.files if "01" not in file.name and "02" not in file.name] == [
        "arquivo/again.wav"
    ]
    assert sorted(Path(left.path).name for left in found.skipped) == ["out", "out.txt"]
    assert not found.refusals


def test_pipes_are_not_opened(archive: Path) -> None:
    os.mkfifo(archive / "pipe")
    found = find_files([archive])
    assert len(found.files) == 3
    assert [left.reason for left in found.skipped] == ["is a device, pipe or socket"]
    assert find_files([archive / "pipe"]).refusals


def test_every_fault_is_listed(archive: Path, tmp_path: Path) -> None:
    (archive / "empty.wav").touch()
    (archive / "broken.wav").symlink_to(archive / "gone.wav")
    (archive / "back\\slash.wav").write_bytes(b"x")
    (Path(os.fsdecode(os.fsencode(archive) + b"/\xff.wav"))).write_bytes(b"x")
    found = find_files([archive, tmp_path / "missing.wav"])
    reasons = {Path(refusal.path).name: refusal.reason for refusal in found.refusals}
    assert "is empty" in reasons["empty.wav"]
    assert reasons["broken.wav"] == "no such file or directory"
    assert reasons["missing.wav"] == "no such file or directory"
    assert "backslash" in reasons["back\\slash.wav"]
    assert "UTF-8" in reasons["\udcff.wav"]
    assert len(found.files) == 3


def test_two_files_of_one_name_are_refused_and_one_given_twice_is_not(archive: Path) -> None:
    one = archive / "01" / "noticias.wav"
    assert names([one, one, archive / "01" / ".." / "01" / "noticias.wav"]) == ["noticias.wav"]
    found = find_files([one, archive / "02" / "noticias.wav"])
    assert "same name" in found.refusals[0].reason


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\\b", "a\udcff", "x" * 1025])
def test_bad_names(name: str) -> None:
    assert fault_of_name(name)


def test_a_changing_file_is_refused(archive: Path) -> None:
    file = find_files([archive]).files[0]
    file.path.write_bytes(b"other content, other size")
    with pytest.raises(CliError, match="changed while"):
        hash_file(file, lambda n: None)


def test_hashing_tells_its_bytes(archive: Path) -> None:
    file = find_files([archive]).files[0]
    heard: list[int] = []
    assert hash_file(file, heard.append) == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert sum(heard) == file.size_bytes


def sums_of(folder: Path, paths: list[Path]) -> str:
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(folder)}\n" for path in paths
    )


@pytest.mark.parametrize("place", ["inside", "above", "elsewhere"])
def test_checksums_that_agree(archive: Path, tmp_path: Path, place: str) -> None:
    files = [path for path in archive.rglob("*") if path.is_file()]
    if place == "inside":
        sums_path, text = archive / "SHA256SUMS", sums_of(archive, files)
    elif place == "above":
        sums_path, text = tmp_path / "SHA256SUMS", sums_of(tmp_path, files)
    else:
        (tmp_path / "fixity").mkdir()
        sums_path, text = tmp_path / "fixity" / "SHA256SUMS", sums_of(archive, files)
    sums_path.write_text(text)
    found = [file for file in hashed([archive]) if file.path != sums_path]
    assert against_checksums(found, [archive], sums_path, read_checksums(sums_path)) == []
    assert len(find_files([archive], leave_out=sums_path).files) == 3


def test_checksums_that_differ_lack_or_list_too_much(archive: Path) -> None:
    first, second, third = sorted(path for path in archive.rglob("*") if path.is_file())
    sums_path = archive.parent / "fixity.txt"
    sums_path.write_text(sums_of(archive, [first, third]) + f"{'0' * 64} *arquivo/03/lost.wav\n")
    first.write_bytes(b"damaged")
    third.write_bytes(b"replaced")
    refusals = against_checksums(hashed([archive]), [archive], sums_path, read_checksums(sums_path))
    reasons = {refusal.path: refusal.reason for refusal in refusals}
    assert "differs" in reasons[str(first)]
    assert "not listed" in reasons[str(second)]
    assert "differs" in reasons[str(third)]
    assert "does not exist" in reasons[str(archive.resolve() / "03" / "lost.wav")]


def test_forms_of_checksum_files(tmp_path: Path) -> None:
    digest = "ab" * 32
    path = tmp_path / "sums"
    path.write_text(
        f"# comment\n\n{digest.upper()}  a b.wav\r\n{digest} *bin.wav\n\\{digest}  new\\nline\n"
        f"SHA256 (tagged (1).wav) = {digest}\n"
    )
    assert read_checksums(path) == dict.fromkeys(
        ["a b.wav", "bin.wav", "new\nline", "tagged (1).wav"], digest
    )
    path.write_text("d41d8cd98f00b204e9800998ecf8427e  md5.wav\n")
    with pytest.raises(CliError, match="line 1: not a SHA-256"):
        read_checksums(path)
