"""A file that is made while it is sent: piece by piece from a thread, ended by whoever goes away or reads nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import anyio
import structlog
from anyio import to_thread
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

SEND_TIMEOUT_S = 60.0
"""A client that takes nothing for so long is cut off, and what it held is given back."""

log = structlog.get_logger(__name__)


class Pieces:
    """A file's pieces from a source that holds something dear. Closed exactly once, from whichever thread."""

    def __init__(
        self, pieces: Iterator[bytes], *, cancel: Callable[[], None], close: Callable[[], None]
    ) -> None:
        """`cancel` ends, from another thread, a piece that is being made; `close` gives everything back."""
        self._pieces = pieces
        self._cancel = cancel
        self._close = close
        self._lock = threading.Lock()
        self._closed = False
        self._ended = False

    def next(self) -> bytes | None:
        """The next piece that has bytes; None at the end."""
        with self._lock:
            while not (self._closed or self._ended):
                piece = next(self._pieces, None)
                if piece:
                    return piece
                self._ended = piece is None
            return None

    def close(self) -> None:
        """Stop what is being made, and give everything back."""
        if self._closed:
            return
        self._closed = True
        if not self._ended:
            try:
                self._cancel()
            except Exception as error:
                log.warning("export_not_cancelled", error=str(error))
        with self._lock:
            self._close()


class StreamedFile(Response):
    """Sends pieces as they are made. Its first piece is made before: an error until then is a proper answer."""

    def __init__(self, first: bytes | None, pieces: Pieces, *, media_type: str, file_name: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self.headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
        self._first = first
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                try:
                    await self._send_all(send)
                except Exception as error:
                    failure = error  # a task group would wrap it
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._pieces.close)
        if failure is not None:
            # the connection is closed without the last chunk: the client sees that the file ended early
            raise failure

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        piece = self._first
        while piece is not None:
            await self._send_in_time(send, {"type": "http.response.body", "body": piece, "more_body": True})
            piece = await to_thread.run_sync(self._pieces.next, abandon_on_cancel=True)
        await self._send_in_time(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_in_time(self, send: Send, message: Message) -> None:
        with anyio.fail_after(SEND_TIMEOUT_S):
            await send(message)
