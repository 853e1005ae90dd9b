"""A sample of the mutation run (`make fuzz-media`): damaged files end in an error or in accounted holes."""

from __future__ import annotations

import pytest

from tests.fuzz_media import KINDS, SOURCES, damaged, outcome, worker_outcome


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS.__getitem__)
def test_damage_ends_in_an_error_or_in_accounted_holes(kind: int) -> None:
    for number in range(kind * len(SOURCES), (kind + 1) * len(SOURCES), 4):
        _, content = damaged(number, seed=0)
        assert outcome(content)


@pytest.mark.parametrize("number", [153, 1165])
def test_a_track_that_begins_late_does_not_end_the_reading(number: int) -> None:
    """Of run 1: a broken flv and transport stream in which a new track appears; the library knows no such index."""
    _, content = damaged(number, seed=1)
    assert outcome(content) in {"whole", "with holes"}


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS.__getitem__)
def test_damage_goes_the_whole_way_of_a_worker(kind: int) -> None:
    for number in range(kind * len(SOURCES), (kind + 1) * len(SOURCES), 40):
        _, content = damaged(number, seed=0)
        assert worker_outcome(content)


def test_a_recording_shorter_than_a_frame_has_a_copy_that_can_be_read() -> None:
    """Of run 3: 64 ms are left of a truncated vob."""
    _, content = damaged(77, seed=3)
    assert worker_outcome(content) == "whole"
