"""Python types as JSON Schemas, and the instances that a JSON text stands for.

msgspec reads Structs, dataclasses, TypedDicts, enums and all plain types, pydantic its models and
what msgspec does not know.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec import Struct

from llmchat import structure
from llmchat.errors import LlmchatError, UsageError, first_line
from llmchat.structure import Structure
from llmchat.structure.arguments import parse as parse_structure
from llmchat.structure.subschemas import map_schemas

T = TypeVar("T")


class Form(Struct, Generic[T], frozen=True):
    """What an answer must look like. value: what a complete answer stands for."""

    structure: Structure | None
    value: Callable[[str], T]


def form_of(schema: Any) -> Form[Any]:
    """The form that `schema=` asks for; one without a structure for None and `off`.

    A type, a JSON Schema as a mapping, or a text as in `/schema`. Raises UsageError.
    """
    if schema is None:
        return Form(None, _nothing)
    if isinstance(schema, Form):
        return schema
    if isinstance(schema, Structure):
        return Form(schema, json.loads if schema.is_json else str)
    if isinstance(schema, str):
        return _of_text(schema)
    if isinstance(schema, Mapping):
        return Form(structure.from_schema(schema), json.loads)
    described, value = of_type(schema)
    return Form(structure.from_schema(closed(described)), value)


def _of_text(text: str) -> Form[Any]:
    found = parse_structure(text)
    return form_of(found) if found else Form(None, _nothing)


def _nothing(text: str) -> None:
    return None


def of_type(kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
    """The JSON Schema of a type, and what reads its values. Raises UsageError for a type of which
    neither msgspec nor pydantic knows the values."""
    if not _is_for_pydantic(kind):
        try:
            return msgspec.json.schema(kind), _reader_of_msgspec(kind)
        except (TypeError, ValueError, RecursionError):
            pass
    return _of_pydantic(kind)


def _is_for_pydantic(kind: Any) -> bool:
    """Whether a type is a model of pydantic, or carries its constraints."""
    if hasattr(kind, "model_json_schema"):
        return True
    if get_origin(kind) is not Annotated:
        return False
    return any(not isinstance(one, msgspec.Meta) for one in get_args(kind)[1:])


def _reader_of_msgspec(kind: Any) -> Callable[[str], Any]:
    decoder = msgspec.json.Decoder(kind)

    def read(text: str) -> Any:
        try:
            return decoder.decode(text)
        except msgspec.MsgspecError as error:
            raise _unfit(kind, error) from error

    return read


def _of_pydantic(kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        described = adapter.json_schema()
    except (PydanticUserError, TypeError, NameError) as error:
        raise UsageError(
            f"`{_name(kind)}` has no JSON Schema: {first_line(error)}",
            "use a pydantic model, a msgspec Struct, a dataclass or a plain type",
        ) from error

    def read(text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            place = ".".join(map(str, found["loc"]))
            raise _unfit(kind, f"{place}: {found['msg']}" if place else found["msg"]) from error

    return described, read


def _unfit(kind: Any, why: object) -> LlmchatError:
    return LlmchatError(f"the value is not a valid `{_name(kind)}`: {why}")


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def closed(schema: Any) -> Any:
    """A schema whose objects have no other properties than those it names, unless it says so, and
    without the titles that pydantic makes of names."""
    return map_schemas(schema, _closed)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in schema.items() if key != "title"}
    if "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def read_value(form: Form[T], text: str) -> T:
    """What a complete answer stands for. Raises LlmchatError where its type refuses it."""
    try:
        return form.value(text)
    except json.JSONDecodeError as error:
        raise LlmchatError(f"the answer is not JSON: {error.msg}") from error


def as_json(value: Any) -> str:
    """A value as JSON text, for a model to read; what JSON has no form for is written as text."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return cast(Any, value).model_dump(mode="json")
    return str(value)
