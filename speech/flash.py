"""Flash attention over sequences of different lengths, as torch brings it (CUDA, 16 bits).

One key-value sum per sequence, never split over blocks whose number depends on the load: a sequence's result is
the same to the bit whatever stands beside it (`num_splits=1`, from torch 2.13 on; older versions choose).
"""

from __future__ import annotations

import inspect
from functools import cache

import torch


def has_flash(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether `attend` takes this: CUDA of compute capability 8.0 or more, 16 bits, heads of up to 256."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_size % 8 == 0
        and head_size <= 256
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


@cache
def _takes_one_split() -> bool:
    from torch.nn.attention import varlen

    names = inspect.signature(varlen.varlen_attn).parameters
    return {"num_splits", "seqused_k", "enable_gqa"} <= names.keys()


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float,
    is_causal: bool = False,
    n_keys_used: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each sequence's queries over its own keys.

    Args:
        queries: [query rows, heads, size].
        keys, values: [key rows, key heads, size]; heads a multiple of key heads.
        query_bounds, key_bounds: [sequences + 1] int32, first row of each and the end.
        most_queries, most_keys: no sequence has more.
        scale: of the products.
        is_causal: a query sees the keys up to its own place.
        n_keys_used: [sequences] int32, how many of its keys each sequence sees; None for all.

    Returns:
        [query rows, heads * size].
    """
    if _takes_one_split():
        from torch.nn.attention.varlen import varlen_attn

        mixed = varlen_attn(
            queries,
            keys,
            values,
            query_bounds,
            key_bounds,
            most_queries,
            most_keys,
            scale=scale,
            window_size=(-1, 0) if is_causal else (-1, -1),
            enable_gqa=True,
            seqused_k=n_keys_used,
            num_splits=1,
        )
        assert isinstance(mixed, torch.Tensor)
    else:
        mixed = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - what varlen_attn calls, since torch 2.3
            queries,
            keys,
            values,
            query_bounds,
            key_bounds,
            most_queries,
            most_keys,
            0.0,
            is_causal,
            False,
            scale=scale,
            seqused_k=n_keys_used,
        )[0]
    return mixed.flatten(1)
