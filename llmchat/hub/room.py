"""Where a model would run, what it takes there, and what would fit instead."""

from collections.abc import Iterable

from msgspec import Struct

from llmchat import memory_estimate
from llmchat.hub.headers import Shapes
from llmchat.hub.inspection import Inspection
from llmchat.hub.machine import Machine
from llmchat.hub.weights import Quantised, kind_in_words
from llmchat.output.formatting import byte_count
from llmchat.presets.types import Preset
from llmchat.settings.types import KvKind

KINDS = ("int4", "int8", "bf16")
RAM = "this machine's memory"
# A chat needs at least so many tokens of context.
SHORTEST = 1024
_UNKNOWN_CONTEXT = 2048


class Room(Struct, frozen=True):
    """A base and the memory where it would run."""

    shapes: Shapes
    numbers: Quantised
    parameters: float
    config: dict[str, object]
    kind: str
    kv_kind: KvKind
    context: int
    place: str
    free: int

    @classmethod
    def of(
        cls, preset: Preset, base: Inspection, shapes: Shapes, machine: Machine, device: str
    ) -> "Room":
        count = (
            memory_estimate.parameters(shapes) or preset.parameters or _parameters_of_files(base)
        )
        context = (
            preset.context.tokens or memory_estimate.own_context(base.config) or _UNKNOWN_CONTEXT
        )
        rooms = []
        if machine.gpus and device != "cpu":
            rooms.append(
                (
                    " + ".join(name for name, _ in machine.gpus),
                    sum(free for _, free in machine.gpus),
                )
            )
        if not device.startswith("cuda"):
            rooms.append((RAM, machine.ram))
        choices = [
            cls(
                shapes,
                base.quantised,
                count,
                base.config,
                preset.weights,
                preset.kv,
                context,
                *room,
            )
            for room in rooms or [("no GPU", 0)]
        ]
        return next((choice for choice in choices if not choice.refused), choices[0])

    def kv(self, tokens: int) -> int:
        return memory_estimate.kv_bytes(self.config, tokens, self.kv_kind)

    def total(self, kind: str, tokens: int | None = None) -> int:
        weights = (
            memory_estimate.weights(self.shapes, kind, self.config, self._own)
            if self.shapes
            else memory_estimate.weights_of_count(self.parameters, kind, self.config)
        )
        return (
            weights + memory_estimate.OVERHEAD + self.kv(self.context if tokens is None else tokens)
        )

    @property
    def _own(self) -> dict[str, int]:
        """The weights that run with the numbers of their files: the CPU's step can use them."""
        return self.numbers.stored if self.place == RAM else {}

    @property
    def quantised(self) -> str:
        """The kind of those weights."""
        return self.numbers.kind if self._own else ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of weights to choose from."""
        kinds = tuple(kind for kind in KINDS if kind != "int4" or not self._own)
        return tuple(dict.fromkeys((*kinds, self.kind)))

    @property
    def refused(self) -> bool:
        return (
            bool(self.parameters) and self.total(self.kind, min(self.context, SHORTEST)) > self.free
        )

    @property
    def crowded(self) -> bool:
        return bool(self.parameters) and self.total(self.kind) > self.free

    @property
    def fitting(self) -> int:
        room = self.free - self.total(self.kind, 0)
        return memory_estimate.longest_context(self.config, room, self.kv_kind)

    @property
    def refusal(self) -> str:
        needed, free = byte_count(self.total(self.kind)), byte_count(self.free)
        kind = kind_in_words(self.kind, self.quantised)
        return f"it needs {needed} as {kind}; {free} are free in {self.place}"

    def alternatives(self, preset: Preset, others: Iterable[Preset]) -> list[str]:
        """What would fit: other weights, if need be with less context; a smaller preset."""
        found = []
        for kind in reversed(self.kinds):
            short = min(self.context, SHORTEST)
            if kind != self.kind and self.total(kind, short) <= self.free:
                found.append(self._with_weights(kind, short))
        family = [
            other
            for other in others
            if _family(other) == _family(preset) and 0 < other.parameters < self.parameters
        ]
        for other in sorted(family, key=lambda other: -other.parameters):
            count = (
                memory_estimate.weights_of_count(other.parameters, other.weights)
                + memory_estimate.OVERHEAD
            )
            if count <= self.free:
                found.append(f"{other.name} ({byte_count(count)})")
                break
        return found or ["no kind of weights makes it fit here; choose a smaller model"]

    def _with_weights(self, kind: str, short: int) -> str:
        """The options that make the model fit with another kind of weights, and its size."""
        if self.total(kind) <= self.free:
            return f"--weights {kind} ({byte_count(self.total(kind))})"
        room = self.free - self.total(kind, 0)
        context = max(short, memory_estimate.longest_context(self.config, room, self.kv_kind))
        return f"--weights {kind} --context {context} ({byte_count(self.total(kind, short))})"


def _parameters_of_files(base: Inspection) -> float:
    """The number of parameters, from the size of the weights and the type in the config."""
    if base.form not in ("pickle", "safetensors"):
        return 0
    dtype = base.config.get("dtype") or base.config.get("torch_dtype")
    return base.weights / (4 if dtype == "float32" else 2)


def _family(preset: Preset) -> tuple[str, str]:
    return preset.name.rpartition("-")[0] or preset.name, preset.format.name
