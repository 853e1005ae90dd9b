"""Error rates by generation: with the engine that production uses, never from the training loss.

Clips are dealt out to the processes of a run; the counts are jiwer's (`evaluation.score`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch.distributed
from transformers import Phi4MultimodalForCausalLM

from evaluation.score import Score, score
from speech.engine import ClipFailed, DecodeSettings, Phi4Engine
from speech.prompt import Tokenizer
from training.manifest import Manifest
from training.tuning.examples import Clip, read_clip


@dataclass(frozen=True)
class Written:
    """What the model wrote for one utterance."""

    id: str
    dataset: str
    speaker: str | None
    reference: str
    text: str
    """Empty where there is none."""
    failure: str | None
    """Why there is none."""


@dataclass(frozen=True)
class Rates:
    """Error rates of some utterances. Fractions; intervals are 95 % ones, over speakers where several are known, else
    over utterances."""

    n_utterances: int
    n_failed: int
    wer: float
    wer_low: float
    wer_high: float
    cer: float
    n_words: int
    """Of the references, normalised as the card did (`BasicTextNormalizer`)."""


def sample_of(manifest: Manifest, n: int, seed: int) -> Manifest:
    """`n` of a manifest's utterances, the same for the same seed, in the manifest's order; all for 0."""
    if not 0 < n < len(manifest.utterances):
        return manifest
    picked = random.Random(seed).sample(range(len(manifest.utterances)), n)  # noqa: S311 - a sample, not a secret
    return replace(manifest, utterances=tuple(manifest.utterances[index] for index in sorted(picked)))


def write_texts(
    model: Phi4MultimodalForCausalLM,
    tokenizer: Tokenizer,
    manifest: Manifest,
    *,
    max_slots: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Written]:
    """Texts of all utterances, in the manifest's order; each process generates its share and has all in the end.

    Raises:
        FinetuneError: an utterance's audio is gone or changed.
    """
    rank, world_size = process_of()
    engine = Phi4Engine(model, tokenizer, settings=DecodeSettings(max_slots=max_slots))
    mine = manifest.utterances[rank::world_size]
    errors: list[Exception] = []

    def clips() -> Iterator[tuple[int, Clip]]:
        for number, utterance in enumerate(mine):
            try:
                yield number, read_clip(manifest.folders, utterance)
            except Exception as error:  # in the engine's eyes it would be an error of the model
                errors.append(error)
                return

    found: dict[int, Written] = {}
    with closing(engine.stream(clips(), window=2 * engine.n_slots)) as stream:
        for number, outcome in stream:
            utterance = mine[number]
            failed = isinstance(outcome, ClipFailed)
            found[number] = Written(
                utterance.id,
                utterance.dataset,
                utterance.speaker,
                utterance.text,
                "" if isinstance(outcome, ClipFailed) else outcome.text,
                str(outcome) if failed else None,
            )
            on_progress(len(found))
    if errors:
        raise errors[0]
    parts: list[Any] = gather([found[number] for number in range(len(mine))])
    return [parts[index % world_size][index // world_size] for index in range(len(manifest.utterances))]


def process_of() -> tuple[int, int]:
    """(which process of the run this is, of how many)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gather(content: Any) -> list[Any]:
    """Every process's `content`, in the order of their ranks."""
    _, world_size = process_of()
    if world_size == 1:
        return [content]
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, content)
    return parts


def rates_of(written: Sequence[Written]) -> Rates:
    """Rates over some utterances.

    Raises:
        evaluation.score.ScoreError: there are none.
    """
    speakers = [one.speaker and (one.dataset, one.speaker) for one in written]
    found: Score = score(
        [one.reference for one in written],
        [one.text for one in written],
        # one speaker says nothing about others: then the interval is about what else that one could have said
        clusters=speakers if len(set(speakers)) > 1 else None,
    )
    return Rates(
        n_utterances=found.n_utterances,
        n_failed=sum(one.failure is not None for one in written),
        wer=found.wer.value,
        wer_low=found.wer.low,
        wer_high=found.wer.high,
        cer=found.cer.value,
        n_words=found.wer.counts.reference_length,
    )


def rates_by_dataset(written: Sequence[Written]) -> dict[str, dict[str, Any]]:
    """Rates of each dataset and, under `all`, of everything, as JSON can hold them."""
    datasets = sorted({one.dataset for one in written})
    groups = {name: [one for one in written if one.dataset == name] for name in datasets}
    return {name: asdict(rates_of(group)) for name, group in [*groups.items(), (ALL, list(written))]}


ALL = "all"
