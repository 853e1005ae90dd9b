"""Nights through the whole system as `fonoteca up` runs it; `make ten-nights` is the long form, and
`make test PYTEST_ARGS="-m long"` the short one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ten_nights import FIRST_NIGHT, SETS, SHORT, Night, faults, live


@pytest.mark.long
def test_the_nights_say_what_happened_and_nothing_else(tmp_path: Path) -> None:
    """Quiet, then one programme degraded (drift, by its name), then a worse model (regression on every set)."""
    nights = live(SHORT, tmp_path, lambda _: None)
    assert faults(SHORT, nights) == []
    pages = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert pages == [f"{night.night}.{language}.html" for night in nights for language in ("en", "es", "gl")]


def test_a_night_that_says_nothing_of_it_is_a_fault() -> None:
    """The judge of the test above can say no."""
    said = {f"regression {name}": "ok" for name in SETS}
    silent = [Night(FIRST_NIGHT, said, frozenset(), ()) for _ in range(SHORT.n_nights)]
    found = faults(SHORT, silent)
    assert any("expected ['drift production']" in fault for fault in found)
    assert any("radio is ok, expected regressed" in fault for fault in found)
