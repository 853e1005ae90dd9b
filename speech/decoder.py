"""The decoder's forward pass over static slots: one slot holds the keys and values of one clip's text.

A forward of our own over the native model's weights, because the general one pays for its generality at every
step: masks and caches built anew, keys and values repeated for each group of query heads, no fixed shapes. Here

- the cache is one block per layer; a clip is written into a free slot and stays there, and a slot is given to
  the next clip without touching the others;
- prompts need no mask: they are padded on the right and attention is causal, so that a token never sees padding;
- in a step the query heads of a group are laid along the query axis of their key head (they all look at the same
  keys), so that no key is repeated; on CUDA, flash attention reads only each slot's own length.

The arithmetic is that of `transformers` (5.23) `Phi4MultimodalModel`, which Microsoft's recorded outputs confirm
(`tests/speech/test_checkpoint.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import Phi4MultimodalForCausalLM

from speech import flash

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, queries [rows, heads, size], keys and values [rows, kv heads, size]) -> [rows, heads * size]."""


@dataclass(frozen=True)
class _Layer:
    """One decoder layer's weights: the model's own tensors, not copies."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    attention_out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Decoder:
    """Phi-4's decoder with room for `n_slots` clips.

    Args:
        model: from `speech.checkpoint.open_checkpoint`.
        n_slots: clips held at a time.
        capacity: most tokens of one clip, prompt and text together.

    Raises:
        ValueError: `capacity` is more than the positions that the model's rotary tables are exact for.
    """

    def __init__(self, model: Phi4MultimodalForCausalLM, *, n_slots: int, capacity: int) -> None:
        config = model.config
        self.n_slots = n_slots
        self.capacity = capacity
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._n_heads: int = config.num_attention_heads
        self._n_kv_heads: int = config.num_key_value_heads
        self._head_size: int = getattr(config, "head_dim", None) or config.hidden_size // self._n_heads
        self._scale = self._head_size**-0.5
        self._epsilon: float = config.rms_norm_eps
        self._activation: Callable[[torch.Tensor], torch.Tensor] = model.model.layers[0].mlp.activation_fn
        self._layers = [_weights(layer) for layer in model.model.layers]
        self._norm: torch.Tensor = model.model.norm.weight
        self._embedding: torch.Tensor = model.model.embed_tokens.weight
        self._vocabulary: torch.Tensor = model.lm_head.weight
        self._cos, self._sin = self._rotary_tables(model)
        self.is_flash = flash.has_flash(self.device, self.dtype, self._head_size)
        # flash attention takes [slot, token, head, size]; elsewhere a head's tokens side by side are read faster
        shape = (
            (n_slots + 1, capacity, self._n_kv_heads, self._head_size)
            if self.is_flash
            else (n_slots + 1, self._n_kv_heads, capacity, self._head_size)
        )
        # zeros, not empty memory: what a mask hides is still multiplied, by 0, and 0 x NaN is NaN
        self._keys = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self._layers]
        self._values = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self._layers]
        self._slot_numbers = torch.arange(n_slots + 1, device=self.device)
        self._heads = torch.arange(self._n_kv_heads, device=self.device)
        if self.is_flash:
            self._slot_bounds = self._slot_numbers.to(torch.int32)

    @staticmethod
    def slot_bytes(model: Phi4MultimodalForCausalLM, capacity: int) -> int:
        """Memory of one slot."""
        config = model.config
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size
        return int(per_token * capacity * model.dtype.itemsize)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of `token_ids`, [..., hidden]."""
        return functional.embedding(token_ids, self._embedding)

    def prefill(
        self, prompts: Sequence[torch.Tensor], slots: Sequence[int], *, n_rows: int | None = None
    ) -> torch.Tensor:
        """Write prompts into slots and return the scores of each one's first token.

        Args:
            prompts: [length, hidden] each, the model's dtype.
            slots: where each goes.
            n_rows: compute this many rows whatever the prompts' lengths, so that a prompt's numbers never depend
                on its neighbours' (packed prompts only, that is with flash attention); at least their sum.

        Returns:
            [prompts, vocabulary], float32.
        """
        lengths = [len(prompt) for prompt in prompts]
        if self.is_flash:
            return self._prefill_packed(prompts, slots, lengths, n_rows or sum(lengths))
        return self._prefill_padded(prompts, slots, lengths)

    def step(self, token_ids: torch.Tensor, lengths: torch.Tensor, n_keys: int) -> torch.Tensor:
        """One token more in each of the first `len(token_ids)` slots.

        Args:
            token_ids: [n], the tokens to append.
            lengths: [n], tokens that each slot holds before.
            n_keys: no slot holds more than this many tokens afterwards.

        Returns:
            [n, vocabulary], float32: scores of the token after.
        """
        n = len(token_ids)
        rows = self._cache_rows(self._slot_numbers[:n], lengths)
        attend = self._flash_step(lengths) if self.is_flash else self._masked_step(lengths, n, n_keys)
        hidden = self._run_layers(self.embed(token_ids), lengths, rows, attend)
        return self._scores(hidden)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another."""
        for cache in (*self._keys, *self._values):
            tokens = cache if self.is_flash else cache.transpose(1, 2)
            tokens[target, :length] = tokens[source, :length]

    def clear(self, slot: int) -> None:
        """Forget what a slot holds: needed only after numbers that are not finite."""
        for cache in (*self._keys, *self._values):
            cache[slot] = 0

    def _rotary_tables(self, model: Phi4MultimodalForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and signed sine, [capacity, head size]; 1 and 0 where a head is not turned."""
        config = model.config
        original = getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
        if self.capacity > original:
            raise ValueError(
                f"a capacity of {self.capacity} tokens is more than the model's {original} exact positions"
            )
        positions = torch.arange(self.capacity, device=self.device)[None]
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = (table[0] for table in model.model.rotary_emb(like, positions))
        self._n_turned: int = cos.shape[-1]
        half = self._n_turned // 2
        all_cos = cos.new_ones(self.capacity, self._head_size)
        all_sin = sin.new_zeros(self.capacity, self._head_size)
        all_cos[:, : self._n_turned] = cos
        all_sin[:, :half] = -sin[:, :half]
        all_sin[:, half : self._n_turned] = sin[:, half:]
        return all_cos, all_sin

    def _turn(self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding of [rows, heads, size]."""
        half, turned = self._n_turned // 2, self._n_turned
        swapped = torch.cat([heads[..., half:turned], heads[..., :half], heads[..., turned:]], dim=-1)
        return torch.addcmul(heads * cos, swapped, sin)

    def _run_layers(
        self, hidden: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """All layers over [rows, hidden]; keys and values go to where `rows` (`_cache_rows`) says."""
        n, width = hidden.shape
        n_turned_heads = self._n_heads + self._n_kv_heads
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        for number, layer in enumerate(self._layers):
            normed = functional.rms_norm(hidden, (width,), layer.attention_norm, self._epsilon)
            heads = functional.linear(normed, layer.qkv).view(n, -1, self._head_size)
            turned = self._turn(heads[:, :n_turned_heads], cos, sin)
            queries, keys = turned[:, : self._n_heads], turned[:, self._n_heads :]
            values = heads[:, n_turned_heads:]
            self._write(self._keys[number], rows, keys)
            self._write(self._values[number], rows, values)
            mixed = attend(number, queries, keys, values)
            hidden = torch.addmm(hidden, mixed, layer.attention_out.t())
            normed = functional.rms_norm(hidden, (width,), layer.mlp_norm, self._epsilon)
            gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
            hidden = torch.addmm(hidden, self._activation(gate) * up, layer.down.t())
        return hidden

    def _cache_rows(self, slots: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Where in the cache tokens go: [tokens], or [tokens * kv heads] where each head lies apart."""
        if self.is_flash:
            return slots * self.capacity + positions
        by_head = slots[:, None] * self._n_kv_heads + self._heads
        return (by_head * self.capacity + positions[:, None]).flatten()

    def _write(self, cache: torch.Tensor, rows: torch.Tensor, new: torch.Tensor) -> None:
        """`new` [tokens, kv heads, size] into the cache's `rows`."""
        if self.is_flash:
            cache.flatten(0, 1).index_copy_(0, rows, new)
        else:
            cache.flatten(0, 2).index_copy_(0, rows, new.reshape(-1, self._head_size))

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, [rows, vocabulary] float32, of the last layer's [rows, hidden]."""
        normed = functional.rms_norm(hidden, (hidden.shape[1],), self._norm, self._epsilon)
        if self.is_flash:
            # 16-bit scores of near-equal tokens are often the same number: keep the sums as they are added up
            return torch.mm(normed, self._vocabulary.t(), out_dtype=torch.float32)
        return functional.linear(normed, self._vocabulary).float()

    def _prefill_padded(
        self, prompts: Sequence[torch.Tensor], slots: Sequence[int], lengths: Sequence[int]
    ) -> torch.Tensor:
        n, longest = len(prompts), max(lengths)
        hidden = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True).flatten(0, 1)
        positions = torch.arange(longest, device=self.device).repeat(n)
        slot_of_row = torch.tensor(slots, device=self.device).repeat_interleave(longest)

        def attend(_: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            by_prompt = [
                x.view(n, longest, -1, self._head_size).transpose(1, 2) for x in (queries, keys, values)
            ]
            mixed = functional.scaled_dot_product_attention(
                by_prompt[0],
                by_prompt[1],
                by_prompt[2],
                is_causal=True,
                scale=self._scale,
                enable_gqa=self._n_heads != self._n_kv_heads,
            )
            return mixed.transpose(1, 2).reshape(n * longest, -1)

        hidden = self._run_layers(hidden, positions, self._cache_rows(slot_of_row, positions), attend)
        last = torch.arange(n) * longest + torch.tensor(lengths) - 1
        return self._scores(hidden[last.to(self.device)])

    def _prefill_packed(
        self, prompts: Sequence[torch.Tensor], slots: Sequence[int], lengths: Sequence[int], n_rows: int
    ) -> torch.Tensor:
        # what fills the rows up are prompts of zeros that go to the slot after the last, which nobody reads
        n_padding = n_rows - sum(lengths)
        padding = prompts[0].new_zeros(n_padding, prompts[0].shape[1])
        pieces = [*lengths, *_pieces(n_padding, self.capacity)]
        homes = [*slots, *[self.n_slots] * (len(pieces) - len(lengths))]
        positions = torch.cat([torch.arange(length) for length in pieces])
        slot_of_row = torch.repeat_interleave(torch.tensor(homes), torch.tensor(pieces)).to(self.device)
        ends = torch.tensor([0, *pieces]).cumsum(0)
        bounds = ends.to(self.device, torch.int32)

        def attend(_: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            return flash.attend(
                queries, keys, values, bounds, bounds, self.capacity, self.capacity,
                scale=self._scale, is_causal=True,
            )  # fmt: skip

        hidden = torch.cat([*prompts, padding])
        positions = positions.to(self.device)
        hidden = self._run_layers(hidden, positions, self._cache_rows(slot_of_row, positions), attend)
        # as many rows as a step has, whatever the number of prompts: see `n_rows`
        last = hidden.new_zeros(max(self.n_slots, len(prompts)), hidden.shape[1])
        last[: len(prompts)] = hidden[(ends[1 : len(prompts) + 1] - 1).to(self.device)]
        return self._scores(last)[: len(prompts)]

    def _masked_step(self, lengths: torch.Tensor, n: int, n_keys: int) -> Attend:
        n_batched, n_group = n * self._n_kv_heads, self._n_heads // self._n_kv_heads
        is_hidden = torch.arange(n_keys, device=self.device) > lengths[:, None]
        mask = torch.zeros(n, n_keys, dtype=self.dtype, device=self.device).masked_fill_(
            is_hidden, -torch.inf
        )
        mask = mask[:, None, None].expand(n, self._n_kv_heads, n_group, n_keys).reshape(-1, n_group, n_keys)

        def attend(layer: int, queries: torch.Tensor, _: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
            # two batched products: the fused kernel is made for many queries and is slower with one
            keys = self._keys[layer][:n].flatten(0, 1)[:, :n_keys]
            values = self._values[layer][:n].flatten(0, 1)[:, :n_keys]
            grouped = queries.reshape(n_batched, n_group, self._head_size)
            weights = torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=self._scale)
            weights = weights.softmax(-1, dtype=torch.float32).to(self.dtype)
            return torch.bmm(weights, values).view(n, -1)

        return attend

    def _flash_step(self, lengths: torch.Tensor) -> Attend:
        n = len(lengths)
        query_bounds = self._slot_bounds[: n + 1]
        key_bounds = query_bounds * self.capacity
        n_used = (lengths + 1).to(torch.int32)

        def attend(layer: int, queries: torch.Tensor, _: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
            return flash.attend(
                queries, self._keys[layer][:n].flatten(0, 1), self._values[layer][:n].flatten(0, 1),
                query_bounds, key_bounds, 1, self.capacity, scale=self._scale, n_keys_used=n_used,
            )  # fmt: skip

        return attend


def _weights(layer: Any) -> _Layer:
    return _Layer(
        attention_norm=layer.input_layernorm.weight,
        qkv=layer.self_attn.qkv_proj.weight,
        attention_out=layer.self_attn.o_proj.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=layer.mlp.gate_up_proj.weight,
        down=layer.mlp.down_proj.weight,
    )


def _pieces(total: int, largest: int) -> list[int]:
    """`total` in parts of at most `largest`."""
    return [min(largest, total - start) for start in range(0, total, largest)]
