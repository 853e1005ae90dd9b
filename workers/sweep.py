"""The sweep: what was lost is put right. Runs every few seconds, and does no harm run twice at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.connect import transaction
from db.control import move_held
from db.copies import expire_copies, forget_removals, list_removals
from db.evaluation_runs import find_open_runs
from db.losses import take_back_dead_claims
from db.media_store import MediaStore
from db.queue import count_waiting
from db.search import index_older, index_pending, merge_new_words
from db.segment_counts import fill_counts
from db.settings import Settings
from db.sql_users import end_overlong
from db.uploads import expire_uploads, find_orphans
from workers.context import clear_scratch
from workers.queue import GPU_QUEUE, MEDIA_QUEUE, is_empty, wake_evaluate, wake_split, wake_transcribe

log = structlog.get_logger(__name__)

BACKFILL_SEGMENTS = 5_000
"""Segments of before the search that one sweep indexes: some seconds of one core."""

MOVING_S = 5.0
"""How long one sweep moves segments of paused, resumed and cancelled recordings; the next one goes on."""

PENDING_SEGMENTS = 1_000
"""Segments stored to be indexed later that one sweep indexes, should nobody else."""

COUNTS_PER_SWEEP = 500
"""Transcripts of before segment counts were stored that one sweep counts: a fraction of a second."""

REMOVING_S = 5.0
"""How long one sweep has working copies expire and removes their objects; the next one goes on."""

_told_out_of_reach: set[str] = set()
"""SQL users of whom this process has said that their sessions are out of its reach."""


def sweep(engine: Engine, settings: Settings) -> None:
    """Take back dead workers' claims, remove stuck uploads and expired working copies, and send again the wake-ups
    that were lost.

    A wake-up is sent only where work waits and its queue is empty: each worker that finds work wakes the next. What
    only makes search and counts faster or more complete comes last, and nothing else fails with it.
    """
    with transaction(engine) as tx:
        swept = take_back_dead_claims(tx.connection)
    with transaction(engine) as tx:
        expired = expire_uploads(tx.connection, older_than_h=settings.upload_expiry_h)
    _remove_orphaned_files(engine, settings)
    clear_scratch(settings, engine)
    if any(asdict(swept).values()) or expired:
        log.warning("swept", **asdict(swept), uploads_expired=len(expired))
    _watch_sql_users(engine)
    _move_held(engine)
    with engine.connect() as connection:
        waiting = count_waiting(connection, cap=1)
        open_runs = find_open_runs(connection)
    if waiting.recordings and is_empty(settings, MEDIA_QUEUE):
        wake_split()
    if waiting.segments and is_empty(settings, GPU_QUEUE):
        wake_transcribe()
    if open_runs:
        # also where messages wait: a backlog's wake-ups would keep it out for ever. It expires with the next sweep
        wake_evaluate(expires_s=settings.sweep_interval_s)
    _fill_in(engine)
    try:
        _remove_copies(engine, settings)
    except Exception:
        # the object store may be away: nothing else waits for it, and the next sweep goes on
        log.exception("copies_not_removed")


def _remove_copies(engine: Engine, settings: Settings) -> None:
    """Have working copies expire that are old enough, and remove what expired from the object store, for a while."""
    deadline = time.monotonic() + REMOVING_S
    expired, n = 0, 1
    while settings.working_copy_expiry_days is not None and n and time.monotonic() < deadline:
        with transaction(engine) as tx:
            n = expire_copies(tx.connection, after_days=settings.working_copy_expiry_days)
        expired += n
    if expired:
        log.info("working_copies_expired", n=expired)
    store: MediaStore | None = None
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            keys = list_removals(connection)
        if not keys:
            return
        store = store or MediaStore(settings.require_storage_url())
        for key in keys:
            store.delete(key)
        with transaction(engine) as tx:
            forget_removals(tx.connection, keys)


def _move_held(engine: Engine) -> None:
    """Move waiting segments that are held back out of the claimers' way, and others back, for a while."""
    deadline = time.monotonic() + MOVING_S
    moved = 1
    while moved and time.monotonic() < deadline:
        with transaction(engine) as tx:
            moved = move_held(tx.connection)


def _fill_in(engine: Engine) -> None:
    """One step of what is made up for little by little; one that fails is told, and tried again by the next sweep."""
    steps: dict[str, Callable[[Connection], object]] = {
        "merge_new_words": merge_new_words,
        # those whose wake-up was lost
        "index_pending": lambda connection: index_pending(connection, PENDING_SEGMENTS),
        "index_older": lambda connection: index_older(connection, BACKFILL_SEGMENTS),
        "fill_counts": lambda connection: fill_counts(connection, limit=COUNTS_PER_SWEEP),
    }
    for name, step in steps.items():
        try:
            with transaction(engine) as tx:
                step(tx.connection)
        except SQLAlchemyError:
            log.exception("fill_in_failed", step=name)


def _watch_sql_users(engine: Engine) -> None:
    """End queries and transactions of SQL users who switched their limits off."""
    with transaction(engine) as tx:
        overlong = end_overlong(tx.connection)
    if overlong.cancelled or overlong.ended:
        log.warning("overlong_sql_ended", cancelled=overlong.cancelled, sessions_ended=overlong.ended)
    if fresh := [role for role in overlong.out_of_reach if role not in _told_out_of_reach]:
        _told_out_of_reach.update(fresh)
        log.warning(
            "sql_users_out_of_reach",
            roles=fresh,
            reason="the role of the services may not see or end their sessions",
            todo="GRANT pg_read_all_stats, pg_signal_backend to it, or make the users anew as that role",
        )


def _remove_orphaned_files(engine: Engine, settings: Settings) -> None:
    """Remove staged files whose upload expired, or was stored just before its server died."""
    staged = {}
    for file in settings.require_upload_dir().iterdir():
        with suppress(ValueError):  # not named by an upload: not ours to touch
            staged[uuid.UUID(file.name)] = file
    if staged:
        # the files were listed before the rows are read: an upload that begins meanwhile is not among them
        with engine.connect() as connection:
            orphans = find_orphans(connection, list(staged))
        for upload_id in orphans:
            staged[upload_id].unlink(missing_ok=True)
