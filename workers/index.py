"""Indexing for search what GPU workers stored: behind them, so that no GPU waits for an index."""

from __future__ import annotations

import time

import structlog
from sqlalchemy import Engine

from db.connect import transaction
from db.search import index_pending
from workers.queue import wake_index

log = structlog.get_logger(__name__)

AT_ONCE = 256
"""Segments of one transaction: some 0.6 s of one core."""
RUN_LIMIT_S = 10.0
"""After so long a run ends and wakes the next one: nights and messages come in between."""


def index_stored(engine: Engine) -> int:
    """Index what waits, for a while; how many segments."""
    started_at = time.monotonic()
    n_indexed = 0
    while True:
        with transaction(engine) as tx:
            found = index_pending(tx.connection, AT_ONCE)
        n_indexed += found
        if not found:
            break
        if time.monotonic() - started_at > RUN_LIMIT_S:
            wake_index()
            break
    if n_indexed:
        log.info("texts_indexed", segments=n_indexed)
    return n_indexed
