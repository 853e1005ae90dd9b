"""Peaks over HTTP: what a player draws before it plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from db.media_store import MediaStore, peaks_key


def test_peaks_are_sent_as_audio_is(
    client: httpx.Client,
    owner: Any,
    make_broadcaster: Callable[..., Any],
    make_recording: Callable[..., Any],
    make_transcript: Callable[..., Any],
    media_store: MediaStore,
    tmp_path: Path,
) -> None:
    made = make_transcript()
    url = f"/v1/recordings/{made.id}/peaks"
    old = client.get(url, headers=owner.headers)
    assert (old.status_code, old.json()["code"]) == (404, "peaks_missing")
    assert f"/v1/recordings/{made.id}/audio" in old.json()["detail"]

    content = bytes(range(256)) * 10
    (tmp_path / "peaks").write_bytes(content)
    media_store.put_file(peaks_key(f"{owner.id}/{made.id}/working-1.flac"), tmp_path / "peaks")
    whole = client.get(url, headers=owner.headers)
    assert (whole.status_code, whole.content) == (200, content)
    # pairs 10 to 19 alone, as a player asks for those that it shows
    part = client.get(url, headers=owner.headers | {"Range": "bytes=44-63"})
    assert (part.status_code, part.content) == (206, content[44:64])
    known = client.get(url, headers=owner.headers | {"If-None-Match": f'W/"other", {whole.headers["ETag"]}'})
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", whole.headers["ETag"])

    assert client.get(url, headers=make_broadcaster().headers).status_code == 404
    assert client.get(url).status_code == 401
    early = client.get(f"/v1/recordings/{make_recording().id}/peaks", headers=owner.headers)
    assert (early.status_code, early.json()["code"]) == (409, "audio_not_ready")
