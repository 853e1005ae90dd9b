"""An archive of synthetic Galician, bulk-made: what `make bench-search` searches.

Words are real Galician forms: the commonest function words in the order that texts have them, then forms of the
search lexicon in a seeded order, drawn by a Zipf-Mandelbrot law. A third of what is said are fixed phrases of two to
four words (themselves drawn by a Zipf law), so that phrases are frequent or rare as in speech. Some words are said in
the oldest tenth alone. Nothing else of the rows is left out: tokens, log-probabilities, recordings, transcripts.

The rows of `search_segments` are computed here, thousands a second, instead of by the database's own function;
`check_documents` proves on a sample that both make the same.
"""

from __future__ import annotations

import datetime as dt
import lzma
import math
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg

from db.lexicon import LEXICON_FILE
from db.make_lexicon import fold

FUNCTION_WORDS = """
de a que o e en do da os as un para con non unha por se no na dos das máis ao como pero foi á é está son ten
sobre entre ou tamén xa todo hai isto moi cando sen desde ata onde aínda tras contra porque nos nas ser pola polo
este esta ese esa eu ti el ela nós vós eles elas lle lles me te seu súa seus súas meu miña todos todas outro outra
outros outras ben así agora despois antes mentres segundo durante dous dúas tres catro cinco seis sete oito nove
dez cada mesmo mesma nin só quen cal cales canto algo nada alguén ninguén aquí alí hoxe onte mañá sempre nunca
""".split()  # noqa: SIM905 - read as text
VOCABULARY = 200_000
PHRASES = 30_000
PHRASE_SHARE = 0.33
MEAN_WORDS = 40
SEGMENTS_PER_RECORDING = 200
SEGMENT_S = 18
"""Seconds of a segment; 200 of them are an hour of broadcast."""
OLD_SHARE = 0.1
OLD_WORDS = 40
"""Words that only the oldest tenth holds: half of them in one of six of its segments, half in one of 5,000."""
PROGRAMMES = 40
FIRST_DAY = dt.date(1986, 1, 1)
LAST_DAY = dt.date(2026, 6, 30)
CHUNK = 20_000
REPEATS = 5


@dataclass(frozen=True)
class Vocabulary:
    """Words by rank, and what search makes of each."""

    words: list[str]
    folded: list[str]
    stems: list[str]
    """Behind `~`, as in a document."""
    chances: np.ndarray
    """float64 [words]: of being said, cumulated."""
    old: list[str]
    """Said in the oldest tenth alone; the first half often."""
    phrases: list[np.ndarray]
    """Ranks of the words of each phrase."""
    phrase_chances: np.ndarray


def make_vocabulary(connection: psycopg.Connection[Any], seed: int) -> Vocabulary:
    """Words, their chances and phrases; stems by the database."""
    rng = np.random.default_rng(seed)
    forms = [line.split("\t")[0] for line in lzma.decompress(LEXICON_FILE.read_bytes()).decode().splitlines()]
    content = [form for form in forms if form.isalpha() and form not in FUNCTION_WORDS and len(form) > 2]
    rng.shuffle(content)
    function = [word for word in FUNCTION_WORDS if len(word) > 0]
    n_old = OLD_WORDS
    old, content = content[:n_old], content[n_old : n_old + VOCABULARY - len(function)]
    words = [*dict.fromkeys(function), *content]
    ranks = np.arange(len(words)) + 1
    weights = 1.0 / (ranks + 2.7) ** 1.05
    everything = [*words, *old]
    found = dict(
        connection.execute(
            "SELECT w, '~' || array_to_string(search_stems(w), ' ~') FROM unnest(%s::text[]) w", [everything]
        ).fetchall()
    )
    cumulated = np.cumsum(weights / weights.sum())
    lengths = rng.choice([2, 3, 4], size=PHRASES, p=[0.5, 0.3, 0.2])
    drawn = np.searchsorted(cumulated, rng.random((PHRASES, 4)))
    phrases = [row[:length].astype(np.int64) for row, length in zip(drawn, lengths, strict=True)]
    phrase_weights = 1.0 / (np.arange(PHRASES) + 10.0)
    return Vocabulary(
        words=everything,
        folded=[fold(word) for word in everything],
        stems=[found[word] for word in everything],
        chances=cumulated,
        old=old,
        phrases=phrases,
        phrase_chances=np.cumsum(phrase_weights / phrase_weights.sum()),
    )


def texts(vocabulary: Vocabulary, rng: np.random.Generator, count: int, *, is_old: bool) -> list[list[int]]:
    """The words of `count` segments, by rank."""
    lengths = np.clip(rng.normal(MEAN_WORDS, 12, size=count), 4, 90).astype(int)
    total = int(lengths.sum())
    singles = np.searchsorted(vocabulary.chances, rng.random(total + 8)).tolist()
    n_phrases = int(total * PHRASE_SHARE / 2.7)
    chosen = np.searchsorted(vocabulary.phrase_chances, rng.random(n_phrases))
    places = rng.integers(0, total, size=n_phrases)
    for place, number in zip(places.tolist(), chosen.tolist(), strict=True):
        phrase = vocabulary.phrases[number]
        singles[place : place + len(phrase)] = phrase.tolist()
    found, at = [], 0
    first_old = len(vocabulary.words) - len(vocabulary.old)
    for length in lengths.tolist():
        found.append(singles[at : at + length])
        at += length
    if is_old:
        half = len(vocabulary.old) // 2
        for number in range(len(vocabulary.old)):
            share = 1 / 6 if number < half else 1 / 5000
            for index in np.flatnonzero(rng.random(count) < share).tolist():
                found[index][0] = first_old + number
    return found


@dataclass(frozen=True)
class Archive:
    """How the archive is laid out: what belongs to which recording."""

    n_segments: int
    seed: int
    recording_ids: list[str]
    transcript_ids: list[str]
    broadcasters: np.ndarray
    programmes: np.ndarray
    days: list[dt.date]


def lay_out(n_segments: int, seed: int) -> Archive:
    """Recordings of an hour, older ones first, of three broadcasters and forty programmes of unequal size."""
    rng = np.random.default_rng(seed + 1)
    n = -(-n_segments // SEGMENTS_PER_RECORDING)
    weights = 1.0 / (np.arange(PROGRAMMES) + 2.0)
    span = (LAST_DAY - FIRST_DAY).days
    days = np.clip(np.linspace(0, span, n) + rng.normal(0, 200, size=n), 0, span).astype(int)
    numbers = rng.integers(0, 2**62, size=(n, 2)).tolist()
    return Archive(
        n_segments,
        seed,
        [
            str(uuid.UUID(int=(index << 64) | 0x8000000000000000 | low >> 2))
            for index, (low, _) in enumerate(numbers)
        ],
        [
            str(uuid.UUID(int=(index << 64) | 0xA000000000000000 | low >> 3))
            for index, (_, low) in enumerate(numbers)
        ],
        rng.choice([1, 2, 3], size=n, p=[0.6, 0.3, 0.1]),
        rng.choice(PROGRAMMES, size=n, p=weights / weights.sum()),
        [FIRST_DAY + dt.timedelta(days=int(day)) for day in days],
    )


def facets(segment_id: int, broadcaster: int, model: int, programme_facet: str, day: dt.date) -> str:
    """What filters ask for, as `search_index` writes it."""
    return (
        f"/b{broadcaster} /m{model} {programme_facet} /c{day.year // 10} /y{day.year} /d{day:%Y%m} "
        f"/w{segment_id >> 12} /v{segment_id >> 15} /u{segment_id >> 18} /t{segment_id >> 21}"
    )


@dataclass(frozen=True)
class Said:
    """What one segment says: as its text, as its document without filters, and as pairs of words."""

    text: str
    document: str
    pairs: str


def say(archive: Archive, vocabulary: Vocabulary, group: int, *, is_old: bool) -> list[Said]:
    """The texts of a chunk of segments.

    Each group has its own seed: groups may be made in any order, by several processes.
    """
    rng = np.random.default_rng([archive.seed, group])
    words, folded, stems = vocabulary.words, vocabulary.folded, vocabulary.stems
    heads = [f"{word}:" for word in folded]
    tails = [f" {stem}" for stem in stems]
    encoded = [word.encode() for word in folded]
    before = [zlib.crc32(word + b" ") for word in encoded]
    numbers = [str(number) for number in range(100)]
    return [
        Said(
            " ".join([words[rank] for rank in ranks]),
            " ".join(
                [heads[rank] + numbers[place] + tails[rank] for place, rank in enumerate(ranks, start=1)]
            ),
            ",".join(
                [str(zlib.crc32(encoded[right], before[left]) & 1048575) for left, right in pairwise(ranks)]
            ),
        )
        for ranks in texts(vocabulary, rng, CHUNK, is_old=is_old)
    ]


def old_chunks(archive: Archive) -> int:
    """How many chunks, from the first, are the oldest tenth."""
    return math.ceil(-(-archive.n_segments // CHUNK) * OLD_SHARE)


def groups(archive: Archive) -> dict[int, list[int]]:
    """Chunks by what they say: those of the oldest tenth each their own texts, of the others five the same.

    Making texts is what takes longest; five segments of a hundred that say the same change no frequency.
    """
    n_chunks = -(-archive.n_segments // CHUNK)
    n_old = old_chunks(archive)
    n_groups = -(-(n_chunks - n_old) // REPEATS)
    found: dict[int, list[int]] = {chunk: [chunk] for chunk in range(n_old)}
    for chunk in range(n_old, n_chunks):
        found.setdefault(n_old + (chunk - n_old) % n_groups, []).append(chunk)
    return found


def rows(
    archive: Archive, said: list[Said], programme_facets: list[str], chunk: int
) -> Iterator[tuple[str, str]]:
    """(line of `segments`, line of `search_segments`) for COPY, of one chunk of segments that say `said`."""
    rng = np.random.default_rng([archive.seed, chunk, 1])
    first = chunk * CHUNK
    count = min(CHUNK, archive.n_segments - first)
    tokens = ["{" + ",".join(map(str, rng.integers(0, 200_000, size=60).tolist())) + "}" for _ in range(200)]
    logprobs = [
        "{" + ",".join(f"{value:.5f}" for value in -rng.exponential(0.1, size=60)) + "}" for _ in range(200)
    ]
    means = np.round(-rng.exponential(0.1, size=count), 5).tolist()
    for offset in range(count):
        segment_id = first + offset + 1
        recording, index = divmod(segment_id - 1, SEGMENTS_PER_RECORDING)
        day = archive.days[recording]
        broadcaster = int(archive.broadcasters[recording])
        recording_id = archive.recording_ids[recording]
        start = index * SEGMENT_S * 16_000
        what = said[offset]
        yield (
            f"{segment_id}\t{broadcaster}\t{recording_id}\t{archive.transcript_ids[recording]}\t{index}\t{start}\t"
            f"{start + SEGMENT_S * 16_000 - 8_000}\tdone\t1\t1\t{what.text}\t{tokens[offset % 200]}\t"
            f"{logprobs[offset % 200]}\t{means[offset]}\t{day} 12:00+00\n",
            f"{segment_id}\t{broadcaster}\t{recording_id}\t{day}\t{what.document} "
            f"{facets(segment_id, broadcaster, model_of(day), programme_facets[archive.programmes[recording]], day)}\t"
            f"{{{what.pairs}}}\n",
        )


def model_of(day: dt.date) -> int:
    """Which of the two models transcribed what was broadcast that day."""
    return 1 if day.year < 2010 else 2
