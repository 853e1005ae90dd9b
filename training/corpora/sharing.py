"""What utterances of a manifest share: duplicates, prompts that many speakers read, leaks from held-out splits.

Texts are compared as the model card compares them (`BasicTextNormalizer`). Audio is compared by its samples, so that
the same sound in another container is found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.overlap import ManifestRow, Overlap, find_overlaps
from evaluation.score import basic_normalizer
from training.manifest import Utterance

MANY_SPEAKERS = 5
"""From so many speakers (or readings) of one text on, it is a prompt, not a sentence."""
PROMPTED_SHARE = 0.2
"""Of a dataset's rows: from here on the report warns."""


class Leak(StrEnum):
    """What a row of `train` shares with one of `validation` or `test`."""

    AUDIO = "audio"
    TEXT = "text"
    """Within a dataset and across datasets."""
    SPEAKER = "speaker"
    """Within a dataset: names of different datasets are different people, or are not known to be the same."""
    PROGRAMME = "programme"


@dataclass(frozen=True)
class Prepared:
    """An utterance, and what it is compared by."""

    utterance: Utterance
    samples_sha256: str
    text_key: str


@dataclass(frozen=True)
class Duplicates:
    """Within and across datasets and splits. Groups have at least two rows."""

    audio_groups: tuple[tuple[Prepared, ...], ...]
    """The same sound."""
    text_groups: tuple[tuple[Prepared, ...], ...]
    """The same text by the same speaker of one dataset, in different recordings."""

    @property
    def n_audio_conflicts(self) -> int:
        """Groups of the same sound with different texts: at least one of them is wrong."""
        return sum(len({row.text_key for row in group}) > 1 for group in self.audio_groups)


@dataclass(frozen=True)
class Prompts:
    """How often the texts of a dataset are read."""

    dataset: str
    n_rows: int
    n_texts: int
    """Different ones."""
    most_speakers: int
    """Of one text. Where speakers are not known, readings."""
    n_rows_of_many: int
    """Rows whose text has at least `MANY_SPEAKERS` speakers."""
    knows_speakers: bool

    @property
    def is_prompted(self) -> bool:
        return self.n_rows_of_many > PROMPTED_SHARE * self.n_rows


@dataclass(frozen=True)
class LeakCount:
    """How much of a dataset's train split shares something with a held-out split."""

    dataset: str
    kind: Leak
    n_rows: int
    duration_s: float


@dataclass(frozen=True)
class Leaks:
    """Leaks, seen from train (what would have to go) and from the held-out splits (what is flattered)."""

    by_row: Mapping[str, frozenset[Leak]]
    """Id of each leaking row of train to what it shares."""
    counts: tuple[LeakCount, ...]
    held_out: Mapping[str, tuple[Overlap, ...]]
    """Split to what of it is in train, near-duplicates of texts included."""


def text_key(text: str) -> str:
    """Texts with the same key are the same; empty texts have none."""
    return " ".join(basic_normalizer(text).split())


def find_duplicates(rows: Sequence[Prepared]) -> Duplicates:
    """Groups in the order of their first rows."""
    by_audio: defaultdict[str, list[Prepared]] = defaultdict(list)
    by_text: defaultdict[tuple[str, str, str], list[Prepared]] = defaultdict(list)
    for row in rows:
        by_audio[row.samples_sha256].append(row)
        utterance = row.utterance
        if utterance.speaker and row.text_key:
            by_text[utterance.dataset, utterance.speaker, row.text_key].append(row)
    same_text = [group for group in by_text.values() if len({row.samples_sha256 for row in group}) > 1]
    return Duplicates(
        tuple(tuple(group) for group in by_audio.values() if len(group) > 1),
        tuple(tuple(group) for group in same_text),
    )


def find_prompts(rows: Sequence[Prepared]) -> tuple[Prompts, ...]:
    """For each dataset, in the rows' order."""
    found = []
    for dataset in dict.fromkeys(row.utterance.dataset for row in rows):
        own = [row for row in rows if row.utterance.dataset == dataset and row.text_key]
        if not own:
            continue
        speakers: defaultdict[str, set[str]] = defaultdict(set)
        for row in own:
            speakers[row.text_key].add(row.utterance.speaker or "")
        knows = all(row.utterance.speaker for row in own)
        readings = Counter(row.text_key for row in own)
        n_readers = {text: len(speakers[text]) if knows else readings[text] for text in speakers}
        found.append(
            Prompts(
                dataset=dataset,
                n_rows=len(own),
                n_texts=len(n_readers),
                most_speakers=max(n_readers.values()),
                n_rows_of_many=sum(n_readers[row.text_key] >= MANY_SPEAKERS for row in own),
                knows_speakers=knows,
            )
        )
    return tuple(found)


def find_leaks(rows: Sequence[Prepared], *, similar: bool = True) -> Leaks:
    """What `train` shares with `validation` and `test`.

    Args:
        similar: also look for nearly equal texts, seen from the held-out splits (`evaluation.overlap`).
    """
    train = [row for row in rows if row.utterance.split == "train"]
    held_out = [row for row in rows if row.utterance.split != "train"]
    known: dict[Leak, set[object]] = {kind: set() for kind in Leak}
    for row in held_out:
        for kind, value in _shareable(row).items():
            known[kind].add(value)
    by_row: dict[str, frozenset[Leak]] = {}
    n_rows: Counter[tuple[str, Leak]] = Counter()
    seconds: defaultdict[tuple[str, Leak], float] = defaultdict(float)
    for row in train:
        shared = frozenset(kind for kind, value in _shareable(row).items() if value in known[kind])
        if not shared:
            continue
        by_row[row.utterance.id] = shared
        for kind in shared:
            n_rows[row.utterance.dataset, kind] += 1
            seconds[row.utterance.dataset, kind] += row.utterance.duration_s
    datasets = dict.fromkeys(row.utterance.dataset for row in train)
    counts = tuple(
        LeakCount(dataset, kind, n_rows[dataset, kind], seconds[dataset, kind])
        for dataset in datasets
        for kind in Leak
        if n_rows[dataset, kind]
    )
    splits = dict.fromkeys(row.utterance.split for row in held_out)
    keys = {row.utterance.text: row.text_key for row in rows}
    seen_from = {
        split: find_overlaps(
            _manifest_rows(train),
            list(_manifest_rows(row for row in held_out if row.utterance.split == split)),
            normalizer=keys.__getitem__,  # of each text once: normalising is most of the work
        )
        for split in (splits if similar else ())
    }
    return Leaks(by_row, counts, seen_from)


def _shareable(row: Prepared) -> dict[Leak, object]:
    utterance = row.utterance
    values: dict[Leak, object] = {Leak.AUDIO: row.samples_sha256}
    if row.text_key:
        values[Leak.TEXT] = row.text_key
    if utterance.speaker:
        values[Leak.SPEAKER] = (utterance.dataset, utterance.speaker)
    if utterance.programme:
        values[Leak.PROGRAMME] = (utterance.dataset, utterance.programme)
    return values


def _manifest_rows(rows: Iterable[Prepared]) -> Iterable[ManifestRow]:
    for row in rows:
        utterance = row.utterance
        yield ManifestRow(
            audio=utterance.audio,
            text=utterance.text,
            duration_s=utterance.duration_s,
            dataset=utterance.dataset,
            split=utterance.split,
            speaker=utterance.speaker,
            programme=utterance.programme,
            sha256=row.samples_sha256,
        )
