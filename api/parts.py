"""What the routes work with: made once per application, reached through the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from api.receive import OpenBodies
from api.recent import Recent
from db.media_store import MediaStore
from db.settings import Settings
from db.throughput import Throughput


@dataclass(frozen=True)
class Parts:
    """The application's database, object store, folders and messages."""

    settings: Settings
    engine: Engine
    media_store: MediaStore
    upload_dir: Path
    wake_split: Callable[[], None]
    open_bodies: OpenBodies
    throughput: Recent[Throughput]


async def get_parts(request: Request) -> Parts:
    """The parts of the application that a request came to."""
    # async although nothing is waited for: else each request would go to another thread and back for it
    parts: Parts = request.app.state.parts
    return parts


UsesParts = Annotated[Parts, Depends(get_parts)]
