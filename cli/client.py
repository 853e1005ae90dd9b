"""The HTTP API, as commands use it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NotRequired, Required, TypedDict
from urllib.parse import quote, urlsplit

from cli.errors import CliError

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
VIEW_TIMEOUT_S = 330.0
"""Until a view gives more bytes: longer than the server works on a row."""
PAGE_LENGTH = 200
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""Answers that may be different a little later."""


class RecordingFacts(TypedDict, total=False):
    """What a submitter may tell of a recording besides its file."""

    programme: str
    programme_kind: str
    broadcast_on: str
    timecode_offset: str
    audio_track: str


class NewRecording(RecordingFacts):
    """One recording of a batch to be made."""

    name: Required[str]
    size_bytes: Required[int]
    sha256: Required[str]


class UnfinishedUpload(TypedDict):
    url: str
    offset_bytes: int


class Failure(TypedDict):
    code: str | None
    reason: str


class Coverage(TypedDict):
    transcribed_s: float
    no_speech_s: float
    failed_s: float


class Recording(TypedDict):
    """One media file as the API shows it."""

    id: str
    batch_id: str
    name: str
    programme: str | None
    programme_kind: str | None
    broadcast_on: str | None
    timecode_offset: str | None
    state: str
    size_bytes: int
    sha256: str | None
    duration_s: float | None
    failure: Failure | None
    upload: UnfinishedUpload | None
    segment_counts: dict[str, int]
    coverage: Coverage | None
    created_at: str
    received_at: str | None
    finished_at: str | None


class Batch(TypedDict):
    """Recordings submitted together, as the API shows them."""

    id: str
    name: str
    priority: str
    created_at: str
    recording_counts: dict[str, int]
    segment_counts: dict[str, int]
    audio_s: dict[str, float]
    finished: bool
    paused: bool
    eta: NotRequired[Eta | None]
    """Of one batch that was asked for."""


class Eta(TypedDict):
    """When a batch will be done."""

    eta_s: float | None
    reason: str | None
    audio_left_s: float
    audio_before_s: float
    rtfx: float


class NewCorrection(TypedDict):
    """What a person says is said in a segment."""

    segment_id: int
    text: str
    corrected_by: str


class ServerUnreachable(CliError):
    """No answer came: wrong address, server down, connection cut, or too slow."""


class ApiProblem(CliError):
    """The server refused; the message is the problem's detail (RFC 9457)."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None,
        content: Mapping[str, Any],
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.content = content
        self.retry_after_s = retry_after_s
        """When the server says that asking again makes sense."""

    @property
    def is_transient(self) -> bool:
        """True when asking again later may succeed."""
        return self.status in TRANSIENT_STATUS


class ApiClient:
    """One server and one API key. Safe to use from several threads."""

    def __init__(self, server: str, api_key: str) -> None:
        import httpx

        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CliError(f"{server!r} is not a server's address: write it as http://host:port")
        self.server = server.rstrip("/")
        is_loopback = parts.hostname == "localhost" or parts.hostname.startswith("127.")
        self._http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "fonoteca-cli"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # a proxy of the environment cannot reach this machine's own stack
            trust_env=not is_loopback,
        )

    @classmethod
    def connect(cls, server: str | None = None) -> ApiClient:
        """A client for `server`, FONOTECA_SERVER, or the embedded stack that runs in FONOTECA_HOME.

        The embedded stack's own key is sent to the embedded stack only.

        Raises:
            CliError: no server, or no key for it.
        """
        from db.settings import Settings

        settings = Settings()
        own_server = settings.stack.get("api_url")
        server = server or os.environ.get("FONOTECA_SERVER") or own_server
        if not server:
            raise CliError(
                f"no server to talk to: no embedded stack runs in {settings.home}. "
                "Start one with `fonoteca up`, or set FONOTECA_SERVER to the address of yours"
            )
        api_key = os.environ.get("FONOTECA_API_KEY")
        if not api_key and own_server and server.rstrip("/") == own_server.rstrip("/"):
            api_key = settings.stack.get("api_key")
        if not api_key:
            raise CliError(
                f"no API key for {server}: set FONOTECA_API_KEY. "
                "The server's operator makes keys with `fonoteca keys create BROADCASTER`"
            )
        if not api_key.isascii() or not api_key.isprintable():
            raise CliError(
                "the API key holds characters that no key has: copy it again, as one line, into FONOTECA_API_KEY"
            )
        return cls(server, api_key)

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_batch(
        self, *, name: str, priority: str, recordings: list[NewRecording], idempotency_key: str
    ) -> tuple[Batch, bool]:
        """Make a batch; the same key and content again give the same batch. True: it existed already."""
        answer = self.send(
            "POST",
            "/v1/batches",
            json={"name": name, "priority": priority, "recordings": recordings},
            headers={"Idempotency-Key": idempotency_key},
        )
        batch: Batch = self._json(answer)
        return batch, answer.headers.get("Idempotency-Replayed") == "true"

    def batches(self) -> Iterator[Batch]:
        """Every batch, newest first, fetched page by page."""
        yield from self._pages("/v1/batches")

    def batch(self, batch_id: str) -> Batch:
        """One batch with its counts."""
        batch: Batch = self._json(self.send("GET", f"/v1/batches/{quote(batch_id, safe='')}"))
        return batch

    def recordings(self, batch_id: str) -> Iterator[Recording]:
        """Every recording of a batch, fetched page by page."""
        yield from self._pages(f"/v1/batches/{quote(batch_id, safe='')}/recordings")

    def recording(self, recording_id: str) -> Recording:
        """One recording."""
        recording: Recording = self._json(self.send("GET", f"/v1/recordings/{quote(recording_id, safe='')}"))
        return recording

    def attempts(self, recording_id: str) -> Iterator[dict[str, Any]]:
        """What was tried with a recording, oldest first, fetched page by page."""
        yield from self._pages(f"/v1/recordings/{quote(recording_id, safe='')}/attempts")

    def transcript(self, recording_id: str, form: str, *, timecode_offset: str | None = None) -> bytes:
        """A recording's current transcript as json, txt, srt, vtt, ttml or ctm."""
        path = f"/v1/recordings/{quote(recording_id, safe='')}/transcript"
        query = (
            {"format": form}
            if timecode_offset is None
            else {"format": form, "timecode_offset": timecode_offset}
        )
        return self.send("GET", path, params=query).content

    @contextmanager
    def view(self, name: str, query: Mapping[str, str | Sequence[str]]) -> Iterator[Iterator[bytes]]:
        """A view of the archive as a file: its bytes as they come.

        Raises:
            ServerUnreachable: no answer came, or the file ended early.
            ApiProblem: the server refused.
        """
        import httpx

        path = f"/v1/archive/{quote(name, safe='')}"
        timeout = httpx.Timeout(VIEW_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream("GET", path, params=dict(query), timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._problem(answer)
                yield answer.iter_bytes()
        except httpx.TransportError as error:
            raise ServerUnreachable(
                f"view {name} did not arrive whole from {self.server} ({_reason(error)}): "
                "try again, or ask for fewer recordings or days"
            ) from error

    def search(self, query: Mapping[str, str | int]) -> dict[str, Any]:
        """One page of passages in which something was said; `query` as `GET /v1/search` takes it."""
        page: dict[str, Any] = self._json(self.send("GET", "/v1/search", params=query))
        return page

    def draw_segments(self, n: int) -> list[dict[str, Any]]:
        """Draw segments for correction."""
        drawn: list[dict[str, Any]] = self._json(self.send("POST", "/v1/correction-draws", json={"n": n}))[
            "items"
        ]
        return drawn

    def open_draws(self) -> Iterator[dict[str, Any]]:
        """Every drawn segment that nobody has corrected, fetched page by page."""
        yield from self._pages("/v1/correction-draws")

    def corrections(self, *, with_older: bool = False) -> Iterator[dict[str, Any]]:
        """Every correction, oldest first, fetched page by page."""
        yield from self._pages("/v1/corrections", with_older=with_older)

    def send_corrections(self, items: list[NewCorrection]) -> dict[str, int]:
        """Store up to 1,000 corrections, all or none."""
        stored: dict[str, int] = self._json(self.send("POST", "/v1/corrections", json={"items": items}))
        return stored

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request; httpx's own arguments follow.

        Raises:
            ServerUnreachable: no answer came.
            ApiProblem: the server refused.
        """
        import httpx

        try:
            answer = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise ServerUnreachable(
                f"no answer from {self.server} ({_reason(error)}): "
                "start a server with `fonoteca up`, or set FONOTECA_SERVER to the address of yours"
            ) from error
        if answer.is_success:
            return answer
        raise self._problem(answer)

    def _problem(self, answer: httpx.Response) -> CliError:
        """The error that an answer without success stands for."""
        said = f"{answer.status_code} {answer.reason_phrase}".strip()
        asked = f"{answer.request.method} {answer.request.url.path}"
        if answer.is_redirect:
            return CliError(
                f"{self.server} sends {asked} on to {answer.headers.get('Location')}: "
                "set FONOTECA_SERVER to the address that it really has"
            )
        content: Mapping[str, Any] = {}
        # media type, not attempt: a proxy's error page must not pass for the server's word
        if answer.content and answer.headers.get("Content-Type", "").startswith("application/problem+json"):
            content = self._json(answer)
        message = str(content.get("detail") or content.get("title") or "")
        if not message:
            message = f"{self.server} answered {said} to {asked}: see the server's log, or check its address"
        for fault in content.get("errors") or ():
            message += f"\n  {fault.get('pointer', '')}: {fault.get('detail', '')}"
        told = answer.headers.get("Retry-After", "")
        return ApiProblem(
            message,
            status=answer.status_code,
            code=content.get("code"),
            content=content,
            retry_after_s=float(told) if told.isdecimal() else None,
        )

    def _pages(self, path: str, **query: str | int) -> Iterator[Any]:
        after: str | None = None
        while True:
            params: dict[str, str | int] = {"limit": PAGE_LENGTH, **query}
            if after is not None:
                params["after"] = after
            page = self._json(self.send("GET", path, params=params))
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise CliError(
                f"{self.server} does not answer like a Fonoteca server "
                f"({answer.headers.get('Content-Type', 'no content type')}): check FONOTECA_SERVER"
            ) from None


def _reason(error: Exception) -> str:
    """Why no answer came, in a few words."""
    import httpx

    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    # httpx hides the system's error two causes deep
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
