"""What the model learns from: answers with their end, labels on them alone, and batches in a fixed order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speech.checkpoint import open_tokenizer
from tests.demo_speech import FOLDER
from tests.training.small_runs import utterances
from training.manifest import Manifest
from training.tuning.errors import FinetuneError
from training.tuning.examples import AnswerTokenizer, Collator, Example, Examples, GroupedBatches

DEMO = Path(__file__).parents[2] / "models" / "demo"


def test_an_answer_is_the_text_and_its_end() -> None:
    tokenizer = open_tokenizer(DEMO)
    to_answer = AnswerTokenizer(tokenizer)
    answer = to_answer("bos días")
    assert answer[-2:] == (3, 0)  # <|end|><|endoftext|>
    assert tokenizer.decode(list(answer[:-2])) == "bos días"
    assert to_answer("") == (3, 0)
    to_answer.check([0, 3])
    with pytest.raises(FinetuneError, match="could not learn to stop"):
        to_answer.check([7])


def test_labels_cover_the_answers_alone() -> None:
    clip = np.zeros(16_000, np.float32)
    batch = Collator()([Example(clip, (5, 6, 7)), Example(clip[:8_000], (0,))])
    assert batch["labels"].tolist() == [[-100, 5, 6, 7], [-100, -100, -100, 0]]
    assert batch["answers"].tolist() == [[5, 6, 7], [0, 0, 0]]
    assert batch["n_frames"] == [98, 48]
    assert batch["waveforms"].shape == (2, 97 * 160 + 400)


def test_samples_are_where_they_were_and_zeros_after() -> None:
    rng = np.random.default_rng(0)
    long, short = (rng.standard_normal(n).astype(np.float32) for n in (4_010, 2_000))
    waveforms = Collator()([Example(long, (1,)), Example(short, (1,))])["waveforms"]
    assert torch.equal(waveforms[0], torch.from_numpy(long[: waveforms.shape[1]]))
    # what is after the last whole frame is in no feature
    assert torch.equal(waveforms[1, :2000], torch.from_numpy(short[:2000]))
    assert not waveforms[1, 2000:].any()


def test_a_clip_that_changed_is_refused_by_its_name() -> None:
    utterance = utterances()[0]
    manifest = Manifest((utterance, replace(utterance, sha256="0" * 64)), {"demo-speech": FOLDER})
    examples = Examples(manifest, AnswerTokenizer(open_tokenizer(DEMO)))
    assert len(examples[0].clip) == round(utterance.duration_s * 16_000)
    with pytest.raises(FinetuneError, match=r"demo-speech/train/.*changed.*fonoteca train prepare"):
        examples[1]


# --- order -----------------------------------------------------------------------------------------------

LENGTHS = [float(n % 17 + n / 1000) for n in range(203)]


def batches(**changes: int) -> GroupedBatches:
    settings = {"batch_size": 3, "accumulation": 4, "seed": 1} | changes
    return GroupedBatches(LENGTHS, **settings)


def test_an_epoch_has_everything_once() -> None:
    assert sorted(itertools.chain(*batches())) == list(range(203))
    assert len(batches()) == len(list(batches())) == 68


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = batches()
    again = batches()
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)
    assert list(first) != list(batches(seed=2))
    first.set_epoch(1)
    assert list(first) == list(again)


def test_processes_share_an_epoch_and_see_equally_many() -> None:
    parts = [list(batches(rank=rank, world_size=3)) for rank in range(3)]
    assert {len(part) for part in parts} == {23}
    dealt = [batch for together in zip(*parts, strict=True) for batch in together]
    # 68 batches do not divide by 3: the first comes once more
    assert dealt[-1] == dealt[0]
    assert sorted(itertools.chain(*dealt[:-1])) == list(range(203))


def test_what_is_computed_together_is_of_like_length() -> None:
    longest = max(range(203), key=LENGTHS.__getitem__)
    order = list(batches())
    assert longest in order[0]
    spread = [
        max(LENGTHS[i] for i in batch) - min(LENGTHS[i] for i in batch) for batch in order if len(batch) == 3
    ]
    assert max(spread) < 3  # of 17: batches drawn at random would have 8 on average
    # but the lengths are not in order
    means = [LENGTHS[batch[0]] for batch in order]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)
