"""Error rates of a fine-tuning's texts."""

from __future__ import annotations

import pytest

from training.tuning.measuring import Written, rates_of


def written(speaker: str | None, reference: str, text: str) -> Written:
    return Written(id=reference, dataset="d", speaker=speaker, reference=reference, text=text, failure=None)


@pytest.mark.parametrize("speaker", [None, "pt+m7"])
def test_one_speaker_has_an_interval_over_what_that_one_said(speaker: str | None) -> None:
    rates = rates_of([written(speaker, f"unha frase {number}", "unha frase 0") for number in range(10)])
    assert rates.wer == pytest.approx(9 / 30)
    assert rates.wer_low < rates.wer < rates.wer_high
