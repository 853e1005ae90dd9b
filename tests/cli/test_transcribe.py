"""`fonoteca transcribe`: a file here and now, by its own clock and the track that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Ended
from tests.speech.media_files import demo_sentence, sweep, video_file

SECOND = 16_000


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise on track 0 and speech on track 1, begun at ten o'clock."""
    voice = demo_sentence(0)
    noise = (sweep(len(voice) / SECOND) * 0.2).astype(np.float32)
    path = tmp_path_factory.mktemp("video") / "serán.mov"
    path.write_bytes(video_file([noise, voice], container="mov", tags={"timecode": "10:00:00:00"}))
    return path


def test_subtitles_count_from_the_files_clock(fonoteca: Callable[..., Ended], video: Path) -> None:
    ended = fonoteca("transcribe", video, "-f", "srt")
    assert ended.code == 0, ended.err
    assert "\n10:00:0" in ended.out


def test_a_track_that_is_none_is_told(fonoteca: Callable[..., Ended], video: Path) -> None:
    ended = fonoteca("transcribe", video, "--audio-track", "7")
    assert (ended.code, ended.out) == (1, "")
    assert "it has 2 audio track(s), and no track 7" in ended.err
    ended = fonoteca("transcribe", video, "--audio-track", "left")
    assert ended.code == 2
    assert "'left' is neither auto nor mix" in ended.err
