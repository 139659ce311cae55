"""The Triton kernels on tensors: grids, tiles and shapes.

What is multiplied by what, and when, is graphs.py's business.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from llmchat.engines.transformers.pytorch.cuda import kernels

# Rows of activations up to which a product is faster than dequantising once for cuBLAS.
MOST_ROWS = 8
# Programs that keep a large GPU busy with attention, over all heads and splits.
_ATTENTION_PROGRAMS = 256
_MOST_SPLITS = 32
# Positions of a cache that a program takes at a time.
_POSITIONS = 64


@dataclass(frozen=True)
class Tile:
    """What one program of `one_row` handles at a time; columns in bytes."""

    rows: int
    columns: int
    warps: int


def tile_for(columns: int, gated: bool) -> Tile:
    """A tile for rows of so many bytes.

    64 bytes a thread, in four loads of 16: with 64 registers, eight programs fit a multiprocessor.
    """
    width = min(2048, triton.next_power_of_2(columns))
    return Tile(2 if gated else 4, width, max(1, min(4, width // 512)))


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `matvec` supports these: aligned vectors, bf16 with int8 or bf16, few rows."""
    if x.dtype != torch.bfloat16 or weight.dtype not in (torch.int8, torch.bfloat16):
        return False
    most_rows = MOST_ROWS if weight.dtype == torch.int8 else 1
    is_small = x.shape[-1] % 16 == 0 and x.shape[0] <= most_rows
    return is_small and _is_vectorisable(x) and _is_vectorisable(weight)


def _is_vectorisable(x: Tensor) -> bool:
    return bool(x.is_contiguous() and x.data_ptr() % 16 == 0)


def matvec(
    x: Tensor,
    weight: Tensor,
    step: Tensor | None,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    gated: bool = False,
    tile: Tile | None = None,
) -> Tensor:
    """rms_norm(x, norm) @ (weight * step).T + bias + residual, for what `fits`.

    [m, k] bf16 → [m, n] bf16. weight: int8 [n, k] with its step, fp32 [n], or bf16 without one.
    gated: weight is [2 n, k], and the result is silu(first half) * second half.
    """
    count, k = x.shape
    n = weight.shape[0] // 2 if gated else weight.shape[0]
    out = torch.empty(count, n, dtype=torch.bfloat16, device=x.device)
    with _on(x):
        if count == 1:
            size = weight.element_size()
            tile = tile or tile_for(k * size, gated)
            # Four numbers in one: a thread loads 16 bytes at a time.
            quads = weight.view(torch.int32 if size == 1 else torch.int64)
            norm_quads = None if norm is None else norm.view(torch.int64)
            kernels.one_row[(triton.cdiv(n, tile.rows),)](
                x.view(torch.int64), quads, step, bias, norm_quads, residual, out, n, k // 4, eps,
                GATED=gated, BLOCK_N=tile.rows, BLOCK_K=max(1, tile.columns // (4 * size)),
                num_warps=tile.warps,
            )  # fmt: skip
        else:
            columns = min(256, triton.next_power_of_2(k))
            kernels.few_rows[(triton.cdiv(n, 32),)](
                x, weight, step, bias, norm, residual, out, count, n, k, eps,
                GATED=gated, BLOCK_M=16, BLOCK_N=32, BLOCK_K=columns, num_warps=4, num_stages=3,
            )  # fmt: skip
    return out


def attention(
    qkv: Tensor,
    state: Tensor,
    buffers: Tensor,
    frequencies: Tensor,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
) -> Tensor:
    """Rotary embedding, keys and values into the caches, and attention to them.

    [m, (heads + 2 * kv_heads) * head_dim] → [m, heads * head_dim]. state: int64 [m, 3], token,
    position and capacity of the cache; buffers: int64 [m, layers, 2], the addresses of the caches.
    Rows of the same text see those before them.
    """
    count, layers = qkv.shape[0], buffers.shape[1]
    group = heads // kv_heads
    queries = torch.empty(count, heads * head_dim, dtype=torch.bfloat16, device=qkv.device)
    out = torch.empty_like(queries)
    wanted = max(1, _ATTENTION_PROGRAMS // (count * kv_heads))
    splits = min(_MOST_SPLITS, triton.next_power_of_2(wanted))
    wide = max(16, triton.next_power_of_2(head_dim))
    with _on(qkv):
        kernels.rotate[(count, heads + 2 * kv_heads)](
            qkv, queries, state, buffers, frequencies, layer, layers,
            HEADS=heads, KV_HEADS=kv_heads, DIM=head_dim,
            BLOCK=triton.next_power_of_2(head_dim // 2), num_warps=1,
        )  # fmt: skip
        fp32 = {"dtype": torch.float32, "device": qkv.device}
        parts = out if splits == 1 else torch.empty(count, heads, splits, head_dim, **fp32)
        maxima, sums = torch.empty(2, count, heads, splits, **fp32)
        kernels.attend[(count * kv_heads, splits)](
            queries, state, buffers, parts, maxima, sums, layer, layers, head_dim**-0.5,
            GROUP=group, KV_HEADS=kv_heads, DIM=head_dim, SPLITS=splits,
            BLOCK_G=max(16, triton.next_power_of_2(group)), BLOCK_D=wide, BLOCK_T=_POSITIONS,
            num_warps=4, num_stages=2,
        )  # fmt: skip
        if splits > 1:
            kernels.merge[(count * heads,)](
                parts, maxima, sums, out, DIM=head_dim, SPLITS=splits, BLOCK_D=wide, num_warps=2
            )
    return out


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of the tensors current: Triton launches on the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
