"""The whole way: speech, training, measuring, card, and if wanted into the repository's place.

Every stage leaves its result in the build's folder and is not done again when the command is given again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from speech.checkpoint import CheckpointError
from speech.features import SAMPLE_RATE_HZ
from speech.inspection import inspect_checkpoint
from training.manifest import Manifest, Utterance
from training.scratch.card import CardFacts, write_card
from training.scratch.loop import LOSSES, read_losses
from training.scratch.measure import HeldOut, Measured, measure, worse_on
from training.scratch.processes import MODEL, Job, open_speech, run
from training.scratch.settings import N_SHARDS, Settings

MEASURED, SETTINGS = "measured.json", "settings.json"
FIRST_TRIAL = "first_trial"
"""The 112 sentences of tests/data/demo-speech."""
REPOSITORY = Path(__file__).resolve().parent.parent.parent
INSTALLED = REPOSITORY / "models" / "demo"
SENTENCES = REPOSITORY / "tests" / "data" / "demo-speech"

log = structlog.get_logger()


class BuildError(RuntimeError):
    """The build cannot go on. Says why and what to do."""


@dataclass(frozen=True)
class Build:
    """One build of the demo model."""

    out: Path
    settings: Settings
    hours: float
    """Of speech."""
    device: str = "auto"
    dtype: str = "auto"
    until: int | None = None
    """Stop the training after so many steps; nothing is measured then."""
    n_processes: int = N_SHARDS
    """On a CPU: 2, or 1."""

    @property
    def speech(self) -> Path:
        return self.out / "speech"

    @property
    def test_sets(self) -> Path:
        return self.out / "test-sets"


def build(wanted: Build) -> dict[str, Measured]:
    """Build the model in `wanted.out / "model"`, going on where an earlier call was stopped.

    Returns:
        Its measures, by the test sets' names; none where the training was to stop early.

    Raises:
        BuildError, training.scratch.loop.TrainingFailed: it cannot be built.
    """
    settings = wanted.settings
    wanted.out.mkdir(parents=True, exist_ok=True)
    _same_settings(wanted.out / SETTINGS, settings)
    make_speech(wanted.speech, hours=wanted.hours, seed=settings.seed)
    model = run(
        Job(
            settings,
            wanted.speech,
            wanted.out,
            device=wanted.device,
            dtype=wanted.dtype,
            until=wanted.until,
            n_processes=wanted.n_processes,
        )
    )
    if wanted.until is not None and wanted.until < settings.end:
        log.info("build_stopped", step=wanted.until, n_steps=settings.end)
        return {}
    found = measure(model, test_sets(wanted.test_sets), device=wanted.device)
    _write_json(wanted.out / MEASURED, {name: asdict(one) for name, one in found.items()})
    for name, one in found.items():
        log.info("measured", test_set=name, **asdict(one))
    make_card(wanted.out, settings, found, beside={})
    return found


def need_espeak() -> None:
    """Install Debian's espeak-ng where it is missing and that is allowed.

    Raises:
        BuildError: it is missing, and has to be installed by hand.
    """
    from training.synthetic.espeak import EspeakMissing, espeak_version

    try:
        espeak_version()
    except EspeakMissing as error:
        apt = shutil.which("apt-get")
        if apt is None or os.geteuid() != 0:
            raise BuildError(str(error)) from error
        log.info("espeak_is_installed", package="espeak-ng", by=apt)
        try:
            subprocess.run([apt, "install", "-y", "--no-install-recommends", "espeak-ng"], check=True)
        except (OSError, subprocess.CalledProcessError) as failed:
            raise BuildError(f"espeak-ng could not be installed ({failed}): {error}") from failed


def make_speech(folder: Path, *, hours: float, seed: int) -> None:
    """Synthetic speech into `folder`, unless a whole corpus is there."""
    from training.synthetic.corpus import CorpusError
    from training.synthetic.make import Recipe, make_corpus

    try:
        open_speech(folder)
    except CorpusError:
        need_espeak()
        log.info("speech_is_made", hours=round(hours, 2), seed=seed)
        make_corpus(folder, Recipe(hours=hours, seed=seed))


def test_sets(folder: Path) -> dict[str, HeldOut]:
    """The frozen test sets by name, made in `folder` where they are not there yet; and the first trial's.

    Raises:
        BuildError: what is made here is not what was frozen, so that figures could not be compared.
    """
    from training.synthetic.corpus import Corpus, CorpusError
    from training.synthetic.test_sets import SETS, TestSetsChanged, make_test_sets

    try:
        made = {name: Corpus.open(folder / name) for name in SETS}
    except CorpusError:
        need_espeak()
        log.info("test_sets_are_made")
        try:
            made = make_test_sets(folder)
        except TestSetsChanged as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise BuildError(str(error)) from error
    found = {name: HeldOut.of_speech(corpus) for name, corpus in made.items()}
    if SENTENCES.exists():
        found[FIRST_TRIAL] = HeldOut.of_manifest(first_trial_sentences())
    return found


def measure_model(model: Path, out: Path, *, device: str = "auto") -> dict[str, Measured]:
    """Measure any checkpoint on the test sets in `out`, as a build is measured.

    Raises:
        BuildError: the test sets cannot be made here, or the checkpoint cannot be opened.
    """
    try:
        return measure(model, test_sets(Build(out, Settings(), 0.0).test_sets), device=device)
    except CheckpointError as error:
        raise BuildError(str(error)) from error


def first_trial_sentences() -> Manifest:
    """The sentences that the first trial was measured on, from tests/data/demo-speech."""
    rows = [json.loads(line) for line in (SENTENCES / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    return Manifest(
        tuple(
            Utterance(
                id=f"demo-speech/test/{row['file']}",
                audio=row["file"],
                text=row["text"],
                duration_s=row["duration_s"],
                dataset="demo-speech",
                split="test",
                speaker=row["voice"],
                programme=None,
                sha256=hashlib.sha256((SENTENCES / row["file"]).read_bytes()).hexdigest(),
            )
            for row in rows
        ),
        {"demo-speech": SENTENCES},
    )


def make_card(
    out: Path,
    settings: Settings,
    found: Mapping[str, Measured],
    *,
    beside: Mapping[int, Mapping[str, Measured]],
) -> None:
    """README.md beside the weights.

    Args:
        beside: measures of builds of other seeds, by seed.
    """
    inspection = inspect_checkpoint(out / MODEL)
    speech = open_speech(out / "speech")
    facts = CardFacts(
        n_parameters=inspection.n_parameters_opened,
        n_bytes=inspection.n_bytes,
        weights_sha256=inspection.weights_sha256 or "",
        hours=sum(clip.n_samples for clip in speech.clips) / SAMPLE_RATE_HZ / 3600,
        n_steps=len(read_losses(out / LOSSES)),
        settings=settings,
        measured={settings.seed: found, **beside},
    )
    (out / MODEL / "README.md").write_text(write_card(facts), encoding="utf-8")


def read_measured(out: Path) -> tuple[int, dict[str, Measured]]:
    """Seed and measures of a finished build.

    Raises:
        BuildError: it is not finished.
    """
    try:
        stored = json.loads((out / MEASURED).read_text(encoding="utf-8"))
        seed = json.loads((out / SETTINGS).read_text(encoding="utf-8"))["seed"]
    except OSError as error:
        raise BuildError(f"{out} holds no finished build ({error}): build it first") from error
    return seed, {name: Measured(**one) for name, one in stored.items()}


def install(out: Path, *, over: Path = INSTALLED, device: str = "auto") -> None:
    """Put a finished build in the place of the repository's demo model, if it is at least as good everywhere.

    Raises:
        BuildError: it is worse on some measure, has problems, or is not finished.
    """
    _, mine = read_measured(out)
    problems = inspect_checkpoint(out / MODEL).problems
    if problems:
        raise BuildError(f"{out / MODEL} cannot be opened: {problems}")
    if (over / "config.json").exists():
        theirs = measure(over, test_sets(out / "test-sets"), device=device)
        worse = worse_on(mine, theirs)
        if worse:
            raise BuildError(f"not installed, {over} is better on: {'; '.join(worse)}")
    new = over.with_name(over.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(out / MODEL, new)
    shutil.rmtree(over, ignore_errors=True)
    new.rename(over)
    log.info("model_installed", folder=str(over))


def _same_settings(path: Path, settings: Settings) -> None:
    """Keep the settings with the build; those of another build are not gone on with, but a build may be shortened."""
    mine = settings.as_json()
    allowed = (mine, replace(settings, shortened=None).as_json())
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) not in allowed:
        raise BuildError(
            f"{path.parent} holds a build of other settings: give its --minutes, --seed and --shorten, or another "
            f"--out"
        )
    _write_json(path, mine)


def _write_json(path: Path, value: object) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
