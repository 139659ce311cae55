"""The tensors that make up one stored weight."""

from collections.abc import Iterator, Sequence

from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation.types import Fact, Facts

HINT = "the file is damaged or incomplete; `llmchat pull` fetches it again"


def modules_with(facts: Facts, ending: str) -> Iterator[str]:
    """The modules that have a tensor `ending`, such as ".qweight"."""
    for name in facts:
        if name.endswith(ending):
            yield name.removesuffix(ending)


def parts_of(
    facts: Facts, module: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, str]:
    """Role → name of a tensor. Raises IntegrityError if one of the needed roles is missing."""
    for role in needed:
        if f"{module}.{role}" not in facts:
            raise IntegrityError(
                f"the quantised weight `{shown(module)}` has no `{role}` in the files", HINT
            )
    return {
        role: f"{module}.{role}" for role in (*needed, *optional) if f"{module}.{role}" in facts
    }


def size_of(facts: Facts, names: Sequence[str]) -> int:
    return sum(facts[name].size for name in names)


def matrix(facts: Facts, name: str, dtypes: Sequence[str]) -> tuple[int, int]:
    """The shape of a matrix. Raises IntegrityError for another shape or type."""
    fact = facts[name]
    if len(fact.shape) != 2 or fact.dtype not in dtypes or not all(fact.shape):
        raise wrong(name, fact, f"a matrix of {' or '.join(dtypes)}")
    return fact.shape[0], fact.shape[1]


def require(facts: Facts, name: str, *shapes: tuple[int, ...]) -> None:
    """Raise IntegrityError unless a tensor has one of these shapes."""
    if facts[name].shape not in shapes:
        raise wrong(name, facts[name], " or ".join(map(sizes, shapes)))


def wrong(name: str, fact: Fact, expected: str) -> IntegrityError:
    return IntegrityError(
        f"the tensor `{shown(name)}` is {sizes(fact.shape)} of {fact.dtype} instead of {expected}",
        HINT,
    )


def sizes(shape: Sequence[int]) -> str:
    """3 x 4"""
    return " x ".join(map(str, shape)) or "a single number"


def blocks(length: int, block: int) -> int:
    """How many blocks a length has; the last may be short."""
    return -(-length // block)


FLOATS = ("F16", "BF16", "F32")
