"""Room for media: refused before the disk is full, and before one broadcaster takes it all.

Both refusals say when to ask again, and leave what was uploaded as it is: clients wait and go on.
"""

from __future__ import annotations

from sqlalchemy import Connection

from api.parts import Parts
from api.problems import Problem
from db.disk import free_bytes, is_same_disk, local_store_folder
from db.room import incoming, lock_room
from db.uploads import Upload

RETRY_AFTER_S = 30
GIB = 2**30


class NoRoom(Problem):
    status, code, title = 507, "no_room", "The server's disk has no room for it"


class QuotaFull(Problem):
    status, code, title = 429, "incoming_quota_full", "Too much of the broadcaster waits already"


def require_room(parts: Parts, connection: Connection, upload: Upload) -> None:
    """Refuse a new upload that does not fit beside those that are open.

    Call it in the transaction that creates the upload, which is rolled back when this raises: room is given away by one
    transaction at a time.

    Raises:
        NoRoom, QuotaFull: with the time after which to ask again.
    """
    settings = parts.settings
    if not settings.free_disk_min_bytes and settings.incoming_quota_bytes is None:
        return
    lock_room(connection)
    waiting = incoming(connection, upload.broadcaster_id)
    others_bytes = waiting.own_bytes - upload.length_bytes
    quota = settings.incoming_quota_bytes
    # what is longer than the whole quota passes alone: it could never pass otherwise
    if quota is not None and others_bytes and waiting.own_bytes > quota:
        raise QuotaFull(
            f"{others_bytes / GIB:.2f} GiB of your media are being uploaded or wait to be split; with "
            f"{upload.recording_name} they would pass the {quota / GIB:.2f} GiB that may. Go on when some are split "
            "(`fonoteca submit` does by itself)",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            quota_bytes=quota,
            waiting_bytes=others_bytes,
        )
    needed = waiting.missing_bytes
    store = local_store_folder(parts.media_store.url)
    if store is not None and store.exists() and is_same_disk(store, parts.upload_dir):
        needed += waiting.longest_bytes  # stored before what was gathered is removed
    _require_disk(parts, upload.recording_name, needed)


def require_room_to_go_on(parts: Parts, upload: Upload, more_bytes: int) -> None:
    """Refuse bytes of an open upload for which the disk has no room any more: something else has filled it.

    Raises:
        NoRoom: with the time after which to ask again.
    """
    _require_disk(parts, upload.recording_name, more_bytes)


def _require_disk(parts: Parts, name: str, needed_bytes: int) -> None:
    least = parts.settings.free_disk_min_bytes
    if not least:
        return
    free = free_bytes(parts.upload_dir)
    if free - needed_bytes < least:
        raise NoRoom(
            f"there is no room for {name}: the server keeps {least / GIB:.2f} GiB of its disk free, "
            f"{free / GIB:.2f} GiB are, and this upload with those that are open needs "
            f"{needed_bytes / GIB:.2f} GiB. Go on later (`fonoteca submit` does by itself); whoever runs the "
            "server makes room, or lowers FONOTECA_FREE_DISK_MIN_BYTES",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            free_bytes=free,
            needed_bytes=needed_bytes,
        )
