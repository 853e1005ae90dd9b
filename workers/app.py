"""The Celery application that workers and beat run: `celery -A workers.app worker -Q media`.

Tasks are shells: what they do is in `split.py`, `transcribe.py`, `sweep.py`, testable without a broker. A task
does one piece of work and ends, or stops taking more once SIGTERM (warm shutdown) was sent.
"""

from __future__ import annotations

import os
from typing import Any

import structlog
from billiard import pool
from celery import signals
from celery.worker import state

from db.connect import make_engine
from db.logs import configure_logging
from db.settings import Settings
from workers import context
from workers.queue import (
    EVALUATE_TASK,
    GPU_QUEUE,
    INDEX_TASK,
    MESSAGES_TASK,
    NIGHT_TASK,
    SPLIT_TASK,
    SWEEP_TASK,
    TRANSCRIBE_TASK,
    make_celery,
)

log = structlog.get_logger(__name__)

EXIT_DEVICE_LOST = 70
"""Exit code of a worker whose GPU refused further work."""

# A pool child that ends waits until the main process has read its last result, which the main process does no more once
# it waits for the child: 30 s for nothing, of 300 tries. A result is an acknowledgement to us; without it a wake-up is
# delivered twice.
pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 20

settings = Settings()
app = make_celery(settings)


_serving: Any = None


def _open_serving() -> Any:
    """This process's model, opened on first use. Imported late: beat and the media worker need none."""
    global _serving
    if _serving is None:
        from workers.serving import Serving

        serving = Serving(context.current("gpu"))
        serving.open()
        _serving = serving
    return _serving


def is_shutting_down() -> bool:
    """Whether this worker process was asked to end."""
    asked = (state.should_stop, state.should_terminate)
    return any(exit_code is not None and exit_code is not False for exit_code in asked)


@app.task(name=SPLIT_TASK)
def split() -> None:
    """Split one recording."""
    from workers.split import split_one

    split_one(context.current("media"))


@app.task(name=TRANSCRIBE_TASK)
def transcribe() -> None:
    """Transcribe pending segments, for a minute at most."""
    from workers.transcribe import DeviceLost

    try:
        _open_serving().transcribe(is_stopping=is_shutting_down)
    except DeviceLost:
        log.exception("device_lost")
        # in order is not possible any more: the claims are back already, and the supervisor starts a new process
        os._exit(EXIT_DEVICE_LOST)


@app.task(name=EVALUATE_TASK)
def evaluate() -> None:
    """Generate predictions of the night's evaluation runs, for a minute at most."""
    from workers.transcribe import DeviceLost

    try:
        _open_serving().evaluate(is_stopping=is_shutting_down)
    except DeviceLost:
        log.exception("device_lost")
        os._exit(EXIT_DEVICE_LOST)


@app.task(name=SWEEP_TASK)
def sweep() -> None:
    """Put right what was lost."""
    from workers.sweep import sweep as run_sweep

    engine = make_engine(settings.require_database_url(), application_name="fonoteca-sweep", pool_size=1)
    try:
        run_sweep(engine, settings)
    finally:
        engine.dispose()


@app.task(name=INDEX_TASK)
def index() -> None:
    """Index texts that were stored to be found a moment later."""
    from workers.index import index_stored

    engine = make_engine(settings.require_database_url(), application_name="fonoteca-index", pool_size=1)
    try:
        index_stored(engine)
    finally:
        engine.dispose()


_night_retries: Any = None


@app.task(name=NIGHT_TASK)
def night() -> None:
    """Settle, begin, prepare and report nights, as far as each can be brought now."""
    global _night_retries
    from db.media_store import MediaStore
    from workers.night import Retries, look_after_nights

    _night_retries = _night_retries or Retries()
    engine = make_engine(settings.require_database_url(), application_name="fonoteca-night", pool_size=1)
    try:
        store = MediaStore(settings.require_storage_url())
        look_after_nights(engine, settings, store, retries=_night_retries)
    finally:
        engine.dispose()


@app.task(name=MESSAGES_TASK)
def messages() -> None:
    """Deliver the messages that are due."""
    from workers.messages import deliver_messages

    engine = make_engine(settings.require_database_url(), application_name="fonoteca-messages", pool_size=1)
    try:
        deliver_messages(engine, settings)
    finally:
        engine.dispose()


@signals.setup_logging.connect
def use_our_logging(**_: Any) -> None:
    """Celery leaves logging alone once this is connected: JSON lines, as the API writes them."""
    configure_logging()


@signals.celeryd_after_setup.connect
def open_model_at_start(instance: Any, **_: Any) -> None:
    """A GPU worker opens its model before it takes work, so that a wrong folder shows at once."""
    if GPU_QUEUE in instance.app.amqp.queues.consume_from:
        try:
            _open_serving()
        except Exception as error:
            log.error("model_not_opened", reason=str(error))
            raise SystemExit(f"fonoteca: the GPU worker cannot start: {error}") from error


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def close_context(**_: Any) -> None:
    """Give back what is claimed when the process ends in order."""
    context.close_current()
