"""A tus client that is not ours can upload too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tusclient import client as tus


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # tuspy never closes its file
def test_tuspy_uploads_in_checked_chunks(
    client: httpx.Client, server_url: str, make_recording: Callable[..., Any], tmp_path: Path
) -> None:
    made = make_recording(received=False, media=bytes(range(256)) * 5_000)
    file = tmp_path / "tape.wav"
    file.write_bytes(made.media)
    uploader = tus.TusClient(f"{server_url}/v1/uploads", headers=made.owner.headers).uploader(
        str(file), metadata={"recording_id": str(made.id)}, chunk_size=300_000, upload_checksum=True
    )
    uploader.upload()
    recording = client.get(f"/v1/recordings/{made.id}", headers=made.owner.headers).json()
    assert recording["state"] == "received"
    assert recording["sha256"] == hashlib.sha256(made.media).hexdigest()
