"""Greedy generation with in-flight refill: prompts flow through the decoder's slots.

As soon as slots are free, waiting prompts take them, while the others go on writing; so one long text never
holds the rest of a batch. What a slot has written stays on the device until its text is finished: a step costs
no copy of scores, only the chosen token and its log-probability are kept, there.

On CUDA every step has the same shape (all slots, idle or not) and is replayed as one CUDA graph; elsewhere only
the slots in use are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.cuda import CUDAGraph

from speech.decoder import Decoder

_CUDA_STEPS_PER_LOOK = 4
"""Steps between two looks at which texts have ended: a look waits for the device."""
_REFILL_SHARE = 1 / 8
"""Prompts go in as soon as this share of the slots is free: fewer at a time would leave the device idle."""


@dataclass(frozen=True)
class Prompt:
    """One clip ready to be decoded."""

    key: int
    embeddings: torch.Tensor
    """[tokens, hidden], on the decoder's device."""
    token_limit: int
    """Most tokens to write, the end token included."""


@dataclass(frozen=True)
class Generated:
    """What was written for one prompt."""

    key: int
    token_ids: tuple[int, ...]
    """With the end token, where one was written."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each."""
    ended: bool
    """Whether an end token was written."""

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(logprob) for logprob in self.logprobs)


class PromptSource(Protocol):
    """Where the prompts come from."""

    def take(self, most: int) -> list[Prompt]:
        """Up to `most` prompts; none at all means that none is left for now."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether `take` would give none."""
        ...


class Generation:
    """Slots of one decoder and what stands in them. One `run` at a time.

    Args:
        decoder: holds the slots.
        end_ids: tokens that end a text.
        suppressed_ids: tokens that are never text.
        max_tokens: most tokens that one text may have.
        max_prefill_rows: prompt tokens computed at a time.
        fixed_shapes: compute all slots and `max_prefill_rows` each time, so that no number depends on how many
            others there are.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        end_ids: Sequence[int],
        suppressed_ids: Sequence[int],
        max_tokens: int,
        max_prefill_rows: int,
        fixed_shapes: bool,
    ) -> None:
        self.decoder = decoder
        self.fixed_shapes = fixed_shapes
        self.max_prefill_rows = max(max_prefill_rows, decoder.capacity)
        n, device = decoder.n_slots, decoder.device
        self._end_ids = torch.tensor(list(end_ids), device=device)
        self._ends = frozenset(end_ids)
        self._suppressed_ids = torch.tensor(list(suppressed_ids), device=device)
        self._steps_per_look = _CUDA_STEPS_PER_LOOK if device.type == "cuda" else 1
        self._refill_at = max(1, int(n * _REFILL_SHARE))  # at most n: an empty engine always takes
        # per slot: the token to append, tokens held, tokens written, most to write, whether it still writes
        self._token, self._length, self._written, self._limit = (
            torch.zeros(n, dtype=torch.long, device=device) for _ in range(4)
        )
        self._is_writing = torch.zeros(n, dtype=torch.bool, device=device)
        # one column more than a text may have: an idle slot's step writes there
        self._token_ids = torch.zeros(n, max_tokens + 1, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(n, max_tokens + 1, device=device)
        self._keys: list[int | None] = [None] * n
        self._most_held = [0] * n  # no slot holds more tokens than this: known here without asking the device
        self._finished: list[Generated] = []
        self._graph: CUDAGraph | None = None

    @property
    def in_flight(self) -> list[int]:
        """Keys of the prompts that were taken and not given back."""
        return [*self._in_slots, *(result.key for result in self._finished)]

    @property
    def _in_slots(self) -> list[int]:
        return [key for key in self._keys if key is not None]

    @torch.inference_mode()
    def run(self, source: PromptSource) -> Iterator[Generated]:
        """Decode what `source` gives until it gives no more; results as they are finished, in any order.

        The source is asked again after results were taken, so a prompt may be added in answer to one.

        Raises:
            torch.OutOfMemoryError: the device is full. `in_flight` then names what was lost; start anew with
                fewer slots.
        """
        while True:
            n_free = self._keys.count(None)
            if n_free >= self._refill_at:
                self._admit(source.take(n_free))
            is_busy = bool(self._in_slots)
            if is_busy:
                if not self.fixed_shapes and source.is_empty:
                    self._close_gaps()
                self._advance()
            # handed out while the device works on
            while self._finished:
                yield self._finished.pop(0)
            if is_busy:
                self._collect()
            elif source.is_empty:
                return

    def abandon(self) -> None:
        """Empty all slots, whatever they hold."""
        for slot, key in enumerate(self._keys):
            if key is not None:
                self.decoder.clear(slot)  # it may hold NaN, and nobody looked yet
        self._keys = [None] * len(self._keys)
        self._finished = []
        self._is_writing.zero_()

    def _admit(self, prompts: Sequence[Prompt]) -> None:
        """Bring prompts into free slots, in parts that fit the device, and write their first token."""
        free = [slot for slot, key in enumerate(self._keys) if key is None]
        waiting = sorted(prompts, key=lambda prompt: -len(prompt.embeddings))
        # all at once, so that `in_flight` names them whatever happens
        for slot, prompt in zip(free, waiting, strict=False):
            self._keys[slot] = prompt.key
            self._most_held[slot] = len(prompt.embeddings)
        while waiting:
            n_taken = self._n_together(waiting)
            taken, waiting = waiting[:n_taken], waiting[n_taken:]
            slots, free = free[:n_taken], free[n_taken:]
            scores = self.decoder.prefill(
                [prompt.embeddings for prompt in taken],
                slots,
                n_rows=self.max_prefill_rows if self.fixed_shapes else None,
            )
            at = torch.tensor(slots, device=self.decoder.device)
            self._length[at] = torch.tensor([len(p.embeddings) for p in taken], device=at.device)
            self._limit[at] = torch.tensor([p.token_limit for p in taken], device=at.device)
            self._written[at] = 0
            chosen, logprobs, is_last = self._choose(scores, self._written[at], self._limit[at])
            self._token_ids[at, 0], self._logprobs[at, 0] = chosen, logprobs
            self._token[at], self._written[at], self._is_writing[at] = chosen, 1, ~is_last

    def _n_together(self, prompts: Sequence[Prompt]) -> int:
        """How many of the first prompts (longest first) are computed at a time."""
        if not self.decoder.is_flash:  # padded to the longest
            if self.fixed_shapes:
                return 1
            return min(len(prompts), max(1, self.max_prefill_rows // len(prompts[0].embeddings)))
        n, rows = 0, 0
        while n < len(prompts) and rows + len(prompts[n].embeddings) <= self.max_prefill_rows:
            rows += len(prompts[n].embeddings)
            n += 1
        return n

    def _choose(
        self, scores: torch.Tensor, written: torch.Tensor, limit: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of [rows, vocabulary]: the best tokens, their log-probabilities, and whether the text is over."""
        scores.index_fill_(1, self._suppressed_ids, -torch.inf)
        best, chosen = scores.max(-1)
        logprobs = best - scores.logsumexp(-1)
        is_end = (chosen[:, None] == self._end_ids).any(-1)
        return chosen, logprobs, is_end | (written + 1 >= limit) | ~logprobs.isfinite()

    def _advance(self) -> None:
        """Some steps of all slots."""
        if not self.fixed_shapes:
            n = max(slot for slot, key in enumerate(self._keys) if key is not None) + 1
            for _ in range(self._steps_per_look):
                n_keys = max(self._most_held[:n]) + 1
                self._step(n, min(n_keys, self.decoder.capacity))
                self._most_held = [held + 1 if held else 0 for held in self._most_held]
            return
        for _ in range(self._steps_per_look):
            if self.decoder.is_flash:
                self._replay()
            else:
                self._step(len(self._keys), self.decoder.capacity)

    def _replay(self) -> None:
        """One step of all slots, as a CUDA graph captured on first use."""
        if self._graph is None:
            # a capture happens on the current device, which need not be the model's
            with torch.cuda.device(self.decoder.device):
                self._graph = self._captured()
        self._graph.replay()

    def _captured(self) -> CUDAGraph:
        """A step of all slots as a graph. The warm-up runs are real steps: nothing is written by them."""
        everything = len(self._keys), self.decoder.capacity
        writing = self._is_writing.clone()
        self._is_writing.zero_()
        stream = torch.cuda.Stream(self.decoder.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.decoder.device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(*everything)
        torch.cuda.current_stream(self.decoder.device).wait_stream(stream)
        graph = CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(*everything)
        self._is_writing.copy_(writing)
        return graph

    def _step(self, n: int, n_keys: int) -> None:
        """One token more in each of the first `n` slots that still write. No value comes to the host."""
        token, length, written = self._token[:n], self._length[:n], self._written[:n]
        is_writing = self._is_writing[:n]
        scores = self.decoder.step(token, length, n_keys)
        chosen, logprobs, is_last = self._choose(scores, written, self._limit[:n])
        self._token_ids[:n].scatter_(1, written[:, None], chosen[:, None])
        self._logprobs[:n].scatter_(1, written[:, None], logprobs[:, None])
        token.copy_(torch.where(is_writing, chosen, token))
        length += is_writing
        written += is_writing
        is_writing &= ~is_last

    def _collect(self) -> None:
        """Take finished texts out of their slots."""
        is_writing = self._is_writing.tolist()
        finished = [slot for slot, key in enumerate(self._keys) if key is not None and not is_writing[slot]]
        if not finished:
            return
        at = torch.tensor(finished, device=self.decoder.device)
        written = self._written[at].tolist()
        widest = max(written)
        token_ids = self._token_ids[at, :widest].tolist()
        logprobs = self._logprobs[at, :widest].tolist()
        for slot, n, ids, scores in zip(finished, written, token_ids, logprobs, strict=True):
            key = self._keys[slot]
            assert key is not None
            result = Generated(key, tuple(ids[:n]), tuple(scores[:n]), ids[n - 1] in self._ends)
            if not result.is_finite:
                self.decoder.clear(slot)
                self._length[slot] = self._token[slot] = 0
            self._finished.append(result)
            self._keys[slot] = None
            self._most_held[slot] = 0

    def _close_gaps(self) -> None:
        """Move the last slots in use into free ones before them, so that the first slots are the ones in use."""
        used = [slot for slot, key in enumerate(self._keys) if key is not None]
        for hole in range(len(used)):
            if self._keys[hole] is not None:
                continue
            last = used.pop()
            self.decoder.move(last, hole, self._most_held[last])
            for state in (
                self._token, self._length, self._written, self._limit, self._is_writing,
                self._token_ids, self._logprobs,
            ):  # fmt: skip
                state[hole] = state[last]
            self._keys[hole], self._keys[last] = self._keys[last], None
            self._most_held[hole], self._most_held[last] = self._most_held[last], 0
