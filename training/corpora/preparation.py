"""What was asked of a preparation, and what came of it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from training.corpora.checks import Limits
from training.corpora.reading import ReadCorpus, Reason, Reject
from training.corpora.sharing import Duplicates, Leak, Leaks, Prompts
from training.corpora.splitting import NewSplit
from training.manifest import Utterance

MANIFEST_FILE = "manifest.parquet"
REJECTS_FILE = "rejects.csv"
DUPLICATES_FILE = "duplicates.csv"
LEAKS_FILE = "leaks.csv"
REPORT_FILE = "report.md"
MEMORY_FILE = "audio.sqlite"


@dataclass(frozen=True)
class PrepareSettings:
    """What a person may choose."""

    limits: Limits = field(default_factory=Limits)
    new_split: NewSplit | None = None
    """For corpora that are not split; None leaves all of their rows to train."""
    drop_leaks: frozenset[Leak] = frozenset()
    """Rows of train that share one of these with a held-out split are left out."""
    drop_duplicates: bool = False
    """Of rows of train with the same sound, only the first stays."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that decode."""


@dataclass(frozen=True)
class Preparation:
    """What came of it. Everything is also written into `out`."""

    out: Path
    settings: PrepareSettings
    corpora: tuple[ReadCorpus, ...]
    utterances: tuple[Utterance, ...]
    rejects: tuple[Reject, ...]
    newly_split: tuple[str, ...]
    """Datasets that came without a split."""
    duplicates: Duplicates
    prompts: tuple[Prompts, ...]
    leaks: Leaks
    """Before any was dropped."""
    manifest_sha256: str

    @property
    def manifest(self) -> Path:
        return self.out / MANIFEST_FILE

    @property
    def report(self) -> Path:
        return self.out / REPORT_FILE

    def rejects_by_reason(self, dataset: str | None = None) -> dict[Reason, int]:
        """Counts, most frequent first."""
        found = Counter(one.reason for one in self.rejects if dataset in (None, one.dataset))
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0].value)))
