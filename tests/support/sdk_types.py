"""Requests made from the types of the SDKs: each field that they declare, with each kind of value
that it can have."""

import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import typing_extensions
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from llmchat.server.errors import Refusal
from llmchat.server.request_bodies import decode_body

_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired)
_WRAPPERS += (typing_extensions.Required, typing_extensions.NotRequired)
_SIMPLE: dict[Any, tuple[Any, ...]] = {
    types.NoneType: (None,), str: ("x",), bool: (True, False), int: (1,), float: (0.5,),
    object: ({"a": 1},),
}  # fmt: skip
# More literals than these are names of models, of which one is enough.
_MOST_LITERALS = 12


def fields_of(declared: Any) -> dict[str, Any]:
    """The types of a TypedDict's fields, by name."""
    return typing_extensions.get_type_hints(declared, include_extras=True)


def values_of(declared: Any) -> Iterator[Any]:
    """JSON values of a type: of a TypedDict one with its required fields, then one for each value
    of each field."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in _WRAPPERS:
        yield from values_of(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from values_of(one)
    elif origin is typing.Literal:
        yield from arguments[: 1 if len(arguments) > _MOST_LITERALS else None]
    elif typing_extensions.is_typeddict(declared):
        yield from _values_of_fields(declared)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from ({}, {"a": "x"})
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        yield from ([item] for item in values_of(arguments[0]))
    else:
        # Files and other objects of Python have no form in JSON.
        yield from _SIMPLE.get(declared, ())


def _values_of_fields(declared: Any) -> Iterator[dict[str, Any]]:
    fields = fields_of(declared)
    required = {
        name: next(values_of(kind))
        for name, kind in fields.items()
        if typing.get_origin(kind) in (typing.Required, typing_extensions.Required)
    }
    yield dict(required)
    for name, kind in fields.items():
        for value in values_of(kind):
            if name not in required or value != required[name]:
                yield {**required, name: value}


def refusals(
    bodies: Iterable[Mapping[str, Any]], kind: type[BaseModel], check: Callable[[Any], object]
) -> set[str]:
    """What is refused in these bodies: the path of each field, with its value if that is a text, or
    with the type of its value.

    The numbers of messages become their roles; other numbers and dates are left out. check: what
    the server does with a body of this kind.
    """
    found = set()
    for body in bodies:
        try:
            check(decode_body(json.dumps(body).encode(), kind))
        except RequestValidationError as error:
            found.add(_described(body, error.errors()[0]["loc"][1:]))
        except Refusal as error:
            assert error.param, (body, error)
            found.add(_described(body, error.param.split(".")))
    return found


def _described(body: Any, path: Iterable[int | str]) -> str:
    value, names = body, []
    for step in map(str, path):
        if isinstance(value, list) and step.isdigit():
            value = value[int(step)]
            names = [value["role"]] if names == ["messages"] else names
        elif isinstance(value, dict) and step != value.get("type") and step.islower():
            # Other steps are types of items, and pydantic's names of types.
            value, names = value.get(step), [*names, step]
    if isinstance(value, dict) and "type" in value:
        value, names = value["type"], [*names, "type"]
    text = re.sub(r"(_\d{4}_?\d\d_?\d\d)$", "", value) if isinstance(value, str) else ""
    return ".".join(names) + (f" = {text}" if text else "")
