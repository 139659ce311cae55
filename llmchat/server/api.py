"""The schema of requests: OpenAI's API, with a few more fields for local models.

https://platform.openai.com/docs/api-reference. A field that would change the answer is obeyed or
refused with a 400, never ignored; so are unknown fields (see request_parsing.check_fields).
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from msgspec import Meta
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

from llmchat.errors import UsageError
from llmchat.server.compatibility import no_limit, seconds, whole_number
from llmchat.settings import types
from llmchat.settings.sampling import PARAMETERS, SAMPLING_SETTINGS

# Every piece of an answer is searched for each stop string.
MAX_STOPS = 128
MAX_CHOICES = 128
MAX_PROMPTS = 2048
MAX_DOCS = 16
# OpenAI allows 128. The schema of each is checked, which takes about a millisecond.
MAX_TOOLS = 1024
# OpenAI allows 64 characters; clients of Anthropic send names of up to 128.
MAX_FUNCTION_NAME = 128


def well_formed(value: Any) -> Any:
    """Refuse lone surrogates, which JSON can contain and UTF-8 cannot."""
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        raise ValueError("the text contains a lone surrogate") from None
    return value


Text = Annotated[str, AfterValidator(well_formed)]
Stop = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(well_formed)]


# Lists end at their first invalid item: the errors of a million of them take gigabytes.
_Item = TypeVar("_Item")
Items = Annotated[list[_Item], Field(fail_fast=True)]
Stops = Annotated[Items[Stop], Field(max_length=MAX_STOPS)]
Name = Annotated[str, Field(pattern=rf"^[a-zA-Z0-9_.-]{{1,{MAX_FUNCTION_NAME}}}$")]
JsonObject = Annotated[dict[str, Any], AfterValidator(well_formed)]


class Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


Whole = BeforeValidator(whole_number)
Tokens = Annotated[Annotated[int, Field(ge=1, le=2**31)] | None, BeforeValidator(no_limit)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Whole, Field(ge=-(2**63), le=2**63 - 1)]
TopLogprobs = Annotated[int, Whole, Field(ge=0, le=20)]
KeepAlive = Annotated[float, BeforeValidator(seconds), Field(ge=-1)]
Truncation = Literal["auto", "disabled"]


class AddedFile(Request):
    """A file that was added to a chat with POST /api/files/{chat}."""

    file_id: Text | None = None


class ContentPart(Request):
    """A part of a message's content: text, a file, or an assistant's refusal."""

    type: Text
    text: Text | None = None
    refusal: Text | None = None
    file: AddedFile | None = None


class CalledFunction(Request):
    name: Text
    arguments: Text = ""


class ToolCall(Request):
    id: Text = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Request):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Items[ContentPart] | None = None
    tool_calls: Items[ToolCall] | None = None
    tool_call_id: Text | None = None


class TemplateInput(Request):
    """Passed to the chat template unchanged, including unknown fields."""

    @model_validator(mode="after")
    def _check_extra(self) -> Self:
        well_formed(self.model_extra)
        return self


class Function(TemplateInput):
    name: Name
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(TemplateInput):
    type: Literal["function"]
    function: Function


class StreamOptions(Request):
    include_usage: bool | None = None


class NamedFunction(Request):
    name: Text


class NamedTool(Request):
    """The one function that the answer must call."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Request):
    """Every schema is enforced, whatever `strict` says."""

    name: Text = ""
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Request):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Request):
    """The form of an answer as vLLM spells it; exactly one field is set.

    grammar: in Lark's syntax, as llguidance reads it.
    """

    json_: Annotated[dict[str, Any] | bool | Text | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: Text | None = None
    choice: Items[Text] | None = None
    grammar: Text | None = None


def _own_parameters() -> dict[str, Any]:
    """Fields for the sampling parameters, with their ranges."""
    return {name: (_field(SAMPLING_SETTINGS[name]) | None, None) for name in OWN_PARAMETERS}


def _field(kind: Any) -> Any:
    """The pydantic type of a setting: a number with limits, or a list or table that is checked."""
    span, base, about = types.limits(kind) or Meta(), types.base_type(kind), types.description(kind)
    if base not in (int, float):
        checked = AfterValidator(partial(_checked, kind=kind))
        return Annotated[Any, checked, Field(description=about)]
    limits = Field(ge=span.ge, gt=span.gt, le=span.le, description=about)
    return Annotated[int, limits, Whole] if base is int else Annotated[base, limits]


def _checked(value: Any, kind: Any) -> Any:
    try:
        return types.check(well_formed(value), kind, "this field")
    except UsageError as error:
        raise ValueError(error.message) from None


# The sampling parameters with the names and the ranges that they have everywhere here.
OWN_PARAMETERS = tuple(name for name in PARAMETERS if name not in ("temperature", "top_p"))
if TYPE_CHECKING:
    OwnParameters = Request
else:
    OwnParameters = create_model("OwnParameters", __base__=Request, **_own_parameters())


class Generation(OwnParameters):
    """The fields of both chat and text completions. Those of OwnParameters, keep_alive, ignore_eos,
    truncation and show_prompt are not OpenAI's.

    keep_alive: how long the model stays in memory after the answer, in seconds or as a duration
    such as `5m`; -1 forever. ignore_eos: generate exactly max_tokens, for benchmarks.
    truncation: "auto" drops the oldest messages that do
    not fit. show_prompt: include the rendered prompt in the response.
    """

    model: Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: Tokens = None
    n: Annotated[int, Whole, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Seed | None = None
    stop: Stop | Stops | None = None
    user: Any = None
    keep_alive: KeepAlive | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None


class ChatRequest(Generation):
    messages: Annotated[Items[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Tokens = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: Annotated[Items[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    truncation: Truncation | None = None
    show_prompt: bool | None = None
    chat_template_kwargs: JsonObject | None = None
    reasoning_effort: Text | None = None
    think: types.Think | None = None
    think_budget: Annotated[int, Whole, Field(ge=0, le=2**31 - 1)] | None = None
    docs: Annotated[Items[Text], Field(max_length=MAX_DOCS)] | None = None


class CompletionRequest(Generation):
    prompt: (
        Text
        | Annotated[Items[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Items[int]
        | Items[Items[int]]
    )
    logprobs: Annotated[int, Whole, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Whole, Field(ge=1, le=MAX_CHOICES)] | None = None
    echo: bool | None = None
    suffix: Text | None = None


class EmbeddingRequest(Request):
    model: Text
    input: Text | Annotated[Items[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Whole, Field(ge=1)] | None = None
    input_type: Literal["query", "passage"] | None = None
    user: Text | None = None


class RerankDocument(Request):
    """A document of Cohere's older form."""

    text: Text


class RerankRequest(Request):
    model: Text
    query: Text
    documents: Annotated[Items[Text | RerankDocument], Field(min_length=1, max_length=MAX_PROMPTS)]
    top_n: Annotated[int, Whole, Field(ge=1)] | None = None
    return_documents: bool | None = None
