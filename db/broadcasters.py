"""Broadcasters and their API keys.

A key reads `fono_<key_id>_<secret>`. The key id is public and found by index; of the secret only the SHA-256
is stored. A fast hash is enough because the secret is 256 random bits, not a password that can be guessed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

KEY_PREFIX = "fono"
KEY_ID_BYTES = 8
SECRET_BYTES = 32

NAME_FORM = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
KEY_FORM = re.compile(rf"{KEY_PREFIX}_([0-9a-f]{{{2 * KEY_ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")

NO_SECRET_SHA256 = hashlib.sha256(b"").digest()
"""Compared with where a key id is unknown, so that unknown and wrong take the same time."""

MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000


class BroadcasterNameMalformed(Exception):
    """A broadcaster's name is not a slug."""


class WeightOutOfRange(Exception):
    """A weight is none."""


class BroadcasterExists(Exception):
    """The name is taken."""


class BroadcasterUnknown(Exception):
    """No broadcaster has this name."""


class ApiKeyUnknown(Exception):
    """No key has this id."""


@dataclass(frozen=True)
class Broadcaster:
    """A tenant."""

    id: int
    name: str
    created_at: dt.datetime


@dataclass(frozen=True)
class ApiKey:
    """What is shown of a key: everything but its secret."""

    key_id: str
    broadcaster: str
    label: str
    created_at: dt.datetime
    revoked_at: dt.datetime | None


def create_broadcaster(connection: Connection, name: str) -> Broadcaster:
    """Add a broadcaster.

    Raises:
        BroadcasterNameMalformed: not 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or digit.
        BroadcasterExists: the name is taken.
    """
    if not NAME_FORM.fullmatch(name):
        raise BroadcasterNameMalformed(
            f"{name!r} cannot name a broadcaster: use 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit"
        )
    try:
        with connection.begin_nested():
            row = connection.execute(
                text("INSERT INTO broadcasters (name) VALUES (:name) RETURNING id, name, created_at"),
                {"name": name},
            ).one()
    except IntegrityError as error:
        raise BroadcasterExists(
            f"there is a broadcaster named {name} already: choose another name"
        ) from error
    return Broadcaster(row.id, row.name, row.created_at)


def find_broadcaster(connection: Connection, name: str) -> Broadcaster | None:
    """The broadcaster of this name."""
    row = connection.execute(
        text("SELECT id, name, created_at FROM broadcasters WHERE name = :name"), {"name": name}
    ).one_or_none()
    return Broadcaster(row.id, row.name, row.created_at) if row else None


def list_broadcasters(connection: Connection) -> list[Broadcaster]:
    """All broadcasters, by name."""
    rows = connection.execute(text("SELECT id, name, created_at FROM broadcasters ORDER BY name"))
    return [Broadcaster(row.id, row.name, row.created_at) for row in rows]


def set_weight(connection: Connection, broadcaster: str, weight: float) -> None:
    """Say how much of the queue a broadcaster is served beside others. What waits already keeps its place.

    Raises:
        BroadcasterUnknown: no broadcaster has this name.
        WeightOutOfRange: not 0.001 to 1,000.
    """
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise WeightOutOfRange(
            f"a weight is {MIN_WEIGHT} to {MAX_WEIGHT:,}, not {weight}: 2 is served twice as much as 1"
        )
    changed = connection.execute(
        text("UPDATE broadcasters SET weight = :weight WHERE name = :name"),
        {"weight": weight, "name": broadcaster},
    )
    if changed.rowcount == 0:
        raise BroadcasterUnknown(
            f"there is no broadcaster named {broadcaster!r}: list the keys to see their names"
        )


def create_api_key(connection: Connection, broadcaster: str, label: str = "") -> str:
    """Make a key for a broadcaster and return it whole: the only time that its secret can be read.

    Raises:
        BroadcasterUnknown: no broadcaster has this name.
    """
    owner = find_broadcaster(connection, broadcaster)
    if owner is None:
        raise BroadcasterUnknown(f"there is no broadcaster named {broadcaster!r}: create it first")
    key_id = secrets.token_hex(KEY_ID_BYTES)
    secret = secrets.token_hex(SECRET_BYTES)
    connection.execute(
        text(
            "INSERT INTO api_keys (broadcaster_id, key_id, secret_sha256, label) "
            "VALUES (:broadcaster_id, :key_id, :secret_sha256, :label)"
        ),
        {
            "broadcaster_id": owner.id,
            "key_id": key_id,
            "secret_sha256": hashlib.sha256(secret.encode()).digest(),
            "label": label,
        },
    )
    return f"{KEY_PREFIX}_{key_id}_{secret}"


def list_api_keys(connection: Connection, broadcaster: str | None = None) -> list[ApiKey]:
    """Keys, the revoked ones included, oldest first; of one broadcaster or of all."""
    rows = connection.execute(
        text(
            """
            SELECT k.key_id, b.name AS broadcaster, k.label, k.created_at, k.revoked_at
            FROM api_keys k JOIN broadcasters b ON b.id = k.broadcaster_id
            WHERE CAST(:broadcaster AS text) IS NULL OR b.name = :broadcaster
            ORDER BY k.id
            """
        ),
        {"broadcaster": broadcaster},
    )
    return [ApiKey(*row) for row in rows]


def revoke_api_key(connection: Connection, key_id: str) -> None:
    """End a key's validity, at once and for good. Revoking it again changes nothing.

    Raises:
        ApiKeyUnknown: no key has this id.
    """
    revoked = connection.execute(
        text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = :key_id"),
        {"key_id": key_id},
    )
    if revoked.rowcount == 0:
        raise ApiKeyUnknown(f"there is no API key with id {key_id!r}: list the keys to see their ids")


def find_broadcaster_by_key(connection: Connection, key: str) -> Broadcaster | None:
    """Whose key this is; None when it is malformed, unknown, wrong or revoked."""
    match = KEY_FORM.fullmatch(key)
    if match is None:
        return None
    key_id, secret = match.groups()
    row = connection.execute(
        text(
            """
            SELECT b.id, b.name, b.created_at, k.secret_sha256
            FROM api_keys k JOIN broadcasters b ON b.id = k.broadcaster_id
            WHERE k.key_id = :key_id AND k.revoked_at IS NULL
            """
        ),
        {"key_id": key_id},
    ).one_or_none()
    stored = bytes(row.secret_sha256) if row else NO_SECRET_SHA256
    matches = hmac.compare_digest(hashlib.sha256(secret.encode()).digest(), stored)
    return Broadcaster(row.id, row.name, row.created_at) if row and matches else None
