"""The sweep: what was lost is put right. Runs every few seconds, and does no harm run twice at once."""

from __future__ import annotations

from dataclasses import asdict

import redis
import structlog
from sqlalchemy import Engine

from db.connect import transaction
from db.queue import count_waiting, take_back_dead_claims
from db.settings import Settings
from db.uploads import expire_uploads
from workers.queue import GPU_QUEUE, MEDIA_QUEUE, wake_split, wake_transcribe

log = structlog.get_logger(__name__)


def sweep(engine: Engine, settings: Settings) -> None:
    """Take back dead workers' claims, remove stuck uploads, and send again the wake-ups that were lost.

    A wake-up is sent only where work waits and its queue is empty: each worker that finds work wakes the next.
    """
    with transaction(engine) as tx:
        swept = take_back_dead_claims(tx.connection)
    with transaction(engine) as tx:
        expired = expire_uploads(tx.connection, older_than_h=settings.upload_expiry_h)
    upload_dir = settings.require_upload_dir()
    for upload_id in expired:
        (upload_dir / str(upload_id)).unlink(missing_ok=True)
    if any(asdict(swept).values()) or expired:
        log.warning("swept", **asdict(swept), uploads_expired=len(expired))
    with engine.connect() as connection:
        waiting = count_waiting(connection, cap=1)
    if waiting.recordings and _is_empty(settings, MEDIA_QUEUE):
        wake_split()
    if waiting.segments and _is_empty(settings, GPU_QUEUE):
        wake_transcribe()


def _is_empty(settings: Settings, queue: str) -> bool:
    with redis.Redis.from_url(settings.require_redis_url(), socket_timeout=10) as client:
        return int(client.llen(queue)) == 0
