"""Phi-4-multimodal generation for speech: clips in, one hypothesis each out, the same in any batch.

What keeps a clip's text independent of its neighbours: the corrected encoder (`speech/encoder.py`), slots that do
not see each other (`speech/decoder.py`), greedy choice, and on a GPU shapes that do not change with the load.
`tests/speech/test_engine.py` compares every clip alone and in batches, token by token.
"""

from __future__ import annotations

import itertools
import logging
import unicodedata
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from transformers import Phi4MultimodalForCausalLM

from speech.decoder import Decoder
from speech.features import SAMPLE_RATE_HZ, WINDOW_SAMPLES, count_audio_tokens, count_frames
from speech.generation import Generated, Generation
from speech.guards import MIN_RESPLIT_S, RESPLIT, flags_for, keep_doubtful, quietest_cut, token_limit, tripped
from speech.prompt import PromptIds, Tokenizer, prompt_of, tokenize_prompt
from speech.prompting import Clip, Job, Prompter, PromptQueue, never
from speech.sizing import Sizing, fit_to_device

MAX_CLIP_S = 40.0
"""Longer clips would be cut into encoder chunks that do not see each other: refused."""

CUDA_SLOTS, CPU_SLOTS = 128, 32
CUDA_ENCODER_FRAMES, CPU_ENCODER_FRAMES = 48_000, 6_000

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class ClipFailed(Exception):
    """One clip that has no text. The others are not touched."""


class ClipError(ClipFailed, ValueError):
    """A clip that cannot be transcribed: wrong shape or type, too short, too long, not finite."""


class ScoresNotFinite(ClipFailed, ArithmeticError):
    """The model computed NaN or infinity."""


class StreamOpen(RuntimeError):
    """An engine writes for one stream at a time."""


@dataclass(frozen=True)
class DecodeSettings:
    """How text is generated. In float32 the text does not depend on the first three; in 16 bits it is the same for the
    same three, whatever the load."""

    max_slots: int | None = None
    """Most clips decoded together; fewer where the device's memory says so. None: 128 on CUDA, 32 on a CPU."""

    max_encoder_frames: int | None = None
    """Most feature frames (10 ms each) encoded together, padding included. None: 48,000 on CUDA; on a CPU 6,000,
    past which the convolutions' grids fall out of its caches."""

    max_prefill_rows: int = 8_192
    """Most prompt tokens computed together, padding included."""

    fixed_shapes: bool | None = None
    """Compute shapes that do not change with the load, so that texts are the same to the bit in any batch, in 16
    bits too, and a step is one CUDA graph. It costs idle arithmetic while few clips wait. None: on CUDA yes."""


@dataclass(frozen=True)
class Hypothesis:
    """What the model wrote for one clip."""

    text: str
    """NFC, without the prompt and the end tokens."""
    token_ids: tuple[int, ...]
    """Generated tokens, without the end token."""
    token_logprobs: tuple[float, ...]
    """Natural log-probability of each of `token_ids`."""
    mean_logprob: float
    """Mean over `token_ids` and the end token, so that an empty text has one too."""
    flags: tuple[str, ...]
    """Guards that tripped (`speech.guards`); empty is good."""


class Phi4Engine:
    """Transcribes clips with one opened checkpoint. Not safe to share between threads.

    Args:
        model, tokenizer: from `speech.checkpoint.open_checkpoint`.
        prompt: prompt text; None takes the checkpoint's own, or the published card's.
        settings: batch sizes; the device's memory, measured here, may make them smaller.

    Raises:
        speech.prompt.PromptError: the prompt has no place for the audio.
        torch.OutOfMemoryError: the device has no room for one clip beside the model.
    """

    def __init__(
        self,
        model: Phi4MultimodalForCausalLM,
        tokenizer: Tokenizer,
        *,
        prompt: str | PromptIds | None = None,
        settings: DecodeSettings | None = None,
    ) -> None:
        self.model = model
        self.settings = settings or DecodeSettings()
        self.prompt = prompt if isinstance(prompt, str) else prompt_of(model.config)
        self._tokenizer = tokenizer
        self._prompt_ids = (
            prompt if isinstance(prompt, PromptIds) else tokenize_prompt(self.prompt, tokenizer)
        )
        config = model.config
        is_cuda = model.device.type == "cuda"
        self.fixed_shapes = is_cuda if self.settings.fixed_shapes is None else self.settings.fixed_shapes
        self._end_ids: list[int] = (
            config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        )
        # placeholders of the prompt: never text
        self._suppressed_ids = [config.audio_config.audio_token_id, config.vision_config.image_token_id]
        wanted = Sizing(
            self.settings.max_slots or (CUDA_SLOTS if is_cuda else CPU_SLOTS),
            self.settings.max_encoder_frames or (CUDA_ENCODER_FRAMES if is_cuda else CPU_ENCODER_FRAMES),
            self.settings.max_prefill_rows,
        )
        self._prompter = Prompter(
            model, self._prompt_ids, max_frames=wanted.max_encoder_frames, fixed_shapes=self.fixed_shapes
        )
        longest = count_audio_tokens(count_frames(int(MAX_CLIP_S * SAMPLE_RATE_HZ)))
        self._capacity = self._prompter.n_text_tokens + longest + token_limit(MAX_CLIP_S)
        self._sizing = fit_to_device(
            model, self._prompter, wanted, capacity=self._capacity, max_clip_s=MAX_CLIP_S
        )
        self._prompter.max_frames = self._sizing.max_encoder_frames
        self._generation: Generation | None = self._make_generation(self._sizing.n_slots)
        self._is_flash = self._generation.decoder.is_flash
        self._is_streaming = False

    @property
    def n_slots(self) -> int:
        """Clips decoded together: as many as were asked for, or as fit."""
        return self._sizing.n_slots

    def describe(self) -> dict[str, Any]:
        """What the text may depend on, as stored with a transcript."""
        return {
            "method": "greedy",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "attention": "flash" if self._is_flash else "plain",
            "fixed_shapes": self.fixed_shapes,
            **asdict(self._sizing),
        }

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """One hypothesis per clip, in the clips' order.

        A clip whose text trips a guard (`speech.guards`) is cut in two at its quietest place and tried once
        more. Where that goes well its text is the halves' and it carries the flag `resplit`; else it keeps its
        first text and its flags, `low_confidence` among them.

        Args:
            clips: 1-D float32 arrays, 16 kHz mono in -1..1, 25 ms to 40 s each.

        Raises:
            ClipError: naming the clip's position and what is wrong with it. Nothing is transcribed then.
            ScoresNotFinite: for a clip whose scores are NaN or infinite.
        """
        for position, clip in enumerate(clips):
            check_clip(clip, position)
        found: dict[int, Hypothesis] = {}
        for position, outcome in self.stream(enumerate(clips), window=len(clips)):
            if isinstance(outcome, ClipFailed):
                raise outcome
            found[position] = outcome
        return [found[position] for position in range(len(clips))]

    def stream(
        self,
        clips: Iterable[tuple[Key, Clip]],
        *,
        window: int | None = None,
        is_stopping: Callable[[], bool] = never,
    ) -> Generator[tuple[Key, Hypothesis | ClipFailed]]:
        """As `transcribe`, for clips that come one by one: results as they are finished, in any order.

        Args:
            clips: (key, clip); looked at `window` at a time, when slots are about to come free.
            window: clips looked at together, sorted by length for speed. None: twice the slots.
            is_stopping: asked when slots are free; once true, what stands in slots is finished, and the clips
                that wait for one (halves of a second try too) have no result.

        Yields:
            (key, hypothesis), or (key, the reason why this clip has none).

        Raises:
            StreamOpen: another stream of this engine is neither exhausted nor closed.
        """
        if self._is_streaming:
            raise StreamOpen(
                "another stream of this engine is not at its end: take all it gives, or close() it first"
            )
        self._is_streaming = True
        try:
            yield from self._stream(clips, window or 2 * self.n_slots, is_stopping)
        finally:
            self._is_streaming = False

    def _stream(
        self, clips: Iterable[tuple[Key, Clip]], window: int, is_stopping: Callable[[], bool]
    ) -> Iterator[tuple[Key, Hypothesis | ClipFailed]]:
        run = _Run(clips)
        queue = PromptQueue(self._prompter, run.jobs(), window, is_stopping)
        while True:
            generation = self._generation or self._make_generation(self.n_slots)
            self._generation = generation
            try:
                yield from run.rejected()
                for generated in generation.run(queue):
                    clip = run.clip_of(generated.key)
                    yield from run.finish(generated.key, self._outcome(clip, generated), queue)
                    yield from run.rejected()
                yield from run.rejected()
                return
            except torch.OutOfMemoryError:
                if self.n_slots == 1:
                    self._generation = None
                    raise
                lost = generation.in_flight
            except BaseException:
                generation.abandon()
                raise
            # outside the handler: the error's traceback would keep the lost clips' tensors alive
            del generation
            self._shrink()
            queue.put_back([Job(key, run.clip_of(key)) for key in lost])

    def _make_generation(self, n_slots: int) -> Generation:
        return Generation(
            Decoder(self.model, n_slots=n_slots, capacity=self._capacity),
            end_ids=self._end_ids,
            suppressed_ids=self._suppressed_ids,
            max_tokens=token_limit(MAX_CLIP_S),
            max_prefill_rows=self._sizing.max_prefill_rows,
            fixed_shapes=self.fixed_shapes,
        )

    def _shrink(self) -> None:
        """Go on with half the slots, or fewer: the device had no memory for all of them.

        Raises:
            torch.OutOfMemoryError: not even one slot fits.
        """
        n_slots, rows = self.n_slots, self._sizing.max_prefill_rows
        self._generation = None  # its memory is what the new one is made of
        while True:
            n_slots, rows = n_slots // 2, max(rows // 2, self._capacity)
            self._sizing = replace(self._sizing, n_slots=n_slots, max_prefill_rows=rows)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._generation = self._make_generation(n_slots)
            except torch.OutOfMemoryError:
                if n_slots == 1:
                    raise
            else:
                log.warning("out of memory: going on with %d slots", n_slots)
                return

    def _outcome(self, clip: Clip, generated: Generated) -> Hypothesis | ClipFailed:
        tokens, logprobs = generated.token_ids, generated.logprobs
        if not generated.is_finite:
            return ScoresNotFinite(
                f"the model's scores for a clip of {len(clip) / SAMPLE_RATE_HZ:.1f} s are not finite: its weights "
                f"may be damaged, or {self.model.dtype} too narrow for them (try FONOTECA_DTYPE=bfloat16)"
            )
        mean_logprob = sum(logprobs) / len(logprobs)
        if generated.ended:
            tokens, logprobs = tokens[:-1], logprobs[:-1]
        text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        # PostgreSQL's text holds no NUL, which a byte-level vocabulary can write
        text = unicodedata.normalize("NFC", text.replace("\0", "")).strip()
        return Hypothesis(
            text=text,
            token_ids=tokens,
            token_logprobs=logprobs,
            mean_logprob=mean_logprob,
            flags=flags_for(
                text,
                clip=clip,
                n_tokens=len(tokens),
                ended=generated.ended,
                mean_logprob=mean_logprob,
                limit=token_limit(len(clip) / SAMPLE_RATE_HZ),
            ),
        )


class _Run(Generic[Key]):
    """The clips of one `stream`: who they are, and what is still to come for each."""

    def __init__(self, clips: Iterable[tuple[Key, Clip]]) -> None:
        self._clips = iter(clips)
        self._numbers = itertools.count()
        self._open: dict[int, _Open[Key]] = {}
        self._rejected: list[tuple[Key, ClipFailed]] = []

    def jobs(self) -> Iterator[Job]:
        """The clips that can be transcribed; the others go to `rejected`."""
        for key, clip in self._clips:
            try:
                check_clip(clip, key)
            except ClipError as error:
                self._rejected.append((key, error))
                continue
            yield self._add(_Open(key, clip))

    def rejected(self) -> Iterator[tuple[Key, ClipFailed]]:
        """The clips that were found unfit since the last call."""
        rejected, self._rejected = self._rejected, []
        yield from rejected

    def clip_of(self, number: int) -> Clip:
        return self._open[number].clip

    def finish(
        self, number: int, outcome: Hypothesis | ClipFailed, queue: PromptQueue
    ) -> Iterator[tuple[Key, Hypothesis | ClipFailed]]:
        """Take a clip's outcome: the caller's result, or two halves more to do, or the second half awaited."""
        job = self._open.pop(number)
        if job.whole is not None:
            job.whole.add_half(job.is_second, outcome)
            if job.whole.is_complete:
                yield job.key, job.whole.hypothesis()
        elif (
            isinstance(outcome, Hypothesis)
            and tripped(outcome.flags)
            and len(job.clip) >= MIN_RESPLIT_S * SAMPLE_RATE_HZ
        ):
            whole = _Whole(outcome)
            cut = quietest_cut(job.clip)
            halves = (job.clip[:cut], False), (job.clip[cut:], True)
            queue.put_back([self._add(_Open(job.key, half, whole, second)) for half, second in halves])
        else:
            yield job.key, _kept(outcome)

    def _add(self, job: _Open[Key]) -> Job:
        number = next(self._numbers)
        self._open[number] = job
        return Job(number, job.clip)


@dataclass(frozen=True)
class _Open(Generic[Key]):
    """A clip, or half of one, that has no text yet."""

    key: Key
    clip: Clip
    whole: _Whole | None = None
    is_second: bool = False


class _Whole:
    """A clip that is tried again in two halves."""

    def __init__(self, first_try: Hypothesis) -> None:
        self._first_try = first_try
        self._halves: dict[bool, Hypothesis | ClipFailed] = {}

    def add_half(self, is_second: bool, outcome: Hypothesis | ClipFailed) -> None:
        self._halves[is_second] = outcome

    @property
    def is_complete(self) -> bool:
        return len(self._halves) == 2

    def hypothesis(self) -> Hypothesis:
        """The halves' text where neither trips a guard, else the first text, marked as doubtful."""
        first, second = self._halves[False], self._halves[True]
        if (
            isinstance(first, Hypothesis)
            and isinstance(second, Hypothesis)
            and not tripped((*first.flags, *second.flags))
        ):
            return _joined(first, second)
        return replace(self._first_try, flags=keep_doubtful(self._first_try.flags))


def _kept(outcome: Hypothesis | ClipFailed) -> Hypothesis | ClipFailed:
    if isinstance(outcome, Hypothesis) and tripped(outcome.flags):
        return replace(outcome, flags=keep_doubtful(outcome.flags))
    return outcome


def _joined(first: Hypothesis, second: Hypothesis) -> Hypothesis:
    """The hypothesis of a clip whose halves these are."""
    # each half's end token counted once in its mean
    weights = len(first.token_ids) + 1, len(second.token_ids) + 1
    total = first.mean_logprob * weights[0] + second.mean_logprob * weights[1]
    flags = dict.fromkeys((*first.flags, *second.flags, RESPLIT))
    return Hypothesis(
        text=" ".join(half.text for half in (first, second) if half.text),
        token_ids=first.token_ids + second.token_ids,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        mean_logprob=total / sum(weights),
        flags=tuple(flags),
    )


def check_clip(clip: Clip, name: object = 0) -> None:
    """Raise ClipError unless `clip` can be transcribed; `name` stands for it in the message."""
    if clip.ndim != 1 or clip.dtype != np.float32:
        raise ClipError(f"clip {name}: shape {clip.shape} {clip.dtype}; it must be one row of float32")
    duration_s = len(clip) / SAMPLE_RATE_HZ
    if len(clip) < WINDOW_SAMPLES:
        raise ClipError(f"clip {name}: {duration_s * 1000:.1f} ms long; at least 25 ms are needed")
    if duration_s > MAX_CLIP_S:
        raise ClipError(
            f"clip {name}: {len(clip)} samples ({duration_s:.1f} s) long; split it at pauses into {MAX_CLIP_S:.0f} s "
            f"or less"
        )
    if not np.isfinite(clip).all():
        raise ClipError(f"clip {name}: holds NaN or infinite samples")
