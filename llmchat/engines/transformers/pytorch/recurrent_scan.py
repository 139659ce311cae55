"""The recurrences of recurrent blocks over the new tokens of a text, chunk by chunk."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Tokens that are taken at once. Each chunk takes as many operations as a few single tokens.
_CHUNK = 64
_RWKV_CHUNK = 32
# Where each channel decays on its own, products of two tokens take one number a channel.
_CHANNEL_CHUNK = 16


def convolve(x: Tensor, before: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A causal convolution of each channel. x: [T, channels]; weight: [channels, kernel].

    before: [kernel - 1, channels], what preceded x; becomes what precedes the next tokens.
    """
    rows = torch.cat((before, x))
    count, kernel = len(x), weight.shape[1]
    out = rows[:count] * weight[:, 0]
    for offset in range(1, kernel):
        out = out + rows[offset : offset + count] * weight[:, offset]
    before.copy_(rows[count:])
    return out if bias is None else out + bias


def scan(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, beta: Tensor | None = None
) -> Tensor:
    """For each token: S *= exp(decay), S += k v, and the result is q S, with v - k S in place of v,
    times beta, where there is one (the delta rule).

    q, k: [heads, T, N]; v: [heads, T, P]; decay, beta: [heads, T]; state: [heads, N, P], changes in
    place. Returns [heads, T, P].
    """
    parts = []
    for start in range(0, q.shape[1], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        some = None if beta is None else beta[:, chunk]
        args = q[:, chunk], k[:, chunk], v[:, chunk], decay[:, chunk]
        parts.append(_scan_chunk(*args, state, some))
    return torch.cat(parts, dim=1)


def _scan_chunk(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, beta: Tensor | None
) -> Tensor:
    total = decay.cumsum(1)  # [heads, T]: of the state before the chunk
    between = (total[:, :, None] - total[:, None, :]).tril().exp().tril()  # [heads, T, T]
    if beta is not None:
        v = _corrected(k, v, beta, total, between, state)
    out = (q * total.exp()[..., None]) @ state + (q @ k.mT * between) @ v
    left = (total[:, -1:] - total).exp()[..., None]  # what the end of the chunk keeps of a token
    state.mul_(total[:, -1].exp()[:, None, None]).add_((k * left).mT @ v)
    return out


def _corrected(
    k: Tensor, v: Tensor, beta: Tensor, total: Tensor, between: Tensor, state: Tensor
) -> Tensor:
    """beta * (v - k S) of each token, where S holds the tokens before it: a triangular system."""
    k_beta, v_beta = k * beta[..., None], v * beta[..., None]
    system = (k_beta @ k.mT * between).tril(-1)
    right = v_beta - (k_beta * total.exp()[..., None]) @ state
    return torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)


def scan_channels(parts: Sequence[Tensor], state: Tensor) -> Tensor:
    """For each token: S = exp(decay) * S - b (a S) + k v, row by row, and the result is q S.

    parts: q, decay, a, b, k [heads, T, N]; v [heads, T, P]. state: [heads, N, P], changes in
    place. Returns [heads, T, P].
    """
    chunks = zip(*(part.split(_CHANNEL_CHUNK, 1) for part in parts), strict=True)
    return torch.cat([_scan_channel_chunk(chunk, state) for chunk in chunks], dim=1)


def _scan_channel_chunk(chunk: tuple[Tensor, ...], state: Tensor) -> Tensor:
    """What `a` finds of all tokens is a triangular system; no exponent is above zero."""
    q, decay, a, b, k, v = chunk
    total = decay.cumsum(1)
    before = total - decay
    found = (a * before.exp()) @ state + _seen(a, before, k, total, -1) @ v
    system = _seen(a, before, b, total, -1)
    found = torch.linalg.solve_triangular(system, found, upper=False, unitriangular=True)
    out = (q * total.exp()) @ state
    out += _seen(q, total, k, total, 0) @ v - _seen(q, total, b, total, 0) @ found
    left = (total[:, -1:] - total).exp()
    state.mul_(total[:, -1, :, None].exp())
    state.add_((k * left).mT @ v).sub_((b * left).mT @ found)
    return out


def _seen(q: Tensor, at: Tensor, k: Tensor, total: Tensor, diagonal: int) -> Tensor:
    """[heads, T, T]: products of each query with the keys up to its `diagonal`, as they have
    decayed. at, total: [heads, T, N], sums of the decays up to the queries and the keys.
    """
    ages = at[:, :, None] - total[:, None]  # [heads, T, T, N]
    seen = torch.ones(ages.shape[1:3], dtype=torch.bool, device=q.device).tril(diagonal)
    weights = ages.masked_fill(~seen[..., None], -torch.inf).exp()
    return (q[:, :, None] * k[:, None] * weights).sum(-1)


def weigh(key: Tensor, value: Tensor, first: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """The weighted averages of RWKV-4: values weigh exp(key - distance * decay), and the token's
    own exp(key + first).

    key, value: [T, width]; first, decay: [width]; state: [3, width], numerator, denominator and
    largest exponent, changes in place. Returns [T, width].
    """
    chunks = zip(key.split(_RWKV_CHUNK), value.split(_RWKV_CHUNK), strict=True)
    return torch.cat([_weigh_chunk(*chunk, first, decay, state) for chunk in chunks])


def _weigh_chunk(key: Tensor, value: Tensor, first: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    count = len(key)
    numerator, denominator, largest = state
    # Before the first token nothing weighs anything.
    largest = torch.where(denominator == 0, -torch.inf, largest)
    steps = torch.arange(count, device=key.device)
    ages = (steps[:, None] - steps - 1)[..., None]  # [T, T, 1]: of token s when t is read
    weights = torch.where(ages >= 0, key - ages * decay, -torch.inf)
    weights = torch.where(ages == -1, (key + first)[None], weights)
    old = largest - (steps[:, None] + 0.0) * decay
    average, _ = _summed(weights, old, value, numerator, denominator)
    ages = (count - 1 - steps)[None, :, None]
    weights, old = key - ages * decay, (largest - count * decay)[None]
    _, parts = _summed(weights, old, value, numerator, denominator)
    state.copy_(torch.cat(parts))
    return average


def _summed(
    weights: Tensor, old: Tensor, value: Tensor, numerator: Tensor, denominator: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """(average, (numerator, denominator, largest exponent)), each [T, width].

    weights: exponents [T, S, width] of S values; old: [T, width], of the sums before.
    """
    largest = torch.maximum(weights.amax(1), old)
    new, kept = (weights - largest[:, None]).exp(), (old - largest).exp()
    above = (new * value).sum(1) + kept * numerator
    below = new.sum(1) + kept * denominator
    return above / below, (above, below, largest)
