"""The types of settings with their valid ranges, and the wording of those ranges.

Flags, variables, config keys, presets and `/set` share them.
"""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from llmchat import plugins
from llmchat.errors import UsageError, any_of

Weights = Literal["int8", "int4", "nf4", "bf16", "fp32"]
KvKind = Literal["full", "int8"]
Policy = Literal["drop-oldest", "last-n", "summary", "refuse"]
MemoryUse = Literal["off", "on", "propose"]
Think = Literal["off", "on", "low", "medium", "high"]
PlotKind = Literal["auto", "text", "none"]
ENGINES = ("transformers", "gguf", "openai", "scripted")
# Plugins add names of the kind that `extra` names.
EngineName = Annotated[str, Meta(examples=list(ENGINES), extra={"plugins": "engine"})]
LowWater = Annotated[float, Meta(gt=0, le=1)]
# 0 means off, no limit, or the model's own value.
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Turns = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Rounds = Annotated[int, Meta(ge=1, le=1000)]
# Several values; one text lists them with commas.
Names = tuple[str, ...]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]

_LONGEST_ECHO = 40
# Limits from here on belong to the representation, so messages do not mention them.
_LARGE = 2**31 - 1


def check(value: Any, kind: Any, name: str) -> Any:
    """The value as `kind`; text is converted, lists and tables from JSON.

    Raises UsageError that names the valid values.
    """
    if base_type(kind) == Names:
        value = _split(value)
    try:
        plain = value
        if isinstance(value, str) and get_origin(base_type(kind)) in (tuple, dict):
            plain = msgspec.json.decode(value)
        converted = msgspec.convert(plain, kind, strict=False, str_keys=True)
        if base_type(kind) is str and choices(kind) and converted not in (None, *choices(kind)):
            raise msgspec.ValidationError("not one of the names")
        return converted
    except msgspec.MsgspecError as error:
        raise UsageError(f"{name} must be {in_words(kind)}, not `{_echo(value)}`") from error


def _split(value: Any) -> Any:
    """The names in a text, or in each text of a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def in_words(kind: Any) -> str:
    """The valid values of a type: `int8, int4, bf16 or fp32`, `a number from 0 to 5`."""
    base = base_type(kind)
    if names := choices(kind):
        return any_of(names)
    if base is bool:
        return "true or false"
    if base == Names:
        return "names with commas between them"
    if get_origin(base) is tuple:
        return "a JSON list of texts"
    if get_origin(base) is dict:
        return f"a JSON object of token ids and numbers {_span(limits(get_args(base)[1]))}"
    if base not in (int, float):
        return "text"
    noun = "a whole number" if base is int else "a number"
    return f"{noun} {_span(limits(kind))}".rstrip()


def choices(kind: Any) -> tuple[str, ...]:
    """The values of an enumeration, and those that plugins add; none for numbers and text."""
    base = base_type(kind)
    if get_origin(base) is Literal:
        return tuple(map(str, get_args(base)))
    open_ended = next((one for one in _metas(kind) if one.extra), None)
    if open_ended is None:
        return ()
    own, extra = tuple(open_ended.examples or ()), open_ended.extra or {}
    return (*own, *(name for name in plugins.names(extra["plugins"]) if name not in own))


def title(kind: Any) -> str:
    """The short word for a setting, as its type's Meta.title has it."""
    return next(filter(None, (meta.title for meta in _metas(kind))), "")


def description(kind: Any) -> str:
    """The help text of a setting, as its type's Meta.description has it."""
    return next(filter(None, (meta.description for meta in _metas(kind))), "")


def limits(kind: Any) -> Meta | None:
    """The range of a number, None where it has no limits."""
    return next(iter(_metas(kind)), None)


def base_type(kind: Any) -> Any:
    """`float` for `Annotated[float, …] | None`."""
    required = _without_none(kind)
    return get_args(required)[0] if get_origin(required) is Annotated else required


def _metas(kind: Any) -> list[Meta]:
    return [one for one in get_args(_without_none(kind)) if isinstance(one, Meta)]


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return next(one for one in get_args(kind) if one is not NoneType)
    return kind


def _span(span: Meta | None) -> str:
    if span is None:
        return ""
    high = span.le if span.le is not None and span.le < _LARGE else None
    if span.gt is not None:
        return f"above {span.gt:g}" + (f", up to {high:g}" if high is not None else "")
    if span.ge is None:
        return ""
    return f"from {span.ge:g} to {high:g}" if high is not None else f"of {span.ge:g} or more"


def _echo(value: Any) -> str:
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= _LONGEST_ECHO else f"{text[: _LONGEST_ECHO - 1]}…"
