"""A split for corpora that come without one: seeded, and no speaker on both sides.

Groups (all rows of a speaker, or of a text) are ordered by a hash of seed, dataset and group, and taken into `test`,
then into `validation`, until each has its share of rows. A group's place does not depend on which other groups there
are, so a corpus that grows keeps nearly all of its split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from training.corpora.reading import ListedRow


class SplitBy(StrEnum):
    """What is kept on one side."""

    SPEAKER = "speaker"
    TEXT = "text"


@dataclass(frozen=True)
class NewSplit:
    """How a corpus without splits is split."""

    share: float
    """Of the rows for `validation`, and again for `test`: 0.05 leaves 0.9 to `train`."""
    seed: int = 0
    by: SplitBy = SplitBy.SPEAKER


def split_rows(
    rows: Sequence[ListedRow], new: NewSplit, *, key_of_text: Callable[[str], str]
) -> list[ListedRow]:
    """The rows, each with its split, in their order.

    Args:
        key_of_text: texts with the same key are the same. Rows whose speaker is not known are grouped by text, too.
    """
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_speaker = new.by is SplitBy.SPEAKER and row.speaker
        group = f"speaker {row.speaker}" if by_speaker else f"text {key_of_text(row.text)}"
        groups.setdefault(group, []).append(number)
    splits = ["train"] * len(rows)
    wanted = new.share * len(rows)
    targets = ["test", "validation"]
    n_taken = 0
    for group in sorted(groups, key=lambda group: _place(new.seed, rows[0].dataset, group)):
        # one that is larger than what is to be taken in all would take train's speech: the next may fit
        if not targets or len(groups[group]) > max(2 * wanted, 1):
            continue
        for number in groups[group]:
            splits[number] = targets[0]
        n_taken += len(groups[group])
        if n_taken >= wanted:
            targets.pop(0)
            n_taken = 0
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _place(seed: int, dataset: str, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{dataset}\0{group}".encode()).digest()
