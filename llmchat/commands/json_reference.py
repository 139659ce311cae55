"""The type that each command prints with --json, and the meaning of its fields.

For docs/json.md and the tests alone: it imports every room, and no command imports it.
"""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct, UnsetType
from msgspec.structs import FieldInfo

from llmchat.bench.report import Benchmark
from llmchat.commands.outputs import (
    Answer,
    ClientSettings,
    IndexFacts,
    IndexHit,
    IndexRow,
    ListedClient,
    ListedFormat,
    ListedKey,
    ListedPlugin,
    ListedPreset,
    ListedRole,
    LoadedModel,
    OptionOrigin,
)
from llmchat.evaluate.compare import ComparisonJson
from llmchat.evaluate.replay import Replay
from llmchat.evaluate.report import Evaluation
from llmchat.finetune.data.cleaner import Report as DataReport
from llmchat.finetune.types import Outcome
from llmchat.history import Hit, Session, SessionMessages
from llmchat.hub import Plan
from llmchat.memory.facts import Fact
from llmchat.models.doctor import Report as DoctorReport
from llmchat.models.elsewhere import ElsewhereModel
from llmchat.models.facts import ModelFacts
from llmchat.models.library import ListedModel
from llmchat.presets.check import Mistake
from llmchat.roles import Role
from llmchat.settings import Options
from llmchat.settings.types import description

# Command line without --json → type.
OUTPUTS: dict[str, Any] = {
    "chat": Answer,
    "pull": Plan,
    "ls": list[ListedModel],
    "ls --elsewhere": list[ElsewhereModel],
    "show": ModelFacts,
    "presets": list[ListedPreset],
    "presets --formats": list[ListedFormat],
    "presets check": list[Mistake],
    "doctor": DoctorReport,
    "roles list": list[ListedRole],
    "roles show": Role,
    "sessions list": list[Session],
    "sessions search": list[Hit],
    "sessions show": SessionMessages,
    "sessions replay": Replay,
    "memory list": list[Fact],
    "evaluate": Evaluation,
    "compare": ComparisonJson,
    "bench": Benchmark,
    "finetune": Outcome,
    "data inspect": DataReport,
    "data clean": DataReport,
    "serve keys list": list[ListedKey],
    "ps": list[LoadedModel],
    "connect": list[ListedClient],
    "connect CLIENT": ClientSettings,
    "index list": list[IndexRow],
    "index show": IndexFacts,
    "index search": list[IndexHit],
    "plugins": list[ListedPlugin],
    "config show": Options,
    "config show --origin": list[OptionOrigin],
}


# Printed in full, although the struct leaves out what has its default.
_WHOLE = (Options,)


class Field(Struct):
    """A field of an output. path: `window.ledger[].role`; kind: its type in JSON, in words.

    optional: the field is absent where it has its default.
    """

    path: str
    kind: str
    optional: bool
    about: str


def fields_of(kind: Any) -> list[Field]:
    """The fields of an output, each followed by those of the objects in it."""
    return list(_fields(kind, ""))


def _fields(kind: Any, prefix: str) -> Iterator[Field]:
    inner, suffix = _element(kind)
    if not _is_struct(inner):
        return
    about = _descriptions(inner)
    for field in msgspec.structs.fields(inner):
        path = f"{prefix}{suffix if prefix else ''}{'.' if prefix else ''}{field.encode_name}"
        yield Field(
            path, _in_words(field.type), _is_optional(inner, field), about.get(field.name, "")
        )
        yield from _fields(field.type, path)


def _is_optional(kind: type[Struct], field: FieldInfo) -> bool:
    if UnsetType in get_args(field.type):
        return True
    omits = kind.__struct_config__.omit_defaults and kind not in _WHOLE
    return omits and not field.required


def _element(kind: Any) -> tuple[Any, str]:
    """The type of the objects in a field, and `[]` where there is a list of them."""
    kind = next((one for one in _alternatives(kind) if one is not NoneType), kind)
    if get_origin(kind) in (list, tuple):
        return _element(get_args(kind)[0])[0], "[]"
    return kind, ""


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union without Annotated and UnsetType; a type that is none alone."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) not in (Union, UnionType):
        return (kind,)
    found = [one for member in get_args(kind) for one in _alternatives(member)]
    return tuple(one for one in found if one is not UnsetType)


def _in_words(kind: Any) -> str:
    """A type as a reader of JSON names it: `integer or null`, `list of strings`."""
    return " or ".join(dict.fromkeys(map(_name, _alternatives(kind))))


def _name(kind: Any) -> str:
    if _is_struct(kind) or get_origin(kind) is dict or kind is dict:
        return "object"
    if get_origin(kind) is Literal:
        return "string"
    if get_origin(kind) in (list, tuple):
        return _list_in_words(get_origin(kind), get_args(kind))
    return _NAMES[kind]


def _list_in_words(origin: Any, members: tuple[Any, ...]) -> str:
    """`[string, integer]` for a tuple of fixed length, `list of strings` for any other list."""
    if origin is tuple and Ellipsis not in members:
        return f"[{', '.join(map(_in_words, members))}]"
    each = _in_words(members[0])
    return f"list of {each if each[-1] == ']' else f'{each}s'}"


_NAMES: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", Any: "any",
}  # fmt: skip


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _descriptions(kind: type) -> dict[str, str]:
    """Field → its Meta.description, or the docstring below it in the source."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if one is Struct or not _is_struct(one):
            continue
        found |= _texts_below(one)
    for field in msgspec.structs.fields(kind):
        if text := description(field.type):
            found[field.name] = text
    return found


def _texts_below(kind: type) -> dict[str, str]:
    """The string literals below the fields of a class, as editors and Sphinx read them."""
    try:
        source = inspect.getsource(kind)
    except OSError:  # made by defstruct
        return {}
    (node,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, text in itertools.pairwise(node.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(about))):
                found[name] = " ".join(about.split())
    return found
