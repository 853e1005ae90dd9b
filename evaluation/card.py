"""The model card's own figures on its test sets, to stand beside ours."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class CardFigure:
    """One line of the card's table: `BasicTextNormalizer`, rates as fractions."""

    dataset: str
    n_utterances: int
    wer: float
    cer: float


COMBINED = "Combined"

CARD = (
    CardFigure("CommonVoice", 14_563, 0.0290, 0.0073),
    CardFigure("FLEURS", 212, 0.0771, 0.0419),
    CardFigure("Transcrispeech", 1_710, 0.1168, 0.0487),
    CardFigure("FalAI", 47_760, 0.0024, 0.0012),
    CardFigure("OpenSLR", 282, 0.0493, 0.0193),
    CardFigure(COMBINED, 64_527, 0.0213, 0.0081),
)
"""Figures of the Galician fine-tune's card, in its order."""

_OTHER_NAMES = {
    "commonvoicegl": "commonvoice",
    "mozillacommonvoice": "commonvoice",
    "cv": "commonvoice",
    "fleursgl": "fleurs",
    "googlefleurs": "fleurs",
    "fleursgles": "fleurs",
    "falaigl": "falai",
    "proxectonosfalai": "falai",
    "openslr77": "openslr",
    "slr77": "openslr",
    "transcrispeechgl": "transcrispeech",
}
_BY_NAME = {figure.dataset.lower(): figure for figure in CARD}


def card_figure(dataset: str) -> CardFigure | None:
    """The card's figures for a dataset, whichever way its name is usually written; None where it has none."""
    plain = re.sub(r"[^a-z0-9]", "", dataset.lower())
    return _BY_NAME.get(_OTHER_NAMES.get(plain, plain))
