"""Free space of the disks that media pass through on this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class DiskLow:
    """A disk with less free space than is kept."""

    folder: Path
    free_bytes: int


def local_store_folder(storage_url: str) -> Path | None:
    """Folder of an object store that is one; None for a service."""
    parts = urlsplit(storage_url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def free_bytes(folder: Path) -> int:
    """Free space of the disk that holds `folder`, or will."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def is_same_disk(one: Path, other: Path) -> bool:
    """Whether two folders that exist lie on one disk."""
    return one.stat().st_dev == other.stat().st_dev


def find_low_disk(folders: list[Path], least_bytes: int) -> DiskLow | None:
    """The first of the folders whose disk has less than `least_bytes` free; None where all have more."""
    for folder in folders:
        free = free_bytes(folder)
        if free < least_bytes:
            return DiskLow(folder, free)
    return None
