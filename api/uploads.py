"""Resumable uploads (tus 1.0): create, ask how far, send, end. The key is checked before a body is read."""

from __future__ import annotations

import uuid
from pathlib import Path

import anyio
import obstore.exceptions
import structlog
from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response

from api import tus
from api.auth import Caller
from api.parts import Parts, UsesParts
from api.problems import Problem, RecordingNotFound
from api.receive import BodyTooLong, Checksum, ChunkChecksumMismatch, Ending, Receiver, UploadGone
from api.room import require_room, require_room_to_go_on
from api.schemas import upload_url
from api.staging import StagedBytesLost, StagedFile, UploadLocked
from db import uploads
from db.connect import transaction
from db.media_store import original_key
from db.uploads import Upload

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

CLIENT_CLOSED = 499
"""Status in the log for a client that did not wait for its answer."""

log = structlog.get_logger(__name__)


class UploadNotFound(Problem):
    status, code, title = 404, "upload_not_found", "Upload not found"

    def __init__(self, upload_id: object) -> None:
        super().__init__(
            f"there is no unfinished upload {upload_id}: it finished, expired or was ended; "
            "the recording's `upload` says whether to begin again"
        )


class UploadExists(Problem):
    status, code, title = 409, "upload_exists", "The recording has an unfinished upload"


class MediaAlreadyReceived(Problem):
    status, code, title = 409, "media_already_received", "The recording takes no media"


class UploadLengthDiffers(Problem):
    status, code, title = 422, "upload_length_differs", "The upload has another length than was announced"


class WrongOffset(Problem):
    status, code, title = 409, "wrong_offset", "The bytes begin in the wrong place"


class UploadBytesLost(Problem):
    status, code, title = 409, "upload_bytes_lost", "Bytes of the upload are gone"


class UploadInUse(Problem):
    status, code, title = 423, "upload_in_use", "Another request sends this upload's bytes"


class UploadTooLong(Problem):
    status, code, title = 413, "upload_too_long", "More bytes than the upload has left"


class ChunkMismatch(Problem):
    status, code, title = (
        460,
        "chunk_checksum_mismatch",
        "The bytes of this request were changed on their way",
    )


class ChecksumMismatch(Problem):
    status, code, title = 460, "checksum_mismatch", "The file is not the one that was announced"


class ServerStopping(Problem):
    status, code, title = 503, "server_stopping", "The server stops"


class UploadNotWritten(Problem):
    status, code, title = 507, "upload_not_written", "The server's disk takes no more"


class StoreUnavailable(Problem):
    status, code, title = 503, "object_store_unavailable", "The object store cannot be reached"


Versioned = Depends(tus.check_version)


@router.options("", status_code=204)
@router.options("/{upload_id}", status_code=204)
def describe(parts: UsesParts) -> Response:
    """What this server's tus can do."""
    return Response(
        status_code=204,
        headers={
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
            "Tus-Max-Size": str(parts.settings.max_upload_bytes),
        },
    )


@router.post("", status_code=201, dependencies=[Versioned])
async def create_upload(request: Request, caller: Caller, parts: UsesParts) -> Response:
    """Begin the upload of a recording's media; the body may hold its first bytes."""
    length_bytes = tus.read_count(request, "Upload-Length")
    recording_id = tus.read_recording_id(request)
    checksum = tus.read_checksum(request)
    upload = await to_thread.run_sync(begin, parts, caller.id, recording_id, length_bytes)
    headers = {"Location": upload_url(upload.id)}
    if request.headers.get("content-type") != tus.BODY_TYPE:
        return Response(status_code=201, headers=headers | tus.upload_headers(upload, parts.settings))
    try:
        sent = await take_bytes(request, parts, upload, checksum)
    except Problem:
        # an upload whose address nobody is told would block the recording until it expires
        await to_thread.run_sync(withdraw, parts, caller.id, upload)
        raise
    return Response(
        status_code=201 if sent.status_code == 204 else sent.status_code, headers=headers | dict(sent.headers)
    )


def begin(parts: Parts, broadcaster_id: int, recording_id: uuid.UUID, length_bytes: int) -> Upload:
    """Create the upload, or raise what stands against it."""
    try:
        with transaction(parts.engine) as tx:
            upload = uploads.create_upload(tx.connection, broadcaster_id, recording_id, length_bytes)
            require_room(parts, tx.connection, upload)
            return upload
    except uploads.RecordingUnknown as error:
        raise RecordingNotFound(recording_id) from error
    except uploads.UploadExists as error:
        url = upload_url(error.upload_id)
        raise UploadExists(
            f"{error.name} has an unfinished upload: go on with it at {url}, or end it there by DELETE",
            url=url,
        ) from error
    except uploads.MediaNotAwaited as error:
        raise MediaAlreadyReceived(
            f"{error.name} is {error.state.value} and takes no media: nothing is left to upload",
            state=error.state.value,
        ) from error
    except uploads.UploadLengthDiffers as error:
        raise UploadLengthDiffers(
            f"{error.name} was announced with {error.size_bytes} bytes, Upload-Length says "
            f"{error.length_bytes}: submit the file as it is now in a new batch"
        ) from error


def withdraw(parts: Parts, broadcaster_id: int, upload: Upload) -> bool:
    """Remove an upload and its bytes; the recording awaits a new one. False when it is gone already."""
    with lock(parts.upload_dir, upload) as staged, transaction(parts.engine) as tx:
        ended = uploads.terminate_upload(tx.connection, broadcaster_id, upload.id)
        tx.after_commit(staged.remove)
    return ended


@router.head("/{upload_id}", dependencies=[Versioned])
def get_offset(upload_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Response:
    """How many bytes of an upload are safe."""
    with parts.engine.connect() as connection:
        upload = uploads.find_upload(connection, caller.id, upload_id)
    if upload is None:
        raise UploadNotFound(upload_id)
    return Response(status_code=200, headers=tus.upload_headers(upload, parts.settings))


@router.patch("/{upload_id}", status_code=204, dependencies=[Versioned])
async def send_bytes(upload_id: uuid.UUID, request: Request, caller: Caller, parts: UsesParts) -> Response:
    """Send bytes from `Upload-Offset` on."""
    tus.check_body_type(request)
    offset_bytes = tus.read_count(request, "Upload-Offset")
    checksum = tus.read_checksum(request)
    upload = await to_thread.run_sync(find, parts, caller.id, upload_id)
    return await take_bytes(request, parts, upload, checksum, offset_bytes)


def find(parts: Parts, broadcaster_id: int, upload_id: uuid.UUID) -> Upload:
    """The upload, or UploadNotFound."""
    with parts.engine.connect() as connection:
        upload = uploads.find_upload(connection, broadcaster_id, upload_id)
    if upload is None:
        raise UploadNotFound(upload_id)
    return upload


def lock(folder: Path, upload: Upload) -> StagedFile:
    """The upload's file, locked, or UploadInUse."""
    try:
        return StagedFile(folder, upload.id)
    except UploadLocked as error:
        raise UploadInUse(
            f"another request is sending bytes of {upload.recording_name}: wait for its end, "
            "then ask for the offset by HEAD"
        ) from error


async def take_bytes(
    request: Request, parts: Parts, found: Upload, checksum: Checksum | None, offset_bytes: int = 0
) -> Response:
    """Write the request's bytes; with the last of them the recording is received."""
    staged = await to_thread.run_sync(lock, parts.upload_dir, found)
    try:
        upload = await to_thread.run_sync(prepare, parts, staged, found, offset_bytes)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > upload.length_bytes - upload.offset_bytes:
            raise BodyTooLong
        await to_thread.run_sync(
            require_room_to_go_on, parts, upload, int(declared) if declared.isdecimal() else 0
        )
        receiver = Receiver(parts.engine, upload, staged, checksum)
        ending = await receiver.receive(request, parts.open_bodies)
        if receiver.complete:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(finish, parts, staged, upload)
            return Response(status_code=204, headers={"Upload-Offset": str(upload.length_bytes)})
        if ending is Ending.STOPPED:
            raise ServerStopping(
                f"the server stops; {receiver.committed_bytes} bytes of {upload.recording_name} are kept: "
                "try again in a moment and go on from there",
                headers={"Retry-After": "5"},
            )
        if ending is Ending.VANISHED:
            log.info("upload_interrupted", upload_id=str(upload.id), offset_bytes=receiver.committed_bytes)
            return Response(status_code=CLIENT_CLOSED)
        headers = tus.upload_headers(upload, parts.settings, offset_bytes=receiver.committed_bytes)
        return Response(status_code=204, headers=headers)
    except BodyTooLong as error:
        raise UploadTooLong(
            f"{found.recording_name} was announced with {found.length_bytes} bytes and more came: "
            "submit the file as it is now in a new batch"
        ) from error
    except ChunkChecksumMismatch as error:
        raise ChunkMismatch(
            f"bytes of {found.recording_name} from {found.offset_bytes} on do not have the checksum sent with "
            "them; none of them was kept: send them again"
        ) from error
    except UploadGone as error:
        raise UploadNotFound(found.id) from error
    except OSError as error:
        log.error("upload_not_written", upload_id=str(found.id), error=str(error))
        raise UploadNotWritten(
            f"the server could not write the bytes of {found.recording_name} to its disk: have whoever runs it "
            "look at the free space of the upload folder, then go on from the offset that HEAD tells"
        ) from error
    finally:
        staged.close()


def prepare(parts: Parts, staged: StagedFile, found: Upload, offset_bytes: int) -> Upload:
    """Read the upload again, now that nobody else writes it, and cut its file back to the offset."""
    with parts.engine.connect() as connection:
        upload = uploads.find_upload(connection, found.broadcaster_id, found.id)
    if upload is None:
        staged.remove()
        raise UploadNotFound(found.id)
    if upload.offset_bytes != offset_bytes:
        raise WrongOffset(
            f"{upload.offset_bytes} bytes of {upload.recording_name} are here, the request begins at "
            f"{offset_bytes}: go on from {upload.offset_bytes}",
            headers={"Upload-Offset": str(upload.offset_bytes)},
            offset_bytes=upload.offset_bytes,
        )
    try:
        staged.cut(upload.offset_bytes)
    except StagedBytesLost as error:
        log.error("staged_bytes_lost", upload_id=str(upload.id), error=str(error))
        with transaction(parts.engine) as tx:
            uploads.restart_upload(tx.connection, upload.id)
        raise UploadBytesLost(
            f"the bytes of {upload.recording_name} that were here are gone from the server's disk: "
            "send it again from 0",
            offset_bytes=0,
        ) from error
    return upload


def finish(parts: Parts, staged: StagedFile, upload: Upload) -> None:
    """Check the whole file, store it, and make the recording received.

    Until the last transaction nothing says that the upload is complete, so a crash anywhere in here leaves it
    where the client's resume finds it.
    """
    staged.sync()
    sha256 = staged.sha256()
    if upload.announced_sha256 not in (None, sha256):
        announced = upload.announced_sha256.hex() if upload.announced_sha256 else ""
        with transaction(parts.engine) as tx:
            uploads.terminate_upload(tx.connection, upload.broadcaster_id, upload.id)
            tx.after_commit(staged.remove)
        raise ChecksumMismatch(
            f"{upload.recording_name} arrived with SHA-256 {sha256.hex()}, announced was {announced}; "
            "its bytes were removed: send it again, and if it fails again, submit the file as it is now",
            name=upload.recording_name,
            announced_sha256=announced,
            received_sha256=sha256.hex(),
        )
    media_key = original_key(upload.broadcaster_id, upload.recording_id)
    try:
        parts.media_store.put_file(media_key, staged.path)
    except (obstore.exceptions.BaseError, OSError) as error:
        log.error("media_not_stored", upload_id=str(upload.id), error=str(error))
        raise StoreUnavailable(
            f"{upload.recording_name} could not be put into the object store; its bytes are kept: "
            "try again in a moment",
            headers={"Retry-After": "30"},
        ) from error
    with transaction(parts.engine) as tx:
        received = uploads.finish_upload(tx.connection, upload, sha256=sha256, media_key=media_key)
        if received:
            tx.after_commit(staged.remove)
            tx.after_commit(parts.wake_split)
    if not received:
        # cancelled or expired meanwhile, under our lock: nothing refers to what was just stored
        parts.media_store.delete(media_key)
        staged.remove()
        raise UploadNotFound(upload.id)


@router.delete("/{upload_id}", status_code=204, dependencies=[Versioned])
def end_upload(upload_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Response:
    """End an upload and remove its bytes; the recording awaits a new one."""
    upload = find(parts, caller.id, upload_id)
    if not withdraw(parts, caller.id, upload):
        raise UploadNotFound(upload_id)
    return Response(status_code=204)
