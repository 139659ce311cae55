"""How the weights of a checkpoint are spread over kinds of numbers."""

from collections.abc import Iterable
from math import prod

from msgspec import Struct

from llmchat.quantisation.types import Fact, Facts, StoredWeight

_PLAIN = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "FP8 E4M3", "F8_E5M2": "FP8 E5M2", "I8": "int8",
}  # fmt: skip


class WeightKind(Struct, frozen=True):
    """The tensors of one kind in a checkpoint."""

    kind: str
    """Kind of numbers, such as `Q4_K`, `GPTQ 4-bit` or `bfloat16`."""
    tensors: int
    """Number of tensors."""
    weights: int
    """Number of weights in them."""
    size: int
    """Bytes, with scales and zero points."""

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.size / max(1, self.weights)


def kinds_of(facts: Facts, stored: dict[str, StoredWeight]) -> tuple[WeightKind, ...]:
    """The kinds of a safetensors checkpoint, the most weights first."""
    parts = {part for weight in stored.values() for part in weight.parts.values()}
    rows = [(weight.kind, prod(weight.shape), weight.size) for weight in stored.values()]
    rows += [row_of(fact) for name, fact in facts.items() if name not in parts]
    return counted(rows)


def row_of(fact: Fact) -> tuple[str, int, int]:
    """Kind, weights and bytes of a tensor that is not quantised."""
    return _PLAIN.get(fact.dtype, fact.dtype), prod(fact.shape), fact.size


def counted(rows: Iterable[tuple[str, int, int]]) -> tuple[WeightKind, ...]:
    """Kind, weights and bytes of each tensor → the kinds, the most weights first."""
    found: dict[str, tuple[int, int, int]] = {}
    for kind, weights, size in rows:
        tensors, sum_of_weights, sum_of_sizes = found.get(kind, (0, 0, 0))
        found[kind] = tensors + 1, sum_of_weights + weights, sum_of_sizes + size
    return tuple(
        WeightKind(kind, *row) for kind, row in sorted(found.items(), key=lambda item: -item[1][1])
    )


def bits_of(kinds: Iterable[WeightKind]) -> float:
    """Bits a weight of a whole checkpoint; 0 without one."""
    kinds = tuple(kinds)
    weights = sum(kind.weights for kind in kinds)
    return 8 * sum(kind.size for kind in kinds) / weights if weights else 0.0


def name_of(kinds: Iterable[WeightKind], stored: Iterable[str]) -> str:
    """The kind of most quantised weights; "" for a checkpoint in 16 bits."""
    quantised = set(stored)
    return next((kind.kind for kind in kinds if kind.kind in quantised), "")
