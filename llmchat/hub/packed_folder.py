"""What a folder of `llmchat convert --to int4` says about its weights, without reading one."""

import re
from math import prod
from pathlib import Path

from llmchat.engines.checkpoint_files import PACKED_DATA, PACKED_TABLE, read_json
from llmchat.hub.headers import Shapes, facts_of_folder
from llmchat.hub.weights import Quantised
from llmchat.parse_guard import reading
from llmchat.quantisation.kinds import counted, name_of, row_of

_BITS = re.compile(r"w(\d)_")
# Tensors beside int8 rows.
_BESIDE = (".SCB", ".weight_format")


def weights_of_packed(folder: Path) -> tuple[Shapes, Quantised] | None:
    """The tensors of a converted folder; None for any other."""
    table = read_json(folder / PACKED_TABLE)
    if not table:
        return None
    facts = {name: fact for name, fact in facts_of_folder(folder).items() if "." in name}
    with reading(folder / PACKED_TABLE):
        sizes = _sizes(table, (folder / PACKED_DATA).stat().st_size)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in table.items()}
        kinds = {name: f"int{_bits(entry['kind'])}" for name, entry in table.items()}
    rows = [(kinds[name], prod(shapes[name]), sizes[name]) for name in table]
    plain = {name: fact for name, fact in facts.items() if not name.endswith(_BESIDE)}
    rows += map(row_of, plain.values())
    found = counted(rows)
    named = Quantised(name_of(found, kinds.values()), sizes, found)
    return shapes | {name: fact.shape for name, fact in plain.items()}, named


def _bits(kind: str) -> int:
    match = _BITS.match(kind)
    if match is None:
        raise ValueError(f"`{kind}` is not a layout of weights")
    return int(match[1])


def _sizes(table: dict[str, dict[str, int]], end: int) -> dict[str, int]:
    """Bytes of each weight, up to where the next one begins."""
    starts = sorted(
        {entry[key] for entry in table.values() for key in ("at", "order") if key in entry}
    )
    ends = dict(zip(starts, [*starts[1:], end], strict=True))
    return {name: ends[entry["at"]] - entry["at"] for name, entry in table.items()}
