"""Keys are shown once, stored as digests, compared whole, and end when revoked."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import Engine, text

from db.broadcasters import (
    ApiKeyUnknown,
    BroadcasterExists,
    BroadcasterNameMalformed,
    BroadcasterUnknown,
    create_api_key,
    create_broadcaster,
    find_broadcaster,
    find_broadcaster_by_key,
    list_api_keys,
    list_broadcasters,
    revoke_api_key,
)
from db.connect import transaction


def test_a_key_stands_for_its_broadcaster_and_for_no_other(engine: Engine) -> None:
    with transaction(engine) as tx:
        for name in ("radio-galega", "tvg"):
            create_broadcaster(tx.connection, name)
        keys = {name: create_api_key(tx.connection, name) for name in ("radio-galega", "tvg")}
    with engine.connect() as connection:
        for name, key in keys.items():
            found = find_broadcaster_by_key(connection, key)
            assert found == find_broadcaster(connection, name)
        mixed = keys["tvg"].rsplit("_", 1)[0] + "_" + keys["radio-galega"].rsplit("_", 1)[1]
        assert find_broadcaster_by_key(connection, mixed) is None


def test_only_the_digest_of_a_secret_is_stored(engine: Engine) -> None:
    with transaction(engine) as tx:
        create_broadcaster(tx.connection, "radio-galega")
        key = create_api_key(tx.connection, "radio-galega", label="newsroom")
        prefix, key_id, secret = key.split("_")
        row = tx.connection.execute(text("SELECT * FROM api_keys")).one()
        assert prefix == "fono"
        assert len(bytes.fromhex(secret)) * 8 >= 256
        assert row.key_id == key_id
        assert bytes(row.secret_sha256) == hashlib.sha256(secret.encode()).digest()
        assert secret not in str(row)
        (shown,) = list_api_keys(tx.connection)
        assert (shown.key_id, shown.broadcaster, shown.label) == (key_id, "radio-galega", "newsroom")


def test_a_changed_key_is_unknown(engine: Engine) -> None:
    with transaction(engine) as tx:
        create_broadcaster(tx.connection, "radio-galega")
        key = create_api_key(tx.connection, "radio-galega")
        last = "0" if key[-1] != "0" else "1"
        for wrong in ("", "fono_", key[:-1] + last, key.upper(), key + "0", f" {key}", key[:-1] + "\u0661"):
            assert find_broadcaster_by_key(tx.connection, wrong) is None, wrong


def test_a_revoked_key_is_unknown_and_stays_listed(engine: Engine) -> None:
    with transaction(engine) as tx:
        create_broadcaster(tx.connection, "radio-galega")
        key, other = (create_api_key(tx.connection, "radio-galega") for _ in range(2))
        revoke_api_key(tx.connection, key.split("_")[1])
        revoke_api_key(tx.connection, key.split("_")[1])
        assert find_broadcaster_by_key(tx.connection, key) is None
        assert find_broadcaster_by_key(tx.connection, other) is not None
        assert [shown.revoked_at is None for shown in list_api_keys(tx.connection, "radio-galega")] == [
            False,
            True,
        ]
        assert list_api_keys(tx.connection, "nobody") == []


def test_a_name_that_is_no_slug_is_refused(engine: Engine) -> None:
    with transaction(engine) as tx:
        for name in ("", "Radio", "radio galega", "-radio", "radio_galega", "r" * 64, "radio\n"):
            with pytest.raises(BroadcasterNameMalformed, match="use 1 to 63"):
                create_broadcaster(tx.connection, name)


def test_names_are_unique_and_keys_need_a_broadcaster(engine: Engine) -> None:
    with transaction(engine) as tx:
        create_broadcaster(tx.connection, "radio-galega")
        with pytest.raises(BroadcasterExists, match="radio-galega"):
            create_broadcaster(tx.connection, "radio-galega")
        with pytest.raises(BroadcasterUnknown, match="tvg"):
            create_api_key(tx.connection, "tvg")
        with pytest.raises(ApiKeyUnknown, match="abc"):
            revoke_api_key(tx.connection, "abc")
        assert [broadcaster.name for broadcaster in list_broadcasters(tx.connection)] == ["radio-galega"]
