"""Channels mixed to one: nothing is lost by the way they are laid out."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from speech.audio import MediaReader
from tests.speech.media_files import Floats, sweep

SECOND = 16_000


def mixed(*channels: Floats, layout_mask: int = 0) -> Floats:
    """What is read of a wav with these channels; a mask of 0 says nothing of where they stand."""
    n = len(channels)
    body = (np.stack(channels, axis=1) * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 0xFFFE, n, SECOND, SECOND * 2 * n, 2 * n, 16) + struct.pack(
        "<HHI16s", 22, 16, layout_mask, bytes.fromhex("0100000000001000800000aa00389b71")
    )
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(body)) + body
    content = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    with MediaReader(io.BytesIO(content), name="fita") as media:
        return np.concatenate([block.samples for block in media.blocks()])


def level_db(found: Floats, voice: Floats) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(found**2) / np.mean(voice**2))))


VOICE = sweep(2)
SILENCE = np.zeros_like(VOICE)
STEREO, SURROUND = 3, 0x3F


def test_a_side_wired_the_wrong_way_round_is_heard() -> None:
    np.testing.assert_allclose(mixed(VOICE, -VOICE, layout_mask=STEREO), VOICE, atol=1e-3)
    weaker = mixed(VOICE, -0.8 * VOICE, layout_mask=STEREO)
    assert level_db(weaker, VOICE) > -21


def test_dual_mono_and_one_side_alone() -> None:
    np.testing.assert_allclose(mixed(VOICE, VOICE, layout_mask=STEREO), VOICE, atol=1e-3)
    np.testing.assert_allclose(mixed(VOICE, SILENCE, layout_mask=STEREO), VOICE / 2, atol=1e-3)


def test_one_microphone_of_sixteen_is_heard() -> None:
    np.testing.assert_allclose(mixed(*[SILENCE] * 10, VOICE, *[SILENCE] * 5), VOICE, atol=1e-3)


@pytest.mark.parametrize(
    ("place", "db"), [(0, -13.7), (2, -10.7), (4, -16.7)], ids=["left", "centre", "rear"]
)
def test_the_centre_of_surround_sound_is_the_loudest(place: int, db: float) -> None:
    channels = [SILENCE] * 6
    channels[place] = VOICE
    assert level_db(mixed(*channels, layout_mask=SURROUND), VOICE) == pytest.approx(db, abs=0.1)
