"""Time and memory of scoring as many utterances as the model card's held-out sets hold.

    python -m tests.benchmarks.score

Texts are made: sentences of the sets' sizes from the words of the test sentences, with errors at the card's rates.
Scored as `fonoteca score` does: normalised, aligned in words and characters, intervals over utterances and over
speakers. Runs on one thread, so a machine with two cores is no faster; the table comes last.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import numpy as np

SETS = (
    ("CommonVoice", 14_563, 10, 0.0290),
    ("FLEURS", 212, 22, 0.0771),
    ("Transcrispeech", 1_710, 25, 0.1168),
    ("FalAI", 47_760, 10, 0.0024),
    ("OpenSLR", 282, 9, 0.0493),
)
"""Name, utterances and word error rate as the card has them; words in an utterance are guessed."""
TEXTS = Path(__file__).parents[1] / "data" / "demo-speech" / "texts.jsonl"
UTTERANCES_PER_SPEAKER = 40


def make_pairs(seed: int = 0) -> tuple[list[str], list[str], list[int]]:
    """References, hypotheses and speakers."""
    generator = np.random.default_rng(seed)
    sentences = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    vocabulary = np.array(sorted({word for sentence in sentences for word in sentence.split()}))
    refs, hyps = [], []
    for _, n_utterances, n_words, error_rate in SETS:
        for _ in range(n_utterances):
            length = max(1, generator.poisson(n_words))
            words = list(vocabulary[generator.integers(0, len(vocabulary), length)])
            refs.append(" ".join(words))
            wrong = []
            for word, kind in zip(words, generator.random(length) / error_rate, strict=True):
                if kind < 0.7:
                    wrong.append(str(vocabulary[generator.integers(0, len(vocabulary))]))
                elif kind >= 0.85:
                    wrong.append(word)
                    if kind < 1:
                        wrong.append("e")
            hyps.append(" ".join(wrong))
    return refs, hyps, [index // UTTERANCES_PER_SPEAKER for index in range(len(refs))]


def main() -> None:
    refs, hyps, speakers = make_pairs()
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    from evaluation.score import count_pairs, score_counts

    imported = time.perf_counter()
    counts = count_pairs(refs, hyps)
    counted = time.perf_counter()
    by_utterance = score_counts(counts)
    intervals = time.perf_counter()
    score_counts(counts, clusters=speakers)
    done = time.perf_counter()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    print(f"WER {by_utterance.wer.value:.4f} [{by_utterance.wer.low:.4f}, {by_utterance.wer.high:.4f}]")
    print()
    print(f"| {len(refs):,} utterances, {by_utterance.wer.counts.reference_length:,} words | seconds |")
    print("|---|---|")
    print(f"| import (jiwer, transformers' normaliser) | {imported - started:.1f} |")
    print(f"| normalise and align, words and characters | {counted - imported:.1f} |")
    print(f"| intervals of WER and CER over utterances | {intervals - counted:.1f} |")
    print(f"| intervals of WER and CER over {len(set(speakers)):,} speakers | {done - intervals:.1f} |")
    print(f"| all | {done - started:.1f} |")
    print(f"| peak memory, MB (before scoring {before_mb:.0f}) | {peak_mb:.0f} |")


if __name__ == "__main__":
    main()
