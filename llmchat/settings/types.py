"""What each setting may be: types with their ranges, the same for flags, variables, config keys, presets and `/set`, and in words."""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from llmchat.errors import UsageError, any_of

Weights = Literal["int8", "int4", "bf16", "fp32"]
Policy = Literal["drop-oldest", "last-n", "summary", "refuse"]
EngineName = Literal["transformers", "gguf", "openai", "scripted"]
Temperature = Annotated[float, Meta(ge=0, le=5)]
TopP = Annotated[float, Meta(gt=0, le=1)]
MinP = Annotated[float, Meta(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
LowWater = Annotated[float, Meta(gt=0, le=1)]
# 0 stands for off, for no limit, or for the model's own.
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Turns = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]

_LONGEST_ECHO = 40
# A limit from here on is one of the representation, not of the setting.
_LARGE = 2**31 - 1


def check(value: Any, kind: Any, name: str) -> Any:
    """The value as `kind` holds it; text is read as what the setting holds.

    Raises UsageError that names what is allowed.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name} must be {in_words(kind)}, not `{_echo(value)}`") from error


def in_words(kind: Any) -> str:
    """What a type allows: `int8, int4, bf16 or fp32`, `a number from 0 to 5`."""
    kind, limits = _plain(kind)
    if get_origin(kind) is Literal:
        return any_of(map(str, get_args(kind)))
    if kind is bool:
        return "true or false"
    if kind not in (int, float):
        return "text"
    noun = "a whole number" if kind is int else "a number"
    return f"{noun} {span}".rstrip() if (span := _span(limits)) else noun


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a setting that has a few; none for numbers and text."""
    kind, _ = _plain(kind)
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _plain(kind: Any) -> tuple[Any, Meta | None]:
    """A type without its None and its limits, and the limits."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Annotated:
        return get_args(kind)[0], get_args(kind)[1]
    return kind, None


def _span(limits: Meta | None) -> str:
    if limits is None:
        return ""
    high = limits.le if limits.le is not None and limits.le < _LARGE else None
    if limits.gt is not None:
        return f"above {limits.gt:g}" + (f", up to {high:g}" if high is not None else "")
    if limits.ge is None:
        return ""
    return f"from {limits.ge:g} to {high:g}" if high is not None else f"of {limits.ge:g} or more"


def _echo(value: Any) -> str:
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= _LONGEST_ECHO else f"{text[: _LONGEST_ECHO - 1]}…"
