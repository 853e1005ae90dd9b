"""The headers of tus 1.0, read and written. See https://tus.io/protocols/resumable-upload."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import uuid
from email.utils import format_datetime

from fastapi import Request

from api.problems import Problem
from api.receive import Checksum
from db.settings import Settings
from db.uploads import Upload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,termination,expiration"
ALGORITHMS = ("sha256", "sha1")
BODY_TYPE = "application/offset+octet-stream"


class UnsupportedTusVersion(Problem):
    status, code, title = 412, "unsupported_tus_version", "Another version of tus"

    def __init__(self, version: str) -> None:
        super().__init__(
            f"this server speaks tus {VERSION}, the request says {version or 'nothing'}: "
            f"send `Tus-Resumable: {VERSION}`",
            headers={"Tus-Version": VERSION},
        )


class BadUploadHeader(Problem):
    status, code, title = 400, "bad_upload_header", "An upload's header cannot be read"


class UnsupportedChecksum(Problem):
    status, code, title = 400, "unsupported_checksum", "The checksum cannot be read"


class WrongUploadType(Problem):
    status, code, title = 415, "wrong_upload_type", "The body has the wrong media type"


def check_version(request: Request) -> None:
    """Raise UnsupportedTusVersion unless the request speaks our version."""
    version = request.headers.get("tus-resumable", "")
    if version != VERSION:
        raise UnsupportedTusVersion(version)


def check_body_type(request: Request) -> None:
    """Raise WrongUploadType unless the body is an upload's bytes."""
    content_type = request.headers.get("content-type", "")
    if content_type != BODY_TYPE:
        raise WrongUploadType(
            f"the body is {content_type or 'of no stated type'}: send its bytes as Content-Type: {BODY_TYPE}"
        )


def read_count(request: Request, header: str) -> int:
    """A header that holds a number of bytes.

    Raises:
        BadUploadHeader: it is missing, or not a plain number.
    """
    value = request.headers.get(header, "")
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise BadUploadHeader(f"{header} is {value!r}: send a whole number of bytes, 0 or more")
    return int(value)


def read_recording_id(request: Request) -> uuid.UUID:
    """The recording that `Upload-Metadata` names.

    Raises:
        BadUploadHeader: it names none, or not in the right form.
    """
    for pair in request.headers.get("upload-metadata", "").split(","):
        name, _, value = pair.strip().partition(" ")
        if name == "recording_id":
            try:
                return uuid.UUID(base64.b64decode(value, validate=True).decode("ascii"))
            except (ValueError, binascii.Error) as error:
                raise BadUploadHeader(
                    f"recording_id in Upload-Metadata is {value!r}: send the recording's id in base64"
                ) from error
    raise BadUploadHeader(
        "Upload-Metadata names no recording: send `Upload-Metadata: recording_id <the recording's id in base64>`"
    )


def read_checksum(request: Request) -> Checksum | None:
    """The digest announced for this request's bytes.

    Raises:
        UnsupportedChecksum: an unknown algorithm, or a digest of the wrong form.
    """
    value = request.headers.get("upload-checksum")
    if value is None:
        return None
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in ALGORITHMS:
        raise UnsupportedChecksum(f"Upload-Checksum names {algorithm!r}: use one of {', '.join(ALGORITHMS)}")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except ValueError:  # not base64, or not even ASCII
        digest = b""
    if len(digest) != {"sha256": 32, "sha1": 20}[algorithm]:
        raise UnsupportedChecksum(f"Upload-Checksum {value!r} holds no {algorithm} digest in base64")
    return Checksum(algorithm, digest)


def upload_headers(upload: Upload, settings: Settings, *, offset_bytes: int | None = None) -> dict[str, str]:
    """Where an unfinished upload stands."""
    expires_at = upload.updated_at + dt.timedelta(hours=settings.upload_expiry_h)
    return {
        "Upload-Offset": str(upload.offset_bytes if offset_bytes is None else offset_bytes),
        "Upload-Length": str(upload.length_bytes),
        "Upload-Expires": format_datetime(expires_at.astimezone(dt.UTC), usegmt=True),
        "Cache-Control": "no-store",
    }
