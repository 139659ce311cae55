"""What a request says about the form of its answer: tools to call, and structures."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat import structure
from llmchat.calls import ToolRequest
from llmchat.engines import Engine, Sampling, guide
from llmchat.engines.capabilities import FollowsGrammars, unwrap
from llmchat.errors import UsageError
from llmchat.server.api import ChatRequest, Generation, NamedTool, ResponseFormat, StructuredOutputs
from llmchat.server.errors import BadRequest, Unsupported
from llmchat.structure import Structure
from llmchat.tool_syntax import schemas


class AnswerForm(Struct, frozen=True):
    """tools: what the answer may call. structure: the form of an answer that makes no call."""

    tools: ToolRequest | None
    structure: Structure | None


def form_of(request: Generation) -> AnswerForm:
    """The form of the answer, checked. Raises BadRequest. Slow for a large schema."""
    tools = _tools_of(request) if isinstance(request, ChatRequest) else None
    return AnswerForm(tools, _structure_of(request))


def _structure_of(request: Generation) -> Structure | None:
    """The form of the answer, if it has one. Raises BadRequest for one that cannot be enforced,
    naming the keyword."""
    response_format = request.response_format if isinstance(request, ChatRequest) else None
    with _blamed_on("response_format"):
        formatted = _of_response_format(response_format) if response_format else None
        _check(formatted)
    with _blamed_on("structured_outputs"):
        outputs = request.structured_outputs
        structured = _of_structured_outputs(outputs) if outputs else None
        _check(structured)
    if formatted and structured:
        message = "`response_format` and `structured_outputs` cannot be used together"
        raise BadRequest(message, param="structured_outputs")
    return formatted or structured


def _tools_of(request: ChatRequest) -> ToolRequest | None:
    """The tools that the request offers. Raises BadRequest for a choice that names none of them,
    and for a schema that cannot be enforced."""
    choice = request.tool_choice or "auto"
    if not request.tools:
        if choice not in ("auto", "none"):
            raise BadRequest("`tool_choice` requires `tools`", param="tool_choice")
        return None
    tools = tuple(
        tool.model_dump(exclude_none=True, exclude={"function": {"strict"}})
        for tool in request.tools
    )
    name = choice.function.name if isinstance(choice, NamedTool) else ""
    several = request.parallel_tool_calls
    # A named function is called once by default: small models repeat a forced call until the end
    # of the window, and clients that name one expect a single call.
    parallel = not name if several is None else several
    asked = ToolRequest(tools, "auto" if isinstance(choice, NamedTool) else choice, name, parallel)
    _check_names(asked)
    for index, tool in enumerate(tools):
        with _blamed_on(f"tools.{index}.function.parameters"):
            guide.check(structure.from_schema(schemas.parameters(tool)))
    return asked


def bound(sampling: Sampling, form: AnswerForm, engine: Engine) -> Sampling:
    """The sampling with the form of the answer. Raises Unsupported if the engine cannot enforce
    it, or the choice of a tool."""
    asked, tools = form.structure, form.tools
    worker = unwrap(engine)
    enforces = isinstance(worker, FollowsGrammars) and worker.follows_grammars
    if not enforces and asked is not None:
        message = "the engine of this model cannot enforce the form of an answer"
        raise Unsupported(message, "response_format")
    if not enforces and tools and (tools.name or tools.choice == "required"):
        message = "the engine of this model cannot enforce `tool_choice`; `auto` and `none` work"
        raise Unsupported(message, "tool_choice")
    return sampling if asked is None else replace(sampling, structure=asked)


def _check_names(request: ToolRequest) -> None:
    counts = Counter(request.names)
    if twins := [name for name, count in counts.items() if count > 1]:
        message = f"the function `{min(twins)}` is defined twice"
        raise BadRequest(message, param="tools")
    if request.name and request.name not in counts:
        message = f"`tool_choice` names `{request.name[:64]}`, which `tools` does not have"
        raise BadRequest(message, param="tool_choice")


def _of_response_format(response_format: ResponseFormat) -> Structure | None:
    if response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return structure.ANY_JSON
    if response_format.json_schema is None or response_format.json_schema.schema_ is None:
        raise UsageError("`response_format` has no `json_schema.schema`")
    return structure.from_schema(response_format.json_schema.schema_)


def _of_structured_outputs(outputs: StructuredOutputs) -> Structure | None:
    made: dict[str, Any] = {
        "json": lambda: structure.from_schema(outputs.json_ or False),
        "json_object": lambda: structure.ANY_JSON,
        "regex": lambda: structure.from_regex(outputs.regex or ""),
        "choice": lambda: structure.from_choices(outputs.choice or []),
        "grammar": lambda: structure.from_grammar(outputs.grammar or ""),
    }
    values = outputs.model_dump(by_alias=True, exclude_none=True, exclude={"json_object"})
    given = [
        name for name in made if name in values or (name == "json_object" and outputs.json_object)
    ]
    if len(given) > 1:
        raise UsageError(f"`structured_outputs` has `{given[0]}` and `{given[1]}`; it takes one")
    result: Structure | None = made[given[0]]() if given else None
    return result


def _check(asked: Structure | None) -> None:
    if asked is not None:
        guide.check(asked)


@contextmanager
def _blamed_on(param: str) -> Iterator[None]:
    """Give the name of a field to the errors of what it holds."""
    try:
        yield
    except Unsupported:
        raise
    except UsageError as error:
        raise BadRequest(error.message, param=param) from error
