"""Names of queues and tasks, the Celery application, and the sending of wake-ups. Free of torch: the API sends.

A message says only "there may be work": the work itself is rows in PostgreSQL (`db/queue.py`). Losing one or
delivering it twice changes nothing, so a broker that cannot be reached never fails the request that wanted to
send: the next sweep sends again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from db.settings import Settings

MEDIA_QUEUE = "media"
GPU_QUEUE = "gpu"
CONTROL_QUEUE = "control"
QUALITY_QUEUE = "quality"
"""Of nights and messages: a minute of computing, or a mail server that does not answer, holds up neither splitting nor
transcribing nor the sweep."""

SPLIT_TASK = "workers.split"
TRANSCRIBE_TASK = "workers.transcribe"
EVALUATE_TASK = "workers.evaluate"
SWEEP_TASK = "workers.sweep"
INDEX_TASK = "workers.index"
NIGHT_TASK = "workers.night"
MESSAGES_TASK = "workers.messages"

VISIBILITY_TIMEOUT_S = 6 * 3600
"""Above the longest task: a message unacknowledged for so long is delivered again. Splitting a 24-hour file
takes minutes; a wake-up lost with its worker is replaced by the sweep long before."""

EVALUATE_EXPIRES_S = 300.0
"""A wake-up for evaluation that waited so long has nothing to add: the sweep has sent newer ones."""

INDEX_EXPIRES_S = 60.0
"""A wake-up for indexing that waited so long has nothing to add: the sweep has done its work meanwhile."""

NIGHT_INTERVAL_S = 60.0
"""How often somebody looks whether a night is due, ready or to be reported, and whether a message waits."""

log = structlog.get_logger(__name__)


def celery_broker_url(redis_url: str) -> str:
    """Celery's spelling of a redis-py address: unix sockets are `redis+socket://` there."""
    if redis_url.startswith("unix://"):
        path, _, query = redis_url.removeprefix("unix://").partition("?")
        database = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair).get("db", "0")
        return f"redis+socket://{path}?virtual_host={database}"
    return redis_url


def make_celery(settings: Settings) -> Celery:
    """The Celery application: settings only; the tasks are registered by `workers.app`."""
    app = Celery("fonoteca", broker=celery_broker_url(settings.require_redis_url()))
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=CONTROL_QUEUE,
        task_routes={
            SPLIT_TASK: {"queue": MEDIA_QUEUE},
            TRANSCRIBE_TASK: {"queue": GPU_QUEUE},
            EVALUATE_TASK: {"queue": GPU_QUEUE},
            SWEEP_TASK: {"queue": CONTROL_QUEUE},
            INDEX_TASK: {"queue": QUALITY_QUEUE},
            NIGHT_TASK: {"queue": QUALITY_QUEUE},
            MESSAGES_TASK: {"queue": QUALITY_QUEUE},
        },
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
        },
        beat_schedule={
            "sweep": {
                "task": SWEEP_TASK,
                "schedule": settings.sweep_interval_s,
                # a sweep that nobody could run before the next one is due has nothing to add
                "options": {"expires": settings.sweep_interval_s},
            },
            "night": {
                "task": NIGHT_TASK,
                "schedule": NIGHT_INTERVAL_S,
                "options": {"expires": NIGHT_INTERVAL_S},
            },
            "messages": {
                "task": MESSAGES_TASK,
                "schedule": NIGHT_INTERVAL_S,
                "options": {"expires": NIGHT_INTERVAL_S},
            },
        },
        timezone="UTC",
    )
    return app


@cache
def _sender() -> Celery:
    return make_celery(Settings())


def _send(task: str, queue: str, *, expires_s: float | None = None) -> None:
    # A request must not hang on a dead broker: try once, and leave the rest to the sweep.
    options: dict[str, Any] = {"queue": queue, "retry": False, "ignore_result": True, "expires": expires_s}
    try:
        _sender().send_task(task, **options)
    except (OperationalError, OSError) as error:
        log.warning("wake_up_not_sent", task=task, error=str(error))


def wake_split() -> None:
    """Tell a media worker that recordings may wait to be split. Call after the commit."""
    _send(SPLIT_TASK, MEDIA_QUEUE)


def wake_next_split(settings: Settings) -> None:
    """As `wake_split`, unless a wake-up waits already: whoever is free takes that one.

    One more for each recording split, beside the one for each received, would let the queue grow for as long as
    there is a backlog.
    """
    try:
        is_needed = is_empty(settings, MEDIA_QUEUE)
    except redis.RedisError as error:
        log.warning("wake_up_not_sent", task=SPLIT_TASK, error=str(error))
        return
    if is_needed:
        wake_split()


def is_empty(settings: Settings, queue: str) -> bool:
    """Whether no message waits in a queue.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    with redis.Redis.from_url(settings.require_redis_url(), socket_timeout=10) as client:
        return int(client.llen(queue)) == 0


def wake_transcribe() -> None:
    """Tell a GPU worker that segments may wait. Call after the commit."""
    _send(TRANSCRIBE_TASK, GPU_QUEUE)


def wake_evaluate(*, expires_s: float = EVALUATE_EXPIRES_S) -> None:
    """Tell a GPU worker that evaluation runs may wait. Call after the commit."""
    _send(EVALUATE_TASK, GPU_QUEUE, expires_s=expires_s)


def wake_index() -> None:
    """Tell the quality worker that texts may wait to be indexed. Call after the commit."""
    _send(INDEX_TASK, QUALITY_QUEUE, expires_s=INDEX_EXPIRES_S)


def wake_night() -> None:
    """Tell the quality worker that a night may go on: it was begun by hand, or a run of it is finished. Beat would
    within a minute. Call after the commit."""
    _send(NIGHT_TASK, QUALITY_QUEUE)
