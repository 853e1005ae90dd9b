"""Which words are taken for which: counted over jiwer's alignments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from evaluation.counts import BLOCK_UTTERANCES


@dataclass(frozen=True)
class Confusion:
    """One error and how often it was made."""

    reference: str
    """Empty for an inserted word."""
    hypothesis: str
    """Empty for a deleted word."""
    count: int


def confusions(refs: Sequence[str], hyps: Sequence[str], limit: int | None = None) -> tuple[Confusion, ...]:
    """Word errors of normalised texts, the most frequent first; ties in the order of the words.

    Where alignments are equally short, jiwer's choice decides which words are paired.
    """
    found: Counter[tuple[str, str]] = Counter()
    different = [index for index, pair in enumerate(zip(refs, hyps, strict=True)) if pair[0] != pair[1]]
    for start in range(0, len(different), BLOCK_UTTERANCES):
        block = different[start : start + BLOCK_UTTERANCES]
        aligned = jiwer.process_words([refs[index] for index in block], [hyps[index] for index in block])
        for ref, hyp, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True):
            for chunk in chunks:
                said = ref[chunk.ref_start_idx : chunk.ref_end_idx]
                written = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
                if chunk.type == "substitute":
                    found.update(zip(said, written, strict=True))
                elif chunk.type == "delete":
                    found.update((word, "") for word in said)
                elif chunk.type == "insert":
                    found.update(("", word) for word in written)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Confusion(said, written, count) for (said, written), count in ordered[:limit])
