"""Who calls: a broadcaster, told by its API key.

Programs send the key as a bearer token. A browser keeps it in a cookie that scripts cannot read and other
sites cannot make it send; the cookie opens reading only, so a forged form could not change anything even so. The one
exception are corrections, which people make in the browser: there the cookie counts for requests of which the browser
says that they come from this site's own pages.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from api.parts import Parts, UsesParts
from api.problems import UnknownApiKey
from db.broadcasters import Broadcaster, find_broadcaster_by_key

SESSION_COOKIE = "fonoteca_key"
READING_METHODS = frozenset({"GET", "HEAD"})


def comes_from_own_page(request: Request) -> bool:
    """Whether the browser says that this site's own page sent the request. No script can forge these headers."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # browsers leave Sec-Fetch-Site out where the site is not served over https
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host", "?")


def presented_key(request: Request, *, page_may_write: bool = False) -> str | None:
    """The key that a request carries: its bearer token, or the browser's cookie: for reading, and for what
    this site's pages may write."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer":
        return token.strip()
    if request.method in READING_METHODS or (page_may_write and comes_from_own_page(request)):
        return request.cookies.get(SESSION_COOKIE)
    return None


def identify(request: Request, parts: Parts, *, page_may_write: bool = False) -> Broadcaster | None:
    """The broadcaster whose key the request carries."""
    key = presented_key(request, page_may_write=page_may_write)
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


def require_person_or_program(request: Request, parts: UsesParts) -> Broadcaster:
    """As `require_broadcaster`, but this site's own pages may write too."""
    broadcaster = identify(request, parts, page_may_write=True)
    if broadcaster is None:
        raise UnknownApiKey
    return broadcaster


CallerOrPage = Annotated[Broadcaster, Depends(require_person_or_program)]
"""Declared by the routes that people write to in the browser."""
