"""The HTTP application: routes, errors, pages. Free of torch: it starts in a second on any machine.

Routes that talk to the database are plain functions, which run in a thread pool; only the ones that stream an
upload's bytes are coroutines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from api import (
    archive_export,
    audio,
    batches,
    clip,
    control,
    corrections,
    health,
    metrics,
    pages,
    pages_search,
    problems,
    recordings,
    search,
    uploads,
)
from api.middleware import RequestMiddleware
from api.parts import Parts
from api.receive import OpenBodies
from api.recent import Recent
from db.connect import make_engine
from db.media_store import MediaStore
from db.settings import Settings
from db.throughput import measure_throughput
from workers.queue import wake_split as send_split_wake_up

STATIC_DIR = Path(__file__).parent / "static"

POOL_CONNECTIONS = 10
"""Connections kept open; twice as many at most. Requests beyond wait their turn."""

THROUGHPUT_KEEP_S = 5.0
"""Batches are asked about every second, and what is told of them is measured over minutes."""


def create_app(
    settings: Settings | None = None, *, wake_split: Callable[[], None] = send_split_wake_up
) -> FastAPI:
    """The application on the parts that `settings` name; nothing is connected before the first request.

    Raises:
        SettingMissing: an address is neither set nor found in a running embedded stack.
    """
    settings = settings or Settings()
    settings.require_redis_url()
    engine = make_engine(
        settings.require_database_url(), application_name="fonoteca-api", pool_size=POOL_CONNECTIONS
    )
    parts = Parts(
        settings=settings,
        engine=engine,
        media_store=MediaStore(settings.require_storage_url()),
        upload_dir=settings.require_upload_dir(),
        wake_split=wake_split,
        open_bodies=OpenBodies(),
        throughput=Recent(engine, measure_throughput, keep_s=THROUGHPUT_KEEP_S),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    app = FastAPI(
        title="Fonoteca",
        version="1",
        summary="A broadcaster's media archive into text people can trust and query.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere; ours is api/templates/docs.html
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.parts = parts
    app.state.metrics = metrics.Metrics(engine, settings)
    app.state.error_page = pages.error_page
    problems.install(app)
    app.add_middleware(RequestMiddleware, metrics=app.state.metrics)
    for module in (
        batches,
        recordings,
        audio,
        clip,
        search,
        archive_export,
        corrections,
        control,
        uploads,
        health,
        metrics,
        pages,
        pages_search,
    ):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=STATIC_DIR), name="static")
    return app
