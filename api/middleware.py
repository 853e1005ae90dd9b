"""Around every request: its id, its limits, the headers that protect a browser, its line in the log and metrics.

Written against ASGI itself: a wrapper that gathers bodies or runs the application in another task would break
the streaming of uploads and the keeping of what a vanished client sent.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import tus
from api.metrics import Metrics
from api.problems import BodyTooLarge, InternalError, problem_response

UPLOADS_PATH = "/v1/uploads"

MAX_JSON_BYTES = 32 * 2**20
"""Largest body outside uploads: a batch of 10,000 recordings with the longest names is below it."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

PROTECTING_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"})

log = structlog.get_logger("api.access")


class RequestMiddleware:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await Exchange(self._metrics, scope, receive, send).run(self._app)


class Exchange:
    """One request and its response."""

    def __init__(self, metrics: Metrics, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics = metrics
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_upload = scope["path"].startswith(UPLOADS_PATH)
        self._body_bytes = 0
        self._status = 0
        scope["request_id"] = str(uuid.uuid4())
        override = Headers(scope=scope).get("x-http-method-override", "").upper()
        if self._is_upload and scope["method"] == "POST" and override in {"PATCH", "DELETE", "HEAD"}:
            scope["method"] = override  # tus asks for it: some networks let GET and POST through only

    async def run(self, app: ASGIApp) -> None:
        """Pass the request on, and account for it."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._scope["request_id"])
        started_at = time.monotonic()
        request = Request(self._scope)
        try:
            declared = request.headers.get("content-length", "")
            if not self._is_upload and declared.isdecimal() and int(declared) > MAX_JSON_BYTES:
                problem = BodyTooLarge(
                    f"the body has {declared} bytes, the most is {MAX_JSON_BYTES}: send fewer recordings per batch"
                )
                await problem_response(request, problem)(self._scope, self._receive, self._outgoing)
            else:
                await app(self._scope, self._incoming, self._outgoing)
        except Exception:
            log.exception("request_failed", method=self._scope["method"], path=self._scope["path"])
            if self._status:
                raise  # the answer has begun: only closing the connection can tell the client
            await problem_response(request, InternalError())(self._scope, self._receive, self._outgoing)
        finally:
            self._account(time.monotonic() - started_at)

    async def _incoming(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            if not self._is_upload and self._body_bytes > MAX_JSON_BYTES:
                raise HTTPException(413, f"the body has more than {MAX_JSON_BYTES} bytes")
        return message

    async def _outgoing(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._scope["request_id"]
            for name, value in PROTECTING_HEADERS.items():
                headers.setdefault(name, value)
            if not self._scope["path"].startswith("/static/"):
                headers.setdefault("Cache-Control", "no-store")
            if self._is_upload:
                headers["Tus-Resumable"] = tus.VERSION
        await self._send(message)

    def _account(self, duration_s: float) -> None:
        # templates, not paths: an id in a label would make a time series of its own
        route: Any = self._scope.get("route")
        template = getattr(route, "path", None) or "unmatched"
        method = self._scope["method"] if self._scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, template, str(self._status)).inc()
        self._metrics.duration_s.labels(method, template).observe(duration_s)
        self._metrics.body_bytes.inc(self._body_bytes)
        # the path without its query: nothing that could be a secret
        log.info(
            "http_request",
            method=method,
            path=self._scope["path"],
            status=self._status,
            duration_ms=round(duration_s * 1000, 1),
            body_bytes=self._body_bytes,
        )
