"""`python -m api.serve`: the API on FONOTECA_API_HOST and FONOTECA_API_PORT.

On SIGTERM it stops listening, ends the uploads in progress with their bytes kept, and lets other requests finish.
"""

from __future__ import annotations

import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.parts import Parts
from db.logs import configure_logging
from db.settings import SettingMissing, Settings

DRAIN_S = 20
"""Seconds that open requests get to end after SIGTERM: below the 30 s after which the stack kills."""

log = structlog.get_logger(__name__)


class ApiServer(uvicorn.Server):
    """A server that ends open uploads itself when it stops, instead of waiting for hours of bytes."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening; end or wait for what is open."""
        self._parts.open_bodies.stop()
        await super().shutdown(sockets)


def make_server(app: FastAPI, *, host: str, port: int) -> ApiServer:
    """A server for the application; `run()` serves until SIGTERM or `should_exit`."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,  # api.middleware writes it, with the request's id
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return ApiServer(config, app.state.parts)


def main() -> None:
    """Serve until told to stop."""
    configure_logging()
    settings = Settings()
    try:
        app = create_app(settings)
    except SettingMissing as error:
        log.error("setting_missing", error=str(error))
        sys.exit(2)
    make_server(app, host=settings.api_host, port=settings.api_port).run()


if __name__ == "__main__":
    main()
