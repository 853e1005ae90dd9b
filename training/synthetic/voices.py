"""Which of espeak-ng's voice variants speak, and how they are drawn."""

from __future__ import annotations

import random

from training.synthetic.espeak import Delivery, Voice
from training.synthetic.pronunciation import TABLES

__all__ = ["SEEN_VARIANTS", "UNSEEN_VARIANTS", "draw_delivery", "draw_voice"]

_SEEN = (
    "f1 f2 f3 f4 m1 m2 m3 m4 m6 m8 Andrea Andy Annie Denis Diogo Gene Henrique Hugo Lee Mario Mike Nguyen Storm "
    "adam anika announcer antonio benjamin boris david ed gustave grandma grandpa iven iven4 john kaukovalta klatt "
    "klatt3 klatt4 linda marcelo max michel norbert pablo paul pedro quincy rob robert sandro shelby steph travis "
    "victor zac"
)
SEEN_VARIANTS = tuple(_SEEN.split())
"""Those that the training corpus is spoken with: all that sound like a person, but whispers and near copies."""
UNSEEN_VARIANTS = ("m5", "m7", "f5", "Alicia", "Michael", "miguel", "belinda", "aunty")
"""Those that only test sets are spoken with, none of them a near copy of one above."""


def draw_voice(rng: random.Random, *, unseen: bool = False) -> Voice:
    """A phoneme table and a variant, each as likely as the others."""
    return Voice(rng.choice(TABLES), rng.choice(UNSEEN_VARIANTS if unseen else SEEN_VARIANTS))


def draw_delivery(rng: random.Random) -> Delivery:
    """Speed, pitch and range as announcers and callers differ in them."""
    return Delivery(
        words_per_minute=rng.randint(128, 198),
        pitch=rng.randint(25, 75),
        pitch_range=rng.randint(20, 80),
        word_gap_10ms=rng.choice((0, 0, 0, 0, 1, 2)),
    )
