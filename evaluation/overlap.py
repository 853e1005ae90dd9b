"""What training data and held-out sets share: texts, audio, speakers, programmes. Shared things flatter the scores.

Near-duplicate texts are found exactly, not by sampling: texts whose sets of word trigrams have a Jaccard similarity of
at least 0.8. A pair that similar must share one of the few rarest trigrams of each, so only those are looked up
(prefix filtering: Bayardo, Ma & Srikant, "Scaling up all pairs similarity search", WWW 2007, section 4; Xiao et al.,
"Efficient similarity joins for near duplicate detection", WWW 2008, section 3).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.score import Normalizer, basic_normalizer

SIMILARITY = 0.8
SHINGLE_WORDS = 3
MAX_EXAMPLES = 5

Shingle = tuple[str, ...]


@dataclass(frozen=True)
class ManifestRow:
    """One utterance of a training manifest or of a held-out set."""

    audio: str
    """Path or address of the clip."""
    text: str
    duration_s: float
    dataset: str
    """For example "CommonVoice"."""
    split: str
    """For example "train" or "test"."""
    speaker: str | None = None
    programme: str | None = None
    sha256: str | None = None
    """Of the clip's bytes; None where it was not computed."""


class Shared(StrEnum):
    """What two utterances share."""

    TEXT = "text"
    """The same after normalising."""
    SIMILAR_TEXT = "similar_text"
    """Nearly the same, and not the same."""
    AUDIO = "audio"
    SPEAKER = "speaker"
    PROGRAMME = "programme"


@dataclass(frozen=True)
class Example:
    """One held-out utterance and a training utterance that shares something with it."""

    held_out: ManifestRow
    training: ManifestRow


@dataclass(frozen=True)
class Overlap:
    """How much of one held-out set shares one thing with the training data."""

    dataset: str
    kind: Shared
    n_utterances: int
    """Held-out utterances that share it."""
    n_known: int
    """Held-out utterances of which it is known: with a text, a hash, a speaker or a programme."""
    n_values: int
    """Distinct texts, hashes, speakers or programmes that are shared."""
    duration_s: float
    """Of the held-out utterances that share it."""
    examples: tuple[Example, ...]

    @property
    def share(self) -> float:
        return self.n_utterances / self.n_known if self.n_known else 0.0


def find_overlaps(
    training: Iterable[ManifestRow],
    held_out: Sequence[ManifestRow],
    *,
    normalizer: Normalizer = basic_normalizer,
    similarity: float = SIMILARITY,
    max_examples: int = MAX_EXAMPLES,
) -> tuple[Overlap, ...]:
    """Every held-out set against the training data, for each kind of overlap, in the order of `held_out`.

    Args:
        training: read once, row by row; only one row for each shared value is kept.
        held_out: of one or more datasets.
        normalizer: of texts before they are compared. Empty texts are not compared.
        similarity: Jaccard similarity of word trigrams from which texts are nearly the same.
        max_examples: kept for each held-out set and kind.

    Speakers and programmes are compared within a dataset's own naming: "ana" of one dataset is not "ana" of another.
    Audio and texts are compared across datasets.
    """
    texts = [normalizer(row.text).strip() for row in held_out]
    index = _SimilarTexts([text for text in dict.fromkeys(texts) if text], similarity)
    known_texts = set(texts) - {""}
    wanted = {
        kind: {value for row in held_out if (value := key(row)) is not None} for kind, key in _KEYS.items()
    }
    first: dict[Shared, dict[object, ManifestRow]] = {kind: {} for kind in Shared}
    seen: set[str] = set()
    for row in training:
        for kind, key in _KEYS.items():
            value = key(row)
            if value in wanted[kind]:
                first[kind].setdefault(value, row)
        text = normalizer(row.text).strip()
        if not text or text in seen:
            continue
        seen.add(text)
        if text in known_texts:
            first[Shared.TEXT].setdefault(text, row)
        for similar in index.similar(text):
            first[Shared.SIMILAR_TEXT].setdefault(similar, row)
    rows = list(zip(held_out, texts, strict=True))
    found = []
    for dataset in dict.fromkeys(row.dataset for row in held_out):
        own = [(row, text) for row, text in rows if row.dataset == dataset]
        for kind in Shared:
            keyed = [(row, _KEYS[kind](row) if kind in _KEYS else text or None) for row, text in own]
            found.append(_overlap(dataset, kind, keyed, first[kind], max_examples))
    return tuple(found)


_KEYS: dict[Shared, Callable[[ManifestRow], object]] = {
    Shared.AUDIO: lambda row: row.sha256.lower() if row.sha256 else None,
    Shared.SPEAKER: lambda row: (row.dataset, row.speaker) if row.speaker else None,
    Shared.PROGRAMME: lambda row: (row.dataset, row.programme) if row.programme else None,
}


def _overlap(
    dataset: str,
    kind: Shared,
    rows: Sequence[tuple[ManifestRow, object]],
    first: dict[object, ManifestRow],
    max_examples: int,
) -> Overlap:
    shared = [(row, value) for row, value in rows if value is not None and value in first]
    values = dict.fromkeys(value for _, value in shared)
    held_by_value: dict[object, ManifestRow] = {}
    for row, value in shared:
        held_by_value.setdefault(value, row)
    return Overlap(
        dataset=dataset,
        kind=kind,
        n_utterances=len(shared),
        n_known=sum(value is not None for _, value in rows),
        n_values=len(values),
        duration_s=sum(row.duration_s for row, _ in shared),
        examples=tuple(Example(held_by_value[value], first[value]) for value in list(values)[:max_examples]),
    )


def shingles(text: str) -> frozenset[Shingle]:
    """The word trigrams of a normalised text, with marks for its beginning and end: never empty."""
    words = ["<", *text.split(), ">"]
    size = min(SHINGLE_WORDS, len(words))
    return frozenset(tuple(words[at : at + size]) for at in range(len(words) - size + 1))


class _SimilarTexts:
    """Held-out texts by their rarest shingles."""

    def __init__(self, texts: Sequence[str], similarity: float) -> None:
        self._texts = texts
        self._similarity = similarity
        self._sets = [shingles(text) for text in texts]
        self._counts = Counter(shingle for found in self._sets for shingle in found)
        self._by_shingle: defaultdict[Shingle, list[int]] = defaultdict(list)
        for number, found in enumerate(self._sets):
            for shingle in self._prefix(found):
                self._by_shingle[shingle].append(number)

    def _prefix(self, found: frozenset[Shingle]) -> list[Shingle]:
        """The rarest shingles, as many as two similar texts cannot both do without."""
        ordered = sorted(found, key=lambda shingle: (self._counts[shingle], shingle))
        # similar texts share at least similarity * size of them: leave that many less one out, and one must remain
        return ordered[: len(found) - math.ceil(self._similarity * len(found) - 1e-9) + 1]

    def similar(self, text: str) -> list[str]:
        """The held-out texts that are nearly `text`, and not equal to it."""
        found = shingles(text)
        candidates = {
            number for shingle in self._prefix(found) for number in self._by_shingle.get(shingle, ())
        }
        similar = []
        for number in sorted(candidates):
            other = self._sets[number]
            common = len(found & other)
            is_similar = common >= self._similarity * (len(found) + len(other) - common) - 1e-9
            if is_similar and self._texts[number] != text:
                similar.append(self._texts[number])
        return similar
