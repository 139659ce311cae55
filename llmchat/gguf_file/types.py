"""The tensor types of ggml: how many bytes a block of values takes (ggml-common.h)."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class GgmlType(NamedTuple):
    """A tensor type. block: values that are stored together; bytes: of a block."""

    name: str
    block: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits a value, scales included."""
        return self.bytes * 8 / self.block


# By the number in the file. Numbers that are missing were types of old llama.cpp releases.
GGML_TYPES = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 40),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66),
    39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36),
    41: GgmlType("Q1_0", 128, 18),
}
_BY_NAME = {kind.name: kind for kind in GGML_TYPES.values()}
# What takes the place of a type in rows that are not whole blocks of 256.
OF_32 = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}  # fmt: skip
_WIDE = 256
# Letters of a recipe that name its type: `Q4_K` of `Q4_K_M`, `IQ3_` of `IQ3_M`.
_SIGNIFICANT = 4
# The recipes of llama.cpp's quantize tool, by the number in `general.file_type`.
_FILE_KINDS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
}  # fmt: skip


def type_named(name: str) -> GgmlType:
    return _BY_NAME[name]


def file_type_of(kind: str) -> int:
    """The number of a recipe in `general.file_type`."""
    return next(number for number, name in _FILE_KINDS.items() if name == kind)


def file_kind(facts: Mapping[str, Any], kinds: Mapping[str, int], meant: Iterable[str]) -> str:
    """The quantisation of a whole file: its recipe (`Q4_K_M`), else the type of most bytes.

    kinds: bytes of each tensor type in the file. meant: `meant_types` of all tensors.
    """
    number = facts.get("general.file_type")
    named = _FILE_KINDS.get(number) if type(number) is int else None
    # A file that was quantised again can keep the recipe of its source.
    if named and any(name[:_SIGNIFICANT] == named[:_SIGNIFICANT] for name in meant):
        return named
    return max(kinds, key=lambda name: kinds[name], default="F32")


def meant_types(kind: str, width: int) -> list[str]:
    """The types that a recipe can have meant for rows of `width` numbers that have a type."""
    others = [wide for wide, narrow in OF_32.items() if narrow == kind and width % _WIDE]
    return [kind, *others]
