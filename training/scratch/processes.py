"""The processes of a training: two with one thread each on a CPU, which is nearly twice as fast as one with two
threads; one on a GPU.

The first is the calling process itself, so that nothing outlives a kill: the second one's next exchange fails.
"""

from __future__ import annotations

import datetime
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
import torch.distributed as dist

from speech.checkpoint import open_tokenizer
from speech.prompt import DEFAULT_PROMPT, tokenize_prompt
from training.scratch.batches import Loader, Plan, as_float, feature_moments
from training.scratch.export import export
from training.scratch.flat import FlatParameters
from training.scratch.loop import Exchange, train
from training.scratch.measure import measure_texts, transcribe
from training.scratch.network import Network, native_config, new_model
from training.scratch.settings import N_SHARDS, Settings
from training.scratch.targets import Inventory, Speech, Teller
from training.scratch.vocabulary import train_tokenizer

MODEL = "model"
"""The exported checkpoint, in the build's folder."""
N_WATCHED = 48
"""Validation clips transcribed on the way."""
EXCHANGE_TIMEOUT = datetime.timedelta(hours=6)

log = structlog.get_logger()


@dataclass(frozen=True)
class Job:
    """What every process of a training needs to know."""

    settings: Settings
    speech: Path
    """Folder of the synthetic corpus."""
    folder: Path
    device: str = "auto"
    """cpu, cuda, or auto."""
    dtype: str = "auto"
    """float32, bfloat16, or auto: bfloat16 where it is faster."""
    until: int | None = None
    """Stop after so many steps."""
    n_processes: int = N_SHARDS
    """On a CPU: 2, or 1."""


def open_speech(folder: Path) -> Speech:
    """The synthetic corpus in `folder`."""
    from training.synthetic.corpus import Corpus

    found: Speech = Corpus.open(folder)
    return found


def run(job: Job) -> Path:
    """Train to the end, going on from a checkpoint where there is one.

    Returns:
        The folder of the exported model.

    Raises:
        training.scratch.loop.TrainingFailed: it cannot go on.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    speech = open_speech(job.speech)
    train_texts = [clip.text for clip in speech.clips if clip.split == "train" and clip.text]
    if not (job.folder / MODEL / "tokenizer.json").exists():
        train_tokenizer(train_texts, job.settings.sizes.vocabulary, job.folder / MODEL)
    device = job.device if job.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = job.dtype if job.dtype != "auto" else _faster_dtype(device)
    n_processes = 1 if device == "cuda" else job.n_processes
    log.info("training_starts", device=device, dtype=dtype, processes=n_processes, steps=job.settings.end)
    with _others(job, device, dtype, n_processes) as exchange:
        _train_part(job, device, dtype, 0, n_processes, exchange)
    return job.folder / MODEL


@contextmanager
def _others(job: Job, device: str, dtype: str, n_processes: int) -> Iterator[Exchange]:
    """Start the other processes; what exchanges with them."""
    if n_processes == 1:
        yield _alone
        return
    torch.set_num_threads(1)
    meeting = job.folder / "meeting"
    meeting.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_other, args=(job, device, dtype, rank, n_processes, meeting), daemon=True)
        for rank in range(1, n_processes)
    ]
    for process in others:
        process.start()
    try:
        with _group(meeting, 0, n_processes) as exchange:
            yield exchange
        for process in others:
            process.join()
    finally:
        for process in others:
            process.terminate()
        meeting.unlink(missing_ok=True)


def _other(job: Job, device: str, dtype: str, rank: int, n_processes: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    with _group(meeting, rank, n_processes) as exchange:
        _train_part(job, device, dtype, rank, n_processes, exchange)


@contextmanager
def _group(meeting: Path, rank: int, n_processes: int) -> Iterator[Exchange]:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting.resolve()}",
        rank=rank,
        world_size=n_processes,
        timeout=EXCHANGE_TIMEOUT,
    )

    def exchange(vector: torch.Tensor) -> None:
        dist.all_reduce(vector)
        vector /= n_processes

    try:
        yield exchange
    finally:
        dist.destroy_process_group()


def _alone(_vector: torch.Tensor) -> None:
    """Nobody to exchange with."""


def _train_part(job: Job, device: str, dtype: str, rank: int, n_processes: int, exchange: Exchange) -> None:
    """One process's part, from the same weights as the others'."""
    settings = job.settings
    speech = open_speech(job.speech)
    tokenizer = open_tokenizer(job.folder / MODEL)
    clips = speech.clips
    train_clips = [number for number, clip in enumerate(clips) if clip.split == "train"]
    inventory = Inventory.of(clips)
    durations = [clip.n_samples / 16_000 for clip in clips]
    mean, spread = feature_moments(speech, train_clips, settings.seed)
    model = new_model(native_config(settings.sizes, len(tokenizer)), settings.seed)
    normaliser = model.model.embed_tokens_extend.audio_embed.encoder.encoder_embedding
    normaliser.global_mean.copy_(mean)
    normaliser.global_invstd.copy_(1.0 / spread)
    torch_dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    network = Network(
        model, tokenize_prompt(DEFAULT_PROMPT, tokenizer), len(inventory.phonemes), len(inventory.characters)
    ).to(device)
    named = network.trained_parameters()
    flat = FlatParameters(
        named, torch_dtype, betas=settings.betas, weight_decay=settings.weight_decay, average=settings.average
    )
    network.to(torch_dtype)
    loader = Loader(
        speech,
        Teller(inventory, tokenizer),
        Plan(durations, train_clips, settings),
        settings,
        mean=mean,
        vocabulary=len(tokenizer),
    )
    started = time.monotonic()

    def look(step: int) -> None:
        if rank:
            return
        export(model, flat.averaged_tensors(), job.folder / MODEL)
        watched = [n for n, clip in enumerate(clips) if clip.split == "validation"][:N_WATCHED]
        if watched:
            found = watch(job.folder / MODEL, speech, watched, device)
            log.info("validation_transcribed", step=step, n_steps=settings.end, **found)
        log.info("training_goes_on", step=step, minutes=round((time.monotonic() - started) / 60, 1))

    train(
        network,
        flat,
        loader,
        settings,
        job.folder,
        shards=range(N_SHARDS) if n_processes == 1 else [rank],
        exchange=exchange,
        is_first=rank == 0,
        look=look,
        until=job.until,
    )
    if rank == 0:
        export(model, flat.averaged_tensors(), job.folder / MODEL)


def watch(model: Path, speech: Speech, watched: Sequence[int], device: str) -> dict[str, float | int | None]:
    """WER and CER on clips of the corpus."""
    from speech.checkpoint import open_checkpoint
    from speech.engine import Phi4Engine

    engine = Phi4Engine(*open_checkpoint(model, device=device, dtype="float32"))
    texts = transcribe(engine, ((number, as_float(speech.samples(number))) for number in watched))
    found = measure_texts([speech.clips[number].text for number in watched], [texts[n] for n in watched])
    rounded = {
        name: round(value, 4) if value is not None else None
        for name, value in (("wer", found.wer), ("cer", found.cer))
    }
    return rounded | {"n_invented": found.n_invented}


def _faster_dtype(device: str) -> str:
    """bfloat16 on a GPU, and on a CPU that multiplies it faster than float32."""
    if device == "cuda":
        return "bfloat16"
    took = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(512, 256, dtype=dtype), torch.ones(1024, 256, dtype=dtype)
        times = []
        for _ in range(12):
            before = time.perf_counter()
            torch.nn.functional.linear(left, right)
            times.append(time.perf_counter() - before)
        took[dtype] = min(times)
    return "bfloat16" if took[torch.bfloat16] < 0.6 * took[torch.float32] else "float32"
