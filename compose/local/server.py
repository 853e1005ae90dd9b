"""What the embedded servers have in common: started once, restarted in place, ended whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from compose.local.folders import FolderLock, SocketFolder


class EmbeddedServer(ABC):
    """A server on a data folder that one manager at a time may run. Subclasses bring it up and down."""

    _lock: FolderLock
    _socket: SocketFolder | None

    @abstractmethod
    def is_alive(self) -> bool:
        """Whether the server's main process runs."""

    @abstractmethod
    def _start(self) -> None:
        """Bring the server up and wait until it answers; the lock is held."""

    @abstractmethod
    def _end(self) -> None:
        """Bring the server down; raises StopError when it does not go."""

    def _prepare(self) -> None:
        """What must hold before the lock is taken."""
        return

    def start(self) -> Self:
        """Start the server and wait until it answers. Does nothing when it runs; restarts it when it died.

        Raises:
            AlreadyRunningError: another manager runs this data folder.
            BinariesMissingError: no programs for this platform.
            FolderError: the data folder is out of reach, of another owner or of another version.
            StartError: the server did not come up; the message holds its log's tail.
        """
        if self.is_alive():
            return self
        restart = self._lock.held
        if not restart:
            self._prepare()
            self._lock.acquire()
        try:
            self._start()
        except BaseException:
            if restart:
                self._end()  # keep the address: clients hold it, and the next try must be found there
            else:
                self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server: orderly, then by force. Does nothing when it does not run.

        Raises:
            StopError: the server could not be ended.
        """
        if not self._lock.held:
            return
        try:
            self._end()
        finally:
            if self._socket is not None:
                self._socket.remove()
                self._socket = None
            self._lock.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
