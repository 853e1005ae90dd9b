"""Faint speech is raised for the detector, steadily, and nothing is lost on the way."""

import numpy as np
import pytest

from speech.levelling import MOST_GAIN_DB, TARGET_DBFS, Leveller
from tests.speech.media_files import Floats

SECOND = 16_000


def levelled(samples: Floats, portion: int = 10**9) -> Floats:
    leveller = Leveller()
    parts = [leveller.feed(samples[at : at + portion]) for at in range(0, len(samples), portion)]
    return np.concatenate([*parts, leveller.finish()])


def noise(seconds: float, level_dbfs: float, seed: int = 0) -> Floats:
    made = np.random.default_rng(seed).normal(size=int(seconds * SECOND)) * 10 ** (level_dbfs / 20)
    return made.astype(np.float32)


def level_dbfs(samples: Floats) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


def test_as_long_as_it_was_and_the_same_in_any_portions() -> None:
    samples = np.concatenate([noise(7.3, -40), noise(0.77, -10), noise(12.01, -55), noise(3, -90)])
    whole = levelled(samples)
    assert len(whole) == len(samples)
    for portion in (777, 8_000, 64_000):
        np.testing.assert_array_equal(levelled(samples, portion), whole)


@pytest.mark.parametrize("n_samples", [0, 1, 7_999, 8_000, 8_001])
def test_short_ones_too(n_samples: int) -> None:
    assert len(levelled(noise(1, -30)[:n_samples])) == n_samples


def test_faint_is_raised_to_the_level_and_no_further_than_allowed() -> None:
    assert level_dbfs(levelled(noise(20, -37))) == pytest.approx(TARGET_DBFS, abs=0.5)
    assert level_dbfs(levelled(noise(20, -60))) == pytest.approx(-60 + MOST_GAIN_DB, abs=0.5)


def test_loud_is_left_alone_and_silence_stays_silence() -> None:
    loud = noise(20, -14)
    np.testing.assert_array_equal(levelled(loud), loud)
    assert not levelled(np.zeros(20 * SECOND, np.float32)).any()


def test_the_gain_falls_before_something_loud_comes() -> None:
    raised = levelled(np.concatenate([noise(20, -50), noise(5, -12)]))
    assert level_dbfs(raised[19 * SECOND : 20 * SECOND]) < -49  # not a jump in the midst of a word
    assert level_dbfs(raised[5 * SECOND : 15 * SECOND]) > -27
