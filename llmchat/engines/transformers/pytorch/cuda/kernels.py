"""Triton kernels of one decode step: int8 matrix-vector products, rotary embedding, attention.

A step reads every weight once, so memory bounds its speed. Each kernel keeps many 16-byte loads in
flight, and does what comes before and after its product (norm, bias, activation, residual) itself:
another kernel would cost as much time as 8 MB of weights.

TRITON_INTERPRET=1, set before this module is imported, runs the same kernels on CPU tensors.
"""

import triton
import triton.language as tl

# A signed byte b with its top bit flipped, in the mantissa of this number, gives 2^23 + 128 + b:
# two integer operations and one addition. The conversion instruction is slower than memory.
_BIASED = tl.constexpr(0x4B000000)
_BIAS = tl.constexpr(8388736.0)
_TOP_BITS = tl.constexpr(-2139062144)  # 0x80808080
_HIGH_HALF = tl.constexpr(0xFFFF0000)
_LOG2_E = tl.constexpr(1.4426950408889634)
# The interpreter has numpy's types, without bf16: there operands are widened after rounding.
_OPERAND = tl.constexpr(tl.float32 if triton.knobs.runtime.interpret else tl.bfloat16)


@triton.jit
def _byte(word, index: tl.constexpr):
    """Byte `index` of words of four int8 with flipped top bits → fp32."""
    return (((word >> (8 * index)) & 0xFF) | _BIASED).to(tl.float32, bitcast=True) - _BIAS


@triton.jit
def _unpacked(quad):
    """int64 of four bf16 → four fp32."""
    low, high = quad.to(tl.uint32), (quad >> 32).to(tl.uint32)
    return (
        (low << 16).to(tl.float32, bitcast=True),
        (low & _HIGH_HALF).to(tl.float32, bitcast=True),
        (high << 16).to(tl.float32, bitcast=True),
        (high & _HIGH_HALF).to(tl.float32, bitcast=True),
    )


@triton.jit
def _added(total, words, x0, x1, x2, x3, INT8: tl.constexpr):
    """total + a tile of weights, [rows, quads], times four values of x for each quad."""
    if INT8:
        words = words ^ _TOP_BITS
        total += _byte(words, 0) * x0[None, :]
        total += _byte(words, 1) * x1[None, :]
        total += _byte(words, 2) * x2[None, :]
        total += _byte(words, 3) * x3[None, :]
    else:
        w0, w1, w2, w3 = _unpacked(words)
        total += w0 * x0[None, :]
        total += w1 * x1[None, :]
        total += w2 * x2[None, :]
        total += w3 * x3[None, :]
    return total


@triton.jit
def _operand(x):
    """x rounded to bf16, as tensor cores take it."""
    return x.to(tl.float32).to(tl.bfloat16).to(_OPERAND)


@triton.jit
def _row_output(total, factor, step, bias, rows, kept):
    """Outputs of `rows`, [rows, quads] summed, with the steps of int8 weights and the bias."""
    y = tl.sum(total, 1) * factor
    if step is not None:
        y *= tl.load(step + rows, kept, other=0.0)
    if bias is not None:
        y += tl.load(bias + rows, kept, other=0.0).to(tl.float32)
    return y


@triton.jit
def one_row(
    x,  # int64 [quads]: four bf16 each
    weight,  # int32 [n, quads] of four int8, or int64 of four bf16; gated: [2 n, quads]
    step,  # fp32 [n], what 1 is worth in that row; None for bf16
    bias,  # bf16 [n] or None
    norm,  # int64 [quads], the weight of an RMS norm of x, or None
    residual,  # bf16 [n], added at the end, or None
    out,  # bf16 [n]
    n,
    quads,
    eps,
    GATED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out = weight @ x for one row of activations; gated: silu(gate @ x) * (up @ x)."""
    INT8: tl.constexpr = step is not None
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    kept = rows < n
    first = weight + rows.to(tl.int64)[:, None] * quads
    second = first + n.to(tl.int64) * quads
    total = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    other = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    squares = tl.zeros((BLOCK_K,), tl.float32)
    for start in range(0, quads, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        inside = columns < quads
        tile = kept[:, None] & inside[None, :]
        # The weights are used once, x by every program: the caches are for x.
        words = tl.load(first + columns[None, :], tile, other=0, eviction_policy="evict_first")
        if GATED:
            more = tl.load(second + columns[None, :], tile, other=0, eviction_policy="evict_first")
        x0, x1, x2, x3 = _unpacked(
            tl.load(x + columns, inside, other=0, eviction_policy="evict_last")
        )
        if norm is not None:
            squares += x0 * x0 + x1 * x1 + x2 * x2 + x3 * x3
            g0, g1, g2, g3 = _unpacked(
                tl.load(norm + columns, inside, other=0, eviction_policy="evict_last")
            )
            x0, x1, x2, x3 = x0 * g0, x1 * g1, x2 * g2, x3 * g3
        total = _added(total, words, x0, x1, x2, x3, INT8)
        if GATED:
            other = _added(other, more, x0, x1, x2, x3, INT8)
    factor = 1.0
    if norm is not None:
        factor = tl.rsqrt(tl.sum(squares, 0) / (4 * quads) + eps)
    y = _row_output(total, factor, step, bias, rows, kept)
    if GATED:
        z = _row_output(other, factor, step, bias, n + rows, kept)
        y = y * tl.sigmoid(y) * z
    if residual is not None:
        y += tl.load(residual + rows, kept, other=0.0).to(tl.float32)
    tl.store(out + rows, y.to(tl.bfloat16), kept)


@triton.jit
def _rows_output(total, factor, step, bias, norm, rows, kept):
    """Outputs [rows, texts], with the steps of int8 weights, the norm's factor and the bias."""
    y = total * tl.load(step + rows, kept, other=0.0)[:, None]
    if norm is not None:
        y *= factor[None, :]
    if bias is not None:
        y += tl.load(bias + rows, kept, other=0.0).to(tl.float32)[:, None]
    return y


@triton.jit
def few_rows(
    x,  # bf16 [m, k]
    weight,  # int8 [n, k]; gated: [2 n, k], gates first
    step,
    bias,
    norm,  # bf16 [k] or None
    residual,  # bf16 [m, n] or None
    out,  # bf16 [m, n]
    m,
    n,
    k,
    eps,
    GATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The same for 2 to 8 rows, on the tensor cores: int8 is exact in bf16, and sums are fp32."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    texts = tl.arange(0, BLOCK_M)
    kept, used = rows < n, texts < m
    first = weight + rows.to(tl.int64)[:, None] * k
    second = first + n.to(tl.int64) * k
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    other = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        inside = columns < k
        tile = kept[:, None] & inside[None, :]
        words = tl.load(first + columns[None, :], tile, other=0, eviction_policy="evict_first")
        columns_of_x = tl.load(
            x + texts[None, :] * k + columns[:, None],
            used[None, :] & inside[:, None],
            other=0.0,
            eviction_policy="evict_last",
        )
        if norm is not None:
            wide = columns_of_x.to(tl.float32)
            squares += tl.sum(wide * wide, 0)
            weights = tl.load(norm + columns, inside, other=0.0, eviction_policy="evict_last")
            columns_of_x = wide * weights.to(tl.float32)[:, None]
        operand = _operand(columns_of_x)
        total = tl.dot(_operand(words), operand, total)
        if GATED:
            more = tl.load(second + columns[None, :], tile, other=0, eviction_policy="evict_first")
            other = tl.dot(_operand(more), operand, other)
    factor = squares
    if norm is not None:
        factor = tl.rsqrt(squares / k + eps)
    y = _rows_output(total, factor, step, bias, norm, rows, kept)
    if GATED:
        z = _rows_output(other, factor, step, bias, norm, n + rows, kept)
        y = y * tl.sigmoid(y) * z
    places = texts[None, :] * n + rows[:, None]
    mask = used[None, :] & kept[:, None]
    if residual is not None:
        y += tl.load(residual + places, mask, other=0.0).to(tl.float32)
    tl.store(out + places, y.to(tl.bfloat16), mask)


@triton.jit(do_not_specialize=["layer", "layers"])
def rotate(
    qkv,  # bf16 [m, heads + 2 * kv_heads, dim]
    queries,  # bf16 [m, heads, dim]
    state,  # int64 [m, 3]: token, position, capacity of the cache
    buffers,  # int64 [m, layers, 2]: addresses of keys and values, bf16 [kv_heads, capacity, dim]
    frequencies,  # fp32 [dim / 2]
    layer,
    layers,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rotate queries and keys; write keys and values into the cache. A program a row and head."""
    row, head = tl.program_id(0), tl.program_id(1)
    position = tl.load(state + row * 3 + 1)
    capacity = tl.load(state + row * 3 + 2)
    half = tl.arange(0, BLOCK)
    kept = half < DIM // 2
    source = qkv + (row.to(tl.int64) * (HEADS + 2 * KV_HEADS) + head) * DIM
    first = tl.load(source + half, kept, other=0.0).to(tl.float32)
    second = tl.load(source + DIM // 2 + half, kept, other=0.0).to(tl.float32)
    if head < HEADS + KV_HEADS:
        angle = position.to(tl.float32) * tl.load(frequencies + half, kept, other=0.0)
        # Rounded as in the forward pass in plain torch.
        cos = tl.cos(angle).to(tl.bfloat16).to(tl.float32)
        sin = tl.sin(angle).to(tl.bfloat16).to(tl.float32)
        first, second = first * cos - second * sin, second * cos + first * sin
    if head < HEADS:
        target = queries + (row.to(tl.int64) * HEADS + head) * DIM
    else:
        # Heads of keys come before heads of values in both lists.
        cached = head - HEADS
        value = cached // KV_HEADS
        address = tl.load(buffers + (row * layers + layer) * 2 + value)
        base = address.to(tl.pointer_type(tl.bfloat16))
        target = base + ((cached % KV_HEADS) * capacity + position) * DIM
    tl.store(target + half, first.to(tl.bfloat16), kept)
    tl.store(target + DIM // 2 + half, second.to(tl.bfloat16), kept)


@triton.jit
def _attend_block(query, key, value, visible, largest, total, result, scale):
    """Add a block of positions to an online softmax: its maximum, sum, and sum of values."""
    scores = tl.dot(query, tl.trans(_operand(key))) * (scale * _LOG2_E)
    scores = tl.where(visible[None, :], scores, float("-inf"))
    higher = tl.maximum(largest, tl.max(scores, 1))
    weights = tl.exp2(scores - higher[:, None])
    shrink = tl.exp2(largest - higher)
    total = total * shrink + tl.sum(weights, 1)
    result = tl.dot(_operand(weights), _operand(value), result * shrink[:, None])
    return higher, total, result


@triton.jit(do_not_specialize=["layer", "layers"])
def attend(
    queries,  # bf16 [m, heads, dim]
    state,
    buffers,
    out,  # bf16 [m, heads, dim] with one split; else fp32 [m, heads, splits, dim], not normalised
    maxima,  # fp32 [m, heads, splits]
    sums,  # fp32 [m, heads, splits]
    layer,
    layers,
    scale,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Attention of one query to the positions up to its own, split over programs along the cache.

    This is flash-decoding (Dao et al. 2023).
    """
    row, kv_head = tl.program_id(0) // KV_HEADS, tl.program_id(0) % KV_HEADS
    split = tl.program_id(1)
    length = tl.load(state + row * 3 + 1).to(tl.int32) + 1
    capacity = tl.load(state + row * 3 + 2)
    per_split = tl.cdiv(tl.cdiv(length, BLOCK_T), SPLITS) * BLOCK_T
    begin = split * per_split
    end = tl.minimum(begin + per_split, length)
    addresses = buffers + (row * layers + layer) * 2
    keys = tl.load(addresses).to(tl.pointer_type(tl.bfloat16))
    values = tl.load(addresses + 1).to(tl.pointer_type(tl.bfloat16))
    keys = tl.multiple_of(keys, 16) + kv_head * capacity * DIM
    values = tl.multiple_of(values, 16) + kv_head * capacity * DIM
    group, dims = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)
    heads = kv_head * GROUP + group
    wanted = (group < GROUP)[:, None] & (dims < DIM)[None, :]
    places = (row * KV_HEADS * GROUP + heads)[:, None] * DIM + dims[None, :]
    query = _operand(tl.load(queries + places, wanted, other=0.0))
    largest = tl.full((BLOCK_G,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    result = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    for start in range(begin, end, BLOCK_T):
        positions = start + tl.arange(0, BLOCK_T)
        visible = positions < end
        mask = visible[:, None] & (dims < DIM)[None, :]
        offsets = positions[:, None] * DIM + dims[None, :]
        key = tl.load(keys + offsets, mask, other=0.0)
        value = tl.load(values + offsets, mask, other=0.0)
        largest, total, result = _attend_block(
            query, key, value, visible, largest, total, result, scale
        )
    if SPLITS == 1:
        tl.store(out + places, (result / total[:, None]).to(tl.bfloat16), wanted)
    else:
        line = (row * KV_HEADS * GROUP + heads) * SPLITS + split
        tl.store(out + line[:, None] * DIM + dims[None, :], result, wanted)
        tl.store(maxima + line, largest, group < GROUP)
        tl.store(sums + line, total, group < GROUP)


@triton.jit
def merge(parts, maxima, sums, out, DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Merge the splits of `attend`: out bf16 [m * heads, dim]. One program a row and head."""
    line = tl.program_id(0)
    splits, dims = tl.arange(0, SPLITS), tl.arange(0, BLOCK_D)
    largest = tl.load(maxima + line * SPLITS + splits)
    weights = tl.exp2(largest - tl.max(largest, 0))
    total = tl.sum(tl.load(sums + line * SPLITS + splits) * weights, 0)
    places = parts + (line * SPLITS + splits)[:, None] * DIM + dims[None, :]
    result = tl.sum(tl.load(places, (dims < DIM)[None, :], other=0.0) * weights[:, None], 0)
    tl.store(out + line * DIM + dims, (result / total).to(tl.bfloat16), dims < DIM)
