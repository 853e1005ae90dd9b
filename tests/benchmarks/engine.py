"""How fast the engine is, beside the two other ways of running the same model on the same clips.

    python -m tests.benchmarks.engine                     what this machine can do: demo and small model on a CPU,
                                                          the full size with random weights on a GPU
    python -m tests.benchmarks.engine --course full --model tiny --slots 4 8
                                                          the course of the GPU, small enough for a CPU

The ways: *card*, one clip at a time through transformers' feature extractor and `generate()`, as the model card
does; *padded*, `generate()` on padded batches of sorted clips (given the engine's prompt embeddings, because
transformers' own change with the padding); *engine*. They take turns in one run, so that a machine that slows
down slows all of them. Needs torch and transformers; the demo model's clips need PyAV. The last output is the
table; `--json FILE` writes the same figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from speech import engine as engine_module
from speech import prompting
from speech.checkpoint import open_checkpoint, pick_device
from speech.encoder import encode_audio
from speech.engine import Clip, DecodeSettings, Phi4Engine
from speech.features import SAMPLE_RATE_HZ, count_audio_tokens, count_frames
from speech.guards import token_limit
from speech.prompt import PromptIds
from tests.benchmarks.exactness import alone_and_together, demo_exactness
from tests.benchmarks.floor import Floor, measure_device
from tests.benchmarks.random_checkpoint import CONFIGS, random_model

DEMO = Path(__file__).parents[2] / "models" / "demo"
TOKENS_PER_SECOND = 115 / 30
"""Forced with random weights, which never end a text by themselves: what broadcast speech takes."""
ROUNDS = 2


@dataclass(frozen=True)
class Measured:
    """One way of transcribing one set of clips."""

    model: str
    clips: str
    way: str
    batch: int
    audio_s: float
    wall_s: float
    """Median of the rounds."""
    cpu_s: float
    """Processor seconds of the same rounds, median: other work on the machine counts less."""
    tokens: int
    same_text: int
    """Clips with the same tokens as from the engine; of all."""
    of: int
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds in features, encoder, prefill and decode, from a separate run that waits for the device."""
    floor_share: float | None = None
    """The floor's time (arithmetic and memory traffic at the device's measured rates) over this time."""

    @property
    def rtfx(self) -> float:
        return self.audio_s / self.wall_s


class NoTokenizer:
    """Stands for a tokenizer where random weights write no text."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        raise NotImplementedError(text)

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, token_ids))


@dataclass
class Subject:
    """A model to be run in each way."""

    name: str
    model: Any
    tokenizer: Any
    prompt: PromptIds | None
    """Of random weights; None: the checkpoint's own."""

    @property
    def is_random(self) -> bool:
        return self.prompt is not None

    def limit(self, clip: Clip) -> int:
        return _forced_tokens(len(clip) / SAMPLE_RATE_HZ) if self.is_random else token_limit(_seconds(clip))

    def engine(self, slots: int | None) -> Phi4Engine:
        return Phi4Engine(
            self.model, self.tokenizer, prompt=self.prompt, settings=DecodeSettings(max_slots=slots)
        )


def taken_s(clips: Sequence[Clip]) -> float:
    return sum(map(_seconds, clips))


def _seconds(clip: Clip) -> float:
    return len(clip) / SAMPLE_RATE_HZ


def _forced_tokens(duration_s: float) -> int:
    return max(1, round(duration_s * TOKENS_PER_SECOND))


@contextmanager
def forced_lengths(is_forced: bool) -> Iterator[None]:
    """Every clip writes as many tokens as speech of its length would."""
    before = prompting.token_limit, engine_module.flags_for
    if is_forced:
        prompting.token_limit = _forced_tokens
        engine_module.flags_for = lambda *_, **__: ()
    try:
        yield
    finally:
        prompting.token_limit, engine_module.flags_for = before


def open_demo(device: torch.device) -> Subject:
    return Subject("demo", *open_checkpoint(DEMO, device=str(device), dtype="float32"), None)


def open_random(size: str, device: torch.device) -> Subject:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = CONFIGS[size]()
    config.eos_token_id = [-1]
    # as many as the card's prompt has
    return Subject(size, random_model(config, device, dtype), NoTokenizer(), PromptIds((10, 11), (12,) * 12))


def demo_clips(n: int) -> list[Clip]:
    """Synthetic broadcast speech of 2 to 29 s: one to five sentences each."""
    from tests.demo_speech import sentences

    rng = np.random.default_rng(5)
    spoken = [sentence.clip for sentence in sentences()]
    clips = []
    while len(clips) < n:
        parts = [spoken[k] for k in rng.integers(0, len(spoken), rng.integers(1, 6))]
        clip = np.concatenate(parts)
        if len(clip) <= 29 * SAMPLE_RATE_HZ:
            clips.append(clip)
    return clips


def noise_clips(durations_s: Sequence[float]) -> list[Clip]:
    rng = np.random.default_rng(5)
    return [rng.normal(0, 0.05, int(s * SAMPLE_RATE_HZ)).astype(np.float32) for s in durations_s]


def mixed_durations(n: int) -> list[float]:
    """2 to 30 s, as a splitter leaves them: most between 10 and 28 s."""
    rng = np.random.default_rng(6)
    return [float(np.clip(s, 2.0, 30.0)) for s in rng.normal(17.0, 8.0, n)]


def card_way(subject: Subject, clips: Sequence[Clip]) -> list[tuple[int, ...]]:
    """One clip at a time: transformers' feature extractor on the CPU and `generate()`."""
    from transformers import Phi4MultimodalFeatureExtractor

    extractor = Phi4MultimodalFeatureExtractor()
    model, ids = subject.model, _prompt_ids(subject)
    audio_id = model.config.audio_config.audio_token_id
    texts = []
    for clip in clips:
        features = extractor(clip, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        n_tokens = count_audio_tokens(count_frames(len(clip)))
        row = torch.tensor([[*ids.before, *[audio_id] * n_tokens, *ids.after]], device=model.device)
        written = model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            audio_input_features=features["audio_input_features"].to(model.device, model.dtype),
            audio_embed_sizes=torch.tensor([n_tokens], device=model.device),
            **_generate_options(subject, subject.limit(clip)),
        )
        texts.append(_cut(subject, written[0, row.shape[1] :].tolist(), subject.limit(clip)))
    return texts


def padded_way(subject: Subject, clips: Sequence[Clip], batch: int) -> list[tuple[int, ...]]:
    """transformers' feature extractor and `generate()` on batches padded on the left, sorted by length.

    Two things are ours, without which the texts would differ: the encoder's corrections for padding, and prompts
    given as embeddings.
    """
    from transformers import Phi4MultimodalFeatureExtractor

    extractor = Phi4MultimodalFeatureExtractor()
    model, ids = subject.model, _prompt_ids(subject)
    before, after = (
        model.model.embed_tokens(torch.tensor(half, device=model.device)) for half in (ids.before, ids.after)
    )
    order = sorted(range(len(clips)), key=lambda i: -len(clips[i]))
    texts: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        # one by one: on some batches of unequal clips the extractor fails
        features = [
            extractor(clips[i], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")["audio_input_features"][0]
            for i in chosen
        ]
        n_frames = [len(rows) for rows in features]
        with torch.inference_mode():
            padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
            audio = encode_audio(
                model.model.embed_tokens_extend.audio_embed, padded.to(model.device), n_frames
            )
            prompts = [
                torch.cat([before, audio[row, : count_audio_tokens(n)], after])
                for row, n in enumerate(n_frames)
            ]
            longest = max(map(len, prompts))
            embeddings = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
            mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=model.device)
            for row, prompt in enumerate(prompts):
                embeddings[row, longest - len(prompt) :] = prompt
                mask[row, longest - len(prompt) :] = 1
        limit = max(subject.limit(clips[i]) for i in chosen)
        written = model.generate(
            inputs_embeds=embeddings, attention_mask=mask, **_generate_options(subject, limit)
        )
        for i, tokens in zip(chosen, written.tolist(), strict=True):
            texts[i] = _cut(subject, tokens, subject.limit(clips[i]))
    return [texts[i] for i in range(len(clips))]


def engine_way(engine: Phi4Engine, clips: Sequence[Clip]) -> list[tuple[int, ...]]:
    # the first try alone: the other ways have no guards
    return [hypothesis.token_ids for hypothesis in engine.transcribe(clips)]


def _prompt_ids(subject: Subject) -> PromptIds:
    return subject.prompt or Phi4Engine(subject.model, subject.tokenizer)._prompt_ids


def _generate_options(subject: Subject, limit: int) -> dict[str, Any]:
    config = subject.model.config
    return {
        "max_new_tokens": limit,
        "min_new_tokens": limit if subject.is_random else None,
        "do_sample": False,
        "use_cache": True,
        "pad_token_id": 0,
        "eos_token_id": config.eos_token_id,
        "suppress_tokens": [config.audio_config.audio_token_id, config.vision_config.image_token_id],
    }


def _cut(subject: Subject, tokens: list[int], limit: int) -> tuple[int, ...]:
    """What was written before the end token."""
    ends = subject.model.config.eos_token_id
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[: min(stop, limit)])


def compare(
    subject: Subject,
    clips: Sequence[Clip],
    label: str,
    *,
    slots: int | None,
    card_clips: int,
    rounds: int,
    with_padded: bool = True,
) -> list[Measured]:
    """All ways over the clips, in turns."""
    engine = subject.engine(slots)
    subset = list(clips[:card_clips])
    ways: dict[str, tuple[Callable[[], list[tuple[int, ...]]], Sequence[Clip], int]] = {
        "engine": (lambda: engine_way(engine, clips), clips, engine.n_slots),
        "padded": (lambda: padded_way(subject, clips, engine.n_slots), clips, engine.n_slots),
        "card": (lambda: card_way(subject, subset), subset, 1),
    }
    if not card_clips:
        del ways["card"]
    if not with_padded:
        del ways["padded"]
    walls: dict[str, list[float]] = {way: [] for way in ways}
    cpus: dict[str, list[float]] = {way: [] for way in ways}
    texts: dict[str, list[tuple[int, ...]]] = {}
    with forced_lengths(subject.is_random):
        is_cuda = engine.model.device.type == "cuda"
        # warm: on CUDA kernels, graph and allocator for the shapes to come
        engine_way(engine, clips[: engine.n_slots if is_cuda else 2])
        for number in range(rounds):
            for way, (run, taken, _) in ways.items():
                if way == "card" and number:
                    continue  # the slowest by far: once, between the others' rounds
                _wait(engine.model.device)
                print(f"{subject.name} {label}, {taken_s(taken):.0f} s: {way}", flush=True)
                start, start_cpu = time.perf_counter(), time.process_time()
                texts[way] = run()
                _wait(engine.model.device)
                walls[way].append(time.perf_counter() - start)
                cpus[way].append(time.process_time() - start_cpu)
        parts = time_parts(engine, clips) if is_cuda or len(clips) <= 48 else {}
    found = []
    for way, (_, taken, batch) in ways.items():
        same = sum(a == b for a, b in zip(texts[way], texts["engine"], strict=False))
        found.append(
            Measured(
                model=subject.name,
                clips=label,
                way=way,
                batch=batch,
                audio_s=taken_s(taken),
                wall_s=statistics.median(walls[way]),
                cpu_s=statistics.median(cpus[way]),
                tokens=sum(map(len, texts[way])),
                same_text=same,
                of=len(taken),
                parts=parts if way == "engine" else {},
            )
        )
    return found


def time_parts(engine: Phi4Engine, clips: Sequence[Clip]) -> dict[str, float]:
    """Seconds of one run in each part, the device waited for after each."""
    seconds: dict[str, float] = {}
    device = engine.model.device

    def timed(owner: Any, name: str, part: str) -> Callable[[], None]:
        original = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            _wait(device)
            start = time.perf_counter()
            result = original(*args, **kwargs)
            _wait(device)
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
            return result

        setattr(owner, name, wrapper)
        return lambda: setattr(owner, name, original)

    undo = [
        timed(prompting, "log_mel", "features"),
        timed(prompting, "encode_audio", "encoder"),
        timed(engine._generation.decoder, "prefill", "prefill"),
        timed(engine._generation, "_advance", "decode"),
    ]
    try:
        engine.transcribe(clips)
    finally:
        for restore in undo:
            restore()
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_demo_course(arguments: argparse.Namespace, device: torch.device) -> list[Measured]:
    """The demo model on speech, and a random model of 165 M parameters on sound of many lengths."""
    slots = arguments.slots[0] if arguments.slots else None
    found = []
    if arguments.model in (None, "demo"):
        clips = demo_clips(arguments.clips or 200)
        found += compare(
            open_demo(device), clips, "2-29 s", slots=slots, card_clips=len(clips), rounds=arguments.rounds
        )
    if arguments.model != "demo":
        clips = noise_clips(mixed_durations(arguments.clips or 12))
        subject = open_random(arguments.model or "small", device)
        found += compare(subject, clips, "2-30 s", slots=slots, card_clips=4, rounds=arguments.rounds)
    return found


def run_full_course(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[list[Measured], dict[str, Any]]:
    """Random weights of one size, clips of 30 s and of 2 to 30 s, several batch sizes, beside the floor."""
    subject = open_random(arguments.model or "full", device)
    rates = measure_device(device, subject.model.dtype)
    floor = Floor(subject.model.config, subject.model.dtype, rates)
    found: list[Measured] = []
    batches = arguments.slots or [32, 64, 128, 256]
    reference = 128 if 128 in batches else batches[-1]
    for slots in batches:
        n = arguments.clips or 3 * slots
        for label, durations in (("30 s", [30.0] * n), ("2-30 s", mixed_durations(n))):
            try:
                rows = compare(
                    subject,
                    noise_clips(durations),
                    label,
                    slots=slots,
                    card_clips=6 if slots == reference else 0,  # the slow ways once
                    rounds=arguments.rounds,
                    with_padded=slots == reference,
                )
            except torch.OutOfMemoryError as error:
                print(f"{slots} slots, {label}: {error}", flush=True)
                release()
                continue
            for row in rows:
                least = floor.seconds(durations[: row.of], row.batch, TOKENS_PER_SECOND)
                found.append(replace(row, floor_share=least / row.wall_s))
                print(describe(found[-1]), flush=True)
            release()
    with forced_lengths(True):
        exactness = alone_and_together(subject.engine(reference), noise_clips(mixed_durations(8)))
    return found, {"rates": asdict(rates), "exactness": {f"{subject.name}, {subject.model.dtype}": exactness}}


def describe(row: Measured) -> str:
    parts = " ".join(f"{part} {seconds:.2f}" for part, seconds in row.parts.items())
    floor = f"{row.floor_share:6.0%}" if row.floor_share else "     -"
    return (
        f"{row.model:6} {row.clips:7} {row.way:7} {row.batch:5d} {row.audio_s:9.0f} {row.wall_s:9.2f} {row.cpu_s:9.2f} "
        f"{row.rtfx:8.1f} {row.same_text:5d}/{row.of:<5d} {floor}  {parts}"
    )


def table(rows: Sequence[Measured]) -> str:
    lines = [
        "model  clips   way     batch   audio s    wall s     cpu s     RTFx  same text   floor  seconds in",
        *(describe(row) for row in rows),
        "",
    ]
    by_set: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in rows:
        if row.way == "card":
            continue
        by_set.setdefault((row.model, row.clips, row.batch), {})[row.way] = row.rtfx
    for (model, clips, batch), rtfx in by_set.items():
        card = [row.rtfx for row in rows if (row.model, row.clips, row.way) == (model, clips, "card")]
        against = f", {rtfx['engine'] / card[0]:.1f} x the card's way" if card else ""
        if "padded" in rtfx:
            against += f", {rtfx['engine'] / rtfx['padded']:.2f} x padded generate()"
        lines.append(f"{model} {clips}, batch {batch}: RTFx {rtfx['engine']:.1f}{against}")
    return "\n".join(lines)


def cpu_name() -> str:
    """The processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=["demo", *CONFIGS], help="default: all that suit the device")
    parser.add_argument("--course", choices=["demo", "full"], help="default: full on CUDA, else demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--slots", type=int, nargs="*")
    parser.add_argument("--clips", type=int, help="clips per set")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--skip-exactness", action="store_true")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = pick_device(arguments.device)
    course = arguments.course or ("full" if device.type == "cuda" else "demo")
    machine: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if course == "full":
        rows, more = run_full_course(arguments, device)
    else:
        rows, more = run_demo_course(arguments, device), {"exactness": {}}
    machine |= more
    if not arguments.skip_exactness:
        machine["exactness"] |= demo_exactness(device)
    if arguments.json:
        figures = [{**asdict(row), "rtfx": row.rtfx} for row in rows]
        arguments.json.write_text(json.dumps({"machine": machine, "rows": figures}, indent=1) + "\n")
    print(json.dumps(machine, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
