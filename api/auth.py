"""Who calls: a broadcaster, told by its API key.

Programs send the key as a bearer token. A browser keeps it in a cookie that scripts cannot read and other
sites cannot make it send; the cookie opens reading only, so a forged form could not change anything even so.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.parts import Parts, UsesParts
from api.problems import UnknownApiKey
from db.broadcasters import Broadcaster, find_broadcaster_by_key

SESSION_COOKIE = "fonoteca_key"
READING_METHODS = frozenset({"GET", "HEAD"})


def presented_key(request: Request) -> str | None:
    """The key that a request carries: its bearer token, or for reading the browser's cookie."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer":
        return token.strip()
    if request.method in READING_METHODS:
        return request.cookies.get(SESSION_COOKIE)
    return None


def identify(request: Request, parts: Parts) -> Broadcaster | None:
    """The broadcaster whose key the request carries."""
    key = presented_key(request)
    if key is None:
        return None
    with parts.engine.connect() as connection:
        return find_broadcaster_by_key(connection, key)


def require_broadcaster(request: Request, parts: UsesParts) -> Broadcaster:
    """The broadcaster whose key the request carries.

    Raises:
        UnknownApiKey: none, malformed, unknown or revoked.
    """
    broadcaster = identify(request, parts)
    if broadcaster is None:
        raise UnknownApiKey
    return broadcaster


Caller = Annotated[Broadcaster, Depends(require_broadcaster)]
"""Declared by every route that touches rows: no valid key, no call. Runs before a body is read by the route."""
