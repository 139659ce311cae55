"""Tensors in, tensors out: the kernels with their tiles, on the device of their tensors."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from llmchat.engines.transformers.pytorch.cuda import kernels

# Rows of activations that a matrix-vector product takes: above, dequantising once and cuBLAS is faster.
MOST_ROWS = 8
# Programs that keep a large GPU busy with attention, over all heads and splits.
_ATTENTION_PROGRAMS = 256
_MOST_SPLITS = 32
_TIMES = 64


@dataclass(frozen=True)
class Tile:
    """What one program of `one_row` works on at a time: rows of the matrix, columns in bytes, warps."""

    rows: int
    columns: int
    warps: int


def tile_for(columns: int, gated: bool) -> Tile:
    """columns: bytes of a row. 64 bytes a thread, in four loads of 16: at 64 registers that is eight programs a multiprocessor."""
    width = min(2048, triton.next_power_of_2(columns))
    return Tile(2 if gated else 4, width, max(1, min(4, width // 512)))


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels take these: whole, aligned vectors of bf16 and of int8 or bf16."""
    straight = (
        x.is_contiguous()
        and weight.is_contiguous()
        and weight.data_ptr() % 16 == 0
        and x.data_ptr() % 16 == 0
    )
    kinds = x.dtype == torch.bfloat16 and weight.dtype in (torch.int8, torch.bfloat16)
    return (
        straight
        and kinds
        and x.shape[-1] % 16 == 0
        and x.shape[0] <= (MOST_ROWS if weight.dtype == torch.int8 else 1)
    )


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
    """rms_norm(x, norm) @ (weight * step).T + bias + residual for up to eight rows: [m, k] bf16 → [m, n] bf16; see `fits`.

    weight: int8 [n, k] with its step, fp32 [n]; or bf16 without. gated: weight is [2 n, k], and silu(first half) * second half comes out.
    """
    count, k = x.shape
    n = weight.shape[0] // 2 if gated else weight.shape[0]
    out = torch.empty(count, n, dtype=torch.bfloat16, device=x.device)
    with _on(x):
        if count == 1:
            size = weight.element_size()
            tile = tile or tile_for(k * size, gated)
            four = torch.int32 if size == 1 else torch.int64
            whole = None if norm is None else norm.view(torch.int64)
            kernels.one_row[(triton.cdiv(n, tile.rows),)](
                x.view(torch.int64), weight.view(four), step, bias, whole, residual, out, n, k // 4, eps,
                GATED=gated, BLOCK_N=tile.rows, BLOCK_K=max(1, tile.columns // (4 * size)), num_warps=tile.warps,
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
    """[m, (heads + 2 * kv_heads) * head_dim] → [m, heads * head_dim]: rotates, writes keys and values into the caches, and attends to them.

    state: int64 [m, 3], the token, its position and the capacity of its cache; buffers: int64 [m, layers, 2], the addresses of the caches.
    Rows of the same text see those before them.
    """
    count, layers = qkv.shape[0], buffers.shape[1]
    queries = torch.empty(count, heads * head_dim, dtype=torch.bfloat16, device=qkv.device)
    out = torch.empty_like(queries)
    splits = min(
        _MOST_SPLITS, triton.next_power_of_2(max(1, _ATTENTION_PROGRAMS // (count * kv_heads)))
    )
    wide = max(16, triton.next_power_of_2(head_dim))
    with _on(qkv):
        kernels.rotate[(count, heads + 2 * kv_heads)](
            qkv, queries, state, buffers, frequencies, layer, layers,
            HEADS=heads, KV_HEADS=kv_heads, DIM=head_dim, BLOCK=triton.next_power_of_2(head_dim // 2), num_warps=1,
        )  # fmt: skip
        parts = (
            out
            if splits == 1
            else torch.empty(count, heads, splits, head_dim, dtype=torch.float32, device=qkv.device)
        )
        maxima, sums = torch.empty(2, count, heads, splits, dtype=torch.float32, device=qkv.device)
        kernels.attend[(count * kv_heads, splits)](
            queries, state, buffers, parts, maxima, sums, layer, layers, head_dim**-0.5,
            GROUP=heads // kv_heads, KV_HEADS=kv_heads, DIM=head_dim, SPLITS=splits,
            BLOCK_G=max(16, triton.next_power_of_2(heads // kv_heads)), BLOCK_D=wide, BLOCK_T=_TIMES, num_warps=4, num_stages=2,
        )  # fmt: skip
        if splits > 1:
            kernels.merge[(count * heads,)](
                parts, maxima, sums, out, DIM=head_dim, SPLITS=splits, BLOCK_D=wide, num_warps=2
            )
    return out


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever the tensors are on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
