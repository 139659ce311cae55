"""Plain functions as tools: the definition from the signature and the docstring, and the call."""

import asyncio
import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from threading import Event
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from llmchat.api.forms import as_json, closed, of_type
from llmchat.errors import UsageError
from llmchat.tools import Output, ToolError

ORIGIN = "this program"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _Argument(Struct, frozen=True):
    """A parameter of a function. read: its value from a JSON text."""

    schema: dict[str, Any]
    read: Callable[[str], Any]
    positional: bool
    required: bool
    default: Any


class FunctionTool:
    """A function that a model can call; see `tools.Tool`.

    loop: where a coroutine runs; by default in an event loop of its own. Raises UsageError for a
    function that no JSON object can call.
    """

    origin = ORIGIN
    read_only = False

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.loop: asyncio.AbstractEventLoop | None = None
        self.name = self.group = _name_of(function)
        text, of_parameters = _described(function)
        self.description = text or self.name.replace("_", " ")
        self._arguments = _arguments_of(self.name, function, of_parameters)
        self.parameters = _parameters(self._arguments)

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        """Call the function. Raises ToolError for arguments that its types refuse."""
        given, named = list[Any](), dict[str, Any]()
        for name, argument in self._arguments.items():
            if name in arguments:
                value = argument.read(as_json(arguments[name]))
            elif argument.positional and not argument.required:
                value = argument.default
            else:
                continue
            if argument.positional:
                given.append(value)
            else:
                named[name] = value
        found = self.function(*given, **named)
        if inspect.iscoroutine(found):
            found = self._awaited(found)
        return found if isinstance(found, Output) else Output(_as_text(found))

    def _awaited(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self.loop is None:
            return asyncio.run(work)
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def _name_of(function: Callable[..., Any]) -> str:
    if not callable(function):
        raise UsageError(
            f"a tool must be a function or a name, not `{type(function).__name__}`",
            "for example tools=[my_function, 'calculator']",
        )
    inner = getattr(function, "func", function)
    name = getattr(function, "__name__", None) or getattr(inner, "__name__", None)
    name = str(name or type(function).__name__)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a model cannot call a function named `{name}`",
            "use a function made with `def`, whose name has ASCII letters, digits and `_`",
        )
    return name


def _described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter."""
    from docstring_parser import ParseError, parse

    text = inspect.getdoc(function) or ""
    try:
        found = parse(text)
    except ParseError:
        return text, {}
    about = "\n\n".join(filter(None, (found.short_description, found.long_description)))
    return about, {one.arg_name: one.description or "" for one in found.params}


def _arguments_of(
    name: str, function: Callable[..., Any], about: Mapping[str, str]
) -> dict[str, _Argument]:
    kinds = _kinds_of(name, function)
    found = {}
    for one in _signature(name, function).parameters.values():
        if one.kind in _SEVERAL:
            raise UsageError(
                f"`{name}` takes any number of arguments (`{one}`)",
                "give the parameters of a tool names",
            )
        found[one.name] = _argument(one, kinds.get(one.name, Any), about.get(one.name, ""))
    return found


def _signature(name: str, function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the parameters of `{name}` cannot be read", "wrap it in a function made with `def`"
        ) from error


def _kinds_of(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters, without annotations that are only for a type checker."""
    target = getattr(function, "func", function)
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as error:
        raise UsageError(
            f"the types of `{name}` cannot be read: {error}",
            "import them where the function is defined, not only for the type checker",
        ) from error


def _argument(one: inspect.Parameter, kind: Any, about: str) -> _Argument:
    kind, written = _without_text(kind)
    schema, read = of_type(kind)
    schema = closed(schema)
    if text := written or about:
        schema["description"] = text
    required = one.default is inspect.Parameter.empty
    if not required and _is_plain(one.default):
        schema["default"] = one.default
    return _Argument(
        schema, read, one.kind is inspect.Parameter.POSITIONAL_ONLY, required, one.default
    )


def _without_text(kind: Any) -> tuple[Any, str]:
    """`Annotated[str, "the city"]`: the type, and what the text says of it."""
    if get_origin(kind) is not Annotated:
        return kind, ""
    base, *more = get_args(kind)
    text = next((one for one in more if isinstance(one, str)), "")
    others = tuple(one for one in more if not isinstance(one, str))
    return (Annotated[(base, *others)] if others else base), text


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _parameters(arguments: Mapping[str, _Argument]) -> dict[str, Any]:
    """The schema of a call: definitions that types share stand at its root."""
    shared: dict[str, Any] = {}
    properties = {}
    for name, argument in arguments.items():
        inner = dict(argument.schema)
        shared |= inner.pop("$defs", {})
        properties[name] = inner
    found: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [name for name, one in arguments.items() if one.required],
        "additionalProperties": False,
    }
    return found | ({"$defs": shared} if shared else {})


def _as_text(value: Any) -> str:
    """What a function returned, for the model. Raises ToolError where it cannot be written."""
    if isinstance(value, str):
        return value
    if value is None:
        return "done"
    try:
        return as_json(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ToolError(f"what the tool returned cannot be written as JSON: {error}") from error
