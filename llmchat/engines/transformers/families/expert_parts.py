"""Parts of plans with mixtures of experts: experts that a checkpoint keeps one by one or stacked.

Plans name every linear of every expert, as checkpoints that keep them one by one do; for stacked
ones `stacked` says where each lies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmchat.engines.transformers.families.blocks import Experts, Linear, Mlp
from llmchat.engines.transformers.families.config_values import Config, size
from llmchat.engines.transformers.families.parts import gated_mlp
from llmchat.engines.transformers.families.views import Flat, Joined, View
from llmchat.errors import Mismatch

# The name of a tensor and where it can lie; a name may have several places.
Views = list[tuple[str, View | Joined | Flat]]
Names = Sequence[str]

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def separate(
    config: Config,
    prefix: str,
    count: int,
    inner: int,
    names: Names = PROJECTIONS,
    **options: Any,
) -> tuple[Mlp, ...]:
    """`count` gated MLPs behind `prefix`NUMBER. options: fields of Mlp."""
    return tuple(
        gated_mlp(config, f"{prefix}{number}.", inner, names, **options) for number in range(count)
    )


def routed(
    config: Config, router: str, experts: tuple[Mlp, ...], top: int, **options: Any
) -> Experts:
    """router: its name. options: fields of Experts. Raises Mismatch for an impossible choice."""
    hidden, count = size(config, "hidden_size"), len(experts)
    groups, top_groups = options.get("groups", 1), options.get("top_groups", 1)
    if count % groups or top_groups > groups or top > count // groups * top_groups:
        raise Mismatch(
            f"config.json: cannot choose {top} of {count} experts in {top_groups} of"
            f" {groups} groups"
        )
    return Experts(Linear(router, count, hidden), experts, top, **options)


@dataclass(frozen=True)
class Stack:
    """How a checkpoint stacks experts: a tensor [experts, rows, in] of gate and up, and one of
    down, behind a prefix.

    gate_up_bias, down_bias: tensors [experts, rows]. is_transposed: they are [experts, in, rows].
    interleaved: rows of gate and up alternate, instead of all of gate before those of up.
    """

    gate_up: str
    down: str
    gate_up_bias: str | None = None
    down_bias: str | None = None
    is_transposed: bool = False
    interleaved: bool = False

    def views(
        self, prefix: str, expert: str, count: int, inner: int, names: Names = PROJECTIONS
    ) -> Iterator[tuple[str, View]]:
        """The linears `expert`NUMBER.`names` in the tensors behind `prefix`, each by its name."""
        gate, up, down = names
        for number in range(count):
            first = f"{expert}{number}."
            for name, rows in ((gate, self._rows(0, inner)), (up, self._rows(1, inner))):
                yield f"{first}{name}.weight", self._matrix(f"{prefix}{self.gate_up}", number, rows)
                if self.gate_up_bias:
                    source = f"{prefix}{self.gate_up_bias}"
                    yield f"{first}{name}.bias", View(source, number, False, *rows)
            yield (
                f"{first}{down}.weight",
                self._matrix(f"{prefix}{self.down}", number, (0, None, 1)),
            )
            if self.down_bias:
                yield f"{first}{down}.bias", View(f"{prefix}{self.down_bias}", number)

    def _rows(self, half: int, inner: int) -> tuple[int, int | None, int]:
        """start, stop and step."""
        return (half, None, 2) if self.interleaved else (half * inner, (half + 1) * inner, 1)

    def _matrix(self, source: str, number: int, rows: tuple[int, int | None, int]) -> View:
        return View(source, number, self.is_transposed, *rows)


# How transformers keeps experts in memory, and what peft's merging of a whole model returns.
STACKED = Stack("gate_up_proj", "down_proj")
