"""Is the process up; can it work."""

from __future__ import annotations

from collections.abc import Callable

import redis
import structlog
from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.parts import Parts, UsesParts
from db.revision import SCHEMA_REVISION, database_revision

router = APIRouter(tags=["health"])

CHECK_TIMEOUT_S = 3.0

log = structlog.get_logger(__name__)


class NotReady(Exception):
    """A part answers, but is not what this code needs."""


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process is up. Says nothing of the parts it needs: restarting it would not mend those."""
    return {"status": "up"}


def check_database(parts: Parts) -> None:
    """Raise unless PostgreSQL answers and its schema is the one this code reads."""
    with parts.engine.connect() as connection:
        revision = database_revision(connection)
    if revision != SCHEMA_REVISION:
        raise NotReady(
            f"its schema is at revision {revision or 'none'}, this code needs {SCHEMA_REVISION}: "
            "run `fonoteca migrate`"
        )


def check_queue(parts: Parts) -> None:
    """Raise unless Redis answers."""
    with redis.Redis.from_url(
        parts.settings.require_redis_url(),
        socket_timeout=CHECK_TIMEOUT_S,
        socket_connect_timeout=CHECK_TIMEOUT_S,
    ) as connection:
        connection.ping()


def check_object_store(parts: Parts) -> None:
    """Raise unless the object store answers."""
    parts.media_store.check()


CHECKS: dict[str, Callable[[Parts], None]] = {
    "database": check_database,
    "queue": check_queue,
    "object_store": check_object_store,
}


@router.get("/readyz", responses={503: {"description": "Lists what is wrong"}})
def readyz(parts: UsesParts) -> JSONResponse:
    """Everything that the API needs answers."""
    results: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            check(parts)
        except NotReady as error:
            results[name] = str(error)
        except Exception as error:
            # whatever the part raises means not ready; addresses and credentials stay in the log
            log.warning("part_not_ready", part=name, error=str(error))
            results[name] = f"does not answer ({type(error).__name__}): the server's log says more"
        else:
            results[name] = "ready"
    ready = all(result == "ready" for result in results.values())
    return JSONResponse(
        {"status": "ready" if ready else "not ready", "parts": results}, 200 if ready else 503
    )
