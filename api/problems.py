"""Errors as RFC 9457 problem details. One class per fact; `code` is stable, `detail` is for a person.

Every detail names the thing, the reason and what to do about it. `type` points at the list in /docs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

CONTENT_TYPE = "application/problem+json"

log = structlog.get_logger(__name__)


class Problem(Exception):
    """An error that a client is told about."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members
        """More members of the problem object, e.g. `url`."""


class UnknownApiKey(Problem):
    status, code, title = 401, "unknown_api_key", "Unknown API key"

    def __init__(self) -> None:
        super().__init__(
            "no valid API key came with the request: send `Authorization: Bearer fono_...` with a key that has "
            "not been revoked",
            headers={"WWW-Authenticate": "Bearer"},
        )


class BatchNotFound(Problem):
    status, code, title = 404, "batch_not_found", "Batch not found"

    def __init__(self, batch_id: object) -> None:
        super().__init__(f"there is no batch {batch_id}: list the batches at /v1/batches")


class RecordingNotFound(Problem):
    status, code, title = 404, "recording_not_found", "Recording not found"

    def __init__(self, recording_id: object) -> None:
        super().__init__(f"there is no recording {recording_id}: list a batch's recordings to see their ids")


class ValidationFailed(Problem):
    status, code, title = 422, "validation_failed", "The request does not have the right form"


class BodyTooLarge(Problem):
    status, code, title = 413, "body_too_large", "The request's body is too large"


class DatabaseUnavailable(Problem):
    status, code, title = 503, "database_unavailable", "The database cannot be reached"

    def __init__(self) -> None:
        super().__init__(
            "the database does not answer just now; nothing was changed: try again in a few seconds",
            headers={"Retry-After": "5"},
        )


class InternalError(Problem):
    """Anything unforeseen. Says nothing of the inside; the log has it under the request's id."""

    def __init__(self) -> None:
        super().__init__(
            "the server failed on this request: try again, and if it fails again, "
            "give the request id to whoever runs this server"
        )


def known_problems() -> list[type[Problem]]:
    """Every problem of the API, by status and code."""
    found: list[type[Problem]] = []
    classes = list(Problem.__subclasses__())
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        found.append(cls)
    return sorted(found, key=lambda cls: (cls.status, cls.code))


def response_for(
    request: Request,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """A problem as a response: HTML for a person in front of a browser, JSON for everything else."""
    content: dict[str, Any] = {
        "type": f"/docs#{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "request_id": request.scope.get("request_id", ""),
        **(members or {}),
    }
    if not request.url.path.startswith("/v1") and "text/html" in request.headers.get("accept", ""):
        page: Response = request.app.state.error_page(request, content, headers)
        return page
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=CONTENT_TYPE)


def problem_response(request: Request, problem: Problem) -> Response:
    """A Problem as a response."""
    return response_for(
        request,
        status=problem.status,
        code=problem.code,
        title=problem.title,
        detail=problem.detail,
        headers=problem.headers,
        members=problem.members,
    )


def pointer(location: Sequence[int | str]) -> str:
    """Where in the request a fault lies: a JSON pointer into the body, or the part and its name."""
    part, *rest = location
    escaped = [str(step).replace("~", "~0").replace("/", "~1") for step in rest]
    return "".join(f"/{step}" for step in escaped) if part == "body" else f"{part}:{'/'.join(escaped)}"


def install(app: FastAPI) -> None:
    """Make the application answer every error with a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(request, error)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = HTTPStatus(error.status_code).phrase
        code = {404: "not_found", 405: "method_not_allowed"}.get(
            error.status_code, title.lower().replace(" ", "_").replace("-", "_")
        )
        detail = {
            404: f"there is nothing at {request.url.path}: /docs lists what there is",
            405: f"{request.method} is not possible at {request.url.path}: /docs lists what is",
        }.get(error.status_code, str(error.detail))
        return response_for(
            request, status=error.status_code, code=code, title=title, detail=detail, headers=error.headers
        )

    async def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{"pointer": pointer(item["loc"]), "detail": item["msg"]} for item in error.errors()]
        first = errors[0]
        more = f" ({len(errors) - 1} more in `errors`)" if len(errors) > 1 else ""
        problem = ValidationFailed(
            f"{first['pointer'] or 'the body'}: {first['detail']}{more}; send what /docs describes",
            errors=errors,
        )
        return problem_response(request, problem)

    async def on_database_error(request: Request, error: Exception) -> Response:
        log.warning("database_unavailable", error=str(error))
        return problem_response(request, DatabaseUnavailable())

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(OperationalError, on_database_error)
    app.add_exception_handler(PoolTimeoutError, on_database_error)
