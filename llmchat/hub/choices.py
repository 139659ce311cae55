"""The variants of a GGUF repo beside the memory of this machine."""

from msgspec import Struct
from msgspec.structs import replace

from llmchat.hub.gguf_repo import Variant, propose
from llmchat.hub.inspection import Inspection
from llmchat.hub.machine import Machine
from llmchat.hub.room import SHORTEST, Room
from llmchat.memory_estimate import OVERHEAD
from llmchat.output.formatting import byte_count
from llmchat.presets.types import Preset


class Choice(Struct, frozen=True):
    """A variant of a GGUF repo."""

    name: str
    """What follows the repo and a colon."""
    files: int
    """Number of files."""
    size: int
    """Bytes of its files."""
    memory: int
    """Bytes of the loaded model with a short context."""
    fits: bool
    """Whether it fits this machine's memory."""
    chosen: bool
    """Whether the plan is for it."""


def choices_in(room: Room, base: Inspection) -> tuple[Choice, ...]:
    """Every variant of a repo, the smallest first."""
    return tuple(
        Choice(
            variant.name,
            len(variant.files),
            variant.size,
            _memory(room, variant),
            _memory(room, variant) <= room.free,
            variant.name == base.source.variant,
        )
        for variant in base.choices
    )


def propose_variant(
    preset: Preset, base: Inspection, machine: Machine, device: str
) -> Variant | None:
    """The variant of a repo to pull where none was named: the best that fits; None if none does."""
    return _best(Room.of(preset, base, base.shapes, machine, device), base)


def smaller_variant(room: Room, base: Inspection) -> list[str]:
    """The variant that would fit instead, and its memory; [] without one."""
    best = _best(room, base)
    if best is None:
        return []
    name = replace(base.source, variant=best.name).name
    return [f"{name} ({byte_count(_memory(room, best))})"]


def _best(room: Room, base: Inspection) -> Variant | None:
    return propose(
        base.choices, room.parameters, lambda variant: _memory(room, variant) <= room.free
    )


def _memory(room: Room, variant: Variant) -> int:
    """Bytes of the loaded model: a GGUF file keeps its numbers."""
    return variant.size + OVERHEAD + room.kv(min(room.context, SHORTEST))
