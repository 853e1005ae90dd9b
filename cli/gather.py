"""The media files that a submission means: found, named, checked and hashed before anything is sent."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import CliError

READ_BYTES = 2**20
MAX_NAME_CHARS = 1024
MAX_FILES = 10_000
"""Most recordings that one batch takes."""


@dataclass(frozen=True)
class MediaFile:
    """A file to submit."""

    path: Path
    name: str
    """Its name in the batch: folders separated by `/`, Unicode NFC."""
    size_bytes: int
    modified_ns: int
    sha256: str = ""
    """Hex digest; empty until hashed."""


@dataclass(frozen=True)
class Refusal:
    """Why a file cannot be submitted."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass
class Found:
    """What a search of the paths gave."""

    files: list[MediaFile] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    skipped: list[Refusal] = field(default_factory=list)
    """Left out on purpose: links that leave the folder, devices, pipes."""


def find_files(paths: Sequence[Path], *, leave_out: Path | None = None) -> Found:
    """The files among `paths`, folders searched to the bottom, sorted by name.

    A file is named by itself; a file below a folder by its way from there, the folder's own name first. Hidden
    files and folders below a folder are left out, as is `leave_out`; a link is followed only to a file of the
    same folder.
    """
    found = Found()
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            found.refusals.append(Refusal(str(path), reason_of(error)))
            continue
        if stat.S_ISDIR(mode):
            _search(path, found)
        elif stat.S_ISREG(mode):
            _add(path, path.name, found)
        else:
            found.refusals.append(Refusal(str(path), "is neither a file nor a folder"))
    if leave_out is not None:
        found.files = [file for file in found.files if not _is_same(file.path, leave_out)]
    _check_names(found)
    found.files.sort(key=lambda file: file.name)
    return found


def _search(root: Path, found: Found) -> None:
    real_root = root.resolve()
    prefix = Path(os.path.abspath(root)).name  # noqa: PTH100 - resolve() would follow a link and lose its name

    def unreadable(error: OSError) -> None:
        found.refusals.append(Refusal(str(error.filename), reason_of(error)))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            link = here / name
            # os.walk does not enter links; what they show inside the folder is found on its own
            if link.is_symlink() and not link.resolve().is_relative_to(real_root):
                found.skipped.append(Refusal(str(link), f"links to {link.resolve()}, outside of {root}"))
        for name in sorted(names):
            path = here / name
            if name.startswith("."):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(real_root):
                found.skipped.append(Refusal(str(path), f"links to {path.resolve()}, outside of {root}"))
                continue
            try:
                mode = path.stat().st_mode
            except OSError as error:
                found.refusals.append(Refusal(str(path), reason_of(error)))
                continue
            if not stat.S_ISREG(mode):
                found.skipped.append(Refusal(str(path), "is a device, pipe or socket"))
                continue
            _add(path, "/".join((prefix, *path.relative_to(root).parts)).lstrip("/"), found)


def _add(path: Path, name: str, found: Found) -> None:
    status = path.stat()
    file = MediaFile(path, unicodedata.normalize("NFC", name), status.st_size, status.st_mtime_ns)
    fault = fault_of_name(file.name)
    if fault:
        found.refusals.append(Refusal(str(path), fault))
    elif file.size_bytes == 0:
        found.refusals.append(Refusal(str(path), "is empty: copy it again from its source, or leave it out"))
    else:
        found.files.append(file)


def fault_of_name(name: str) -> str | None:
    """Why a recording may not have this name; None when it may."""
    categories = {unicodedata.category(char) for char in name}
    if "Cs" in categories:
        return "its name is not valid UTF-8: rename it"
    if "\\" in name or not categories.isdisjoint({"Cc", "Zl", "Zp"}):
        return "its name has a backslash or a control character: rename it"
    if len(name) > MAX_NAME_CHARS:
        return f"its name with folders is longer than {MAX_NAME_CHARS} characters: submit a deeper folder"
    return None


def _check_names(found: Found) -> None:
    """Keep one of each name: the same file given twice counts once, two files of one name are refused."""
    first: dict[str, MediaFile] = {}
    for file in found.files:
        other = first.setdefault(file.name, file)
        if other is not file and not _is_same(other.path, file.path):
            found.refusals.append(
                Refusal(
                    str(file.path),
                    f"has the same name in the batch as {other.path} ({file.name}): "
                    "submit a folder above both, or each by itself",
                )
            )
    found.files = list(first.values())


def hash_file(file: MediaFile, on_bytes: Callable[[int], None]) -> str:
    """SHA-256 of a file, in hex. `on_bytes` hears the number of bytes of every piece read.

    Raises:
        OSError: it cannot be read.
        CliError: it changes while being read.
    """
    digest = hashlib.sha256()
    n_read = 0
    with file.path.open("rb", buffering=0) as media:
        while piece := media.read(READ_BYTES):
            digest.update(piece)
            n_read += len(piece)
            on_bytes(len(piece))
        require_unchanged(file, media.fileno())
    if n_read != file.size_bytes:
        raise changed(file)
    return digest.hexdigest()


def require_unchanged(file: MediaFile, descriptor: int) -> None:
    """Raise CliError when the file is not the one that was found."""
    status = os.fstat(descriptor)
    if (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.modified_ns):
        raise changed(file)


def changed(file: MediaFile) -> CliError:
    """The error for a file that is being written to."""
    return CliError(
        f"{file.path}: changed while it was being submitted: wait until it is written, then submit"
    )


def read_checksums(path: Path) -> dict[str, str]:
    """Names and hex digests of a `sha256sum` file (GNU or --tag form).

    Raises:
        CliError: unreadable, or a line is not a checksum.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise CliError(f"{path}: {reason_of(error)}") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"(\\?)([0-9A-Fa-f]{64}) [ *](.+)", line)
        tagged = re.fullmatch(r"(\\?)SHA256 \((.+)\) = ([0-9A-Fa-f]{64})", line)
        if found:
            escaped, digest, name = found.groups()
        elif tagged:
            escaped, name, digest = tagged.groups()
        else:
            raise CliError(
                f"{path}, line {number}: not a SHA-256 checksum and a name as `sha256sum` writes them: {line[:80]}"
            )
        if escaped:
            name = re.sub(r"\\([\\nr])", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)
        sums[name] = digest.lower()
    return sums


def against_checksums(
    files: Iterable[MediaFile], roots: Sequence[Path], sums_path: Path, sums: dict[str, str]
) -> list[Refusal]:
    """What a fixity file says against hashed `files`: other content, files it does not list, files gone.

    Its names count from its own folder, as sha256sum wrote them, or from the working folder, or are names in
    the batch, with or without the submitted folder's own name.
    """
    by_place: dict[str, str] = {}
    for name, digest in sums.items():
        by_place[os.path.realpath(name)] = digest
        by_place[os.path.realpath(sums_path.parent / name)] = digest
    by_name = {unicodedata.normalize("NFC", name.removeprefix("./")): sum_ for name, sum_ in sums.items()}
    refusals = []
    for file in files:
        expected = (
            by_place.get(os.path.realpath(file.path))
            or by_name.get(file.name)
            or by_name.get(file.name.partition("/")[2])
        )
        if expected is None:
            refusals.append(Refusal(str(file.path), f"is not listed in {sums_path}"))
        elif expected != file.sha256:
            refusals.append(
                Refusal(
                    str(file.path),
                    f"differs from {sums_path}: SHA-256 is {file.sha256}, listed is {expected}. "
                    "The file is damaged or was replaced: restore it, or correct the list",
                )
            )
    real_roots = [root.resolve() for root in roots if root.is_dir()]
    for name in sums:
        place = Path(os.path.realpath(sums_path.parent / name))
        if any(place.is_relative_to(root) for root in real_roots) and not place.exists():
            refusals.append(Refusal(str(place), f"is listed in {sums_path} but does not exist"))
    return refusals


def reason_of(error: OSError) -> str:
    """The system's words for what went wrong, for a sentence that names the file already."""
    return (error.strerror or str(error)).lower()


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
