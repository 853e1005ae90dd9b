"""A file that appears at its path only when it is whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self


class PartialFile(ABC):
    """Written beside its place and moved there when all went well; nothing is left otherwise. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".part")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abandon()

    def close(self) -> None:
        """Finish the file and put it in its place."""
        try:
            self._finish()
            self._release()
        except BaseException:  # a full disk
            self.abandon()
            raise
        self._partial.replace(self._path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._release()
        self._partial.unlink(missing_ok=True)

    @abstractmethod
    def _finish(self) -> None:
        """Write what is still to be written."""

    @abstractmethod
    def _release(self) -> None:
        """Close what is open."""
