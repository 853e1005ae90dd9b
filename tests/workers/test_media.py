"""What a media worker makes of a file: the track that was asked for, its clock, what lies beside the working copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from tests.speech.media_files import demo_sentence, sweep, video_file
from workers.context import WorkerContext
from workers.split import split_one
from workers.transcribe import Transcriber, transcribe_pending

Query = Callable[..., list[Any]]
Make = Callable[..., Any]
SECOND = 16_000


@pytest.fixture(scope="module")
def video() -> bytes:
    """Noise on track 0 and speech on track 1, begun at ten o'clock."""
    voice = demo_sentence(0)
    voice = voice[: len(voice) - len(voice) % SECOND]
    noise = (sweep(len(voice) / SECOND) * 0.2).astype(np.float32)
    tags = {"timecode": "10:00:00:00", "title": "Serán", "date": "1987-11-21"}
    return video_file([noise, voice], container="mov", tags=tags)


def test_track_clock_and_tags_are_stored_and_shown(
    context: WorkerContext, make_recording: Make, query: Query, video: bytes
) -> None:
    chosen = make_recording(media=video, name="serán.mov")
    by_number = make_recording(media=video, audio_track="0", timecode_offset_ms=5_000)
    while split_one(context):
        pass
    rows = {
        row.id: row
        for row in query(
            "SELECT id, audio_track, media_info, timecode_offset_ms, duration_samples FROM recordings"
        )
    }
    row = rows[chosen.id]
    assert (row.audio_track, row.media_info["audio_track"], row.media_info["n_audio_tracks"]) == (
        "auto",
        1,
        2,
    )
    assert (row.media_info["title"], row.media_info["timecode"]) == ("Serán", "10:00:00:00")
    assert row.timecode_offset_ms == 36_000_000
    row = rows[by_number.id]
    assert (row.audio_track, row.media_info["audio_track"]) == ("0", 0)
    assert row.timecode_offset_ms == 5_000, "the submitter knows better than the file"
    columns = "audio_track_choice, audio_track, n_audio_tracks, file_title, file_date, file_timecode, timecode_offset_s"
    found = query(f"SELECT {columns} FROM archive.recordings WHERE recording_id = :id", id=chosen.id)
    assert found == [("auto", 1, 2, "Serán", "1987-11-21", "10:00:00:00", 36_000)]


def test_a_files_own_clock_goes_into_every_export(
    context: WorkerContext,
    transcriber: Transcriber,
    make_recording: Make,
    client: httpx.Client,
    owner: Any,
    video: bytes,
) -> None:
    made = make_recording(media=video, name="serán.mov")
    while split_one(context) or transcribe_pending(context, transcriber):
        pass
    url = f"/v1/recordings/{made.id}"
    recording = client.get(url, headers=owner.headers).json()
    assert (recording["state"], recording["timecode_offset"]) == ("completed", "10:00:00.000")
    shown = ("title", "audio_track", "n_audio_tracks", "timecode", "codec")
    assert [recording["media"][name] for name in shown] == ["Serán", 1, 2, "10:00:00:00", "pcm_s16le"]

    def exported(form: str, **more: str) -> str:
        answer = client.get(f"{url}/transcript", params={"format": form} | more, headers=owner.headers)
        assert answer.status_code == 200
        return answer.text

    for form in ("srt", "vtt", "ttml"):
        assert "10:00:0" in exported(form)
        assert "10:00:0" not in exported(form, timecode_offset="0")
    assert ";; the clock showed 10:00:00.000 at the start" in exported("ctm")
    assert json.loads(exported("json"))["timecode_offset"] == "10:00:00.000"
    answer = client.get("/v1/archive/segments", params={"format": "ndjson"}, headers=owner.headers)
    assert json.loads(answer.text.splitlines()[0])["start_timecode"].startswith("10:00:0")
    page = client.get(f"/recordings/{made.id}", headers=owner.headers | {"Accept": "text/html"}).text
    assert "timecode 10:00:00.000" in page
    assert "sound track 1 (0 to 1)" in page


def test_a_track_that_is_not_there_fails_the_recording(
    context: WorkerContext, make_recording: Make, query: Query, video: bytes
) -> None:
    make_recording(media=video, audio_track="5", name="serán.mov")
    assert split_one(context)
    ((code, reason),) = query("SELECT failure_code, failure_reason FROM recordings")
    assert code == "no_such_track"
    assert "serán.mov: it has 2 audio track(s), and no track 5" in reason
