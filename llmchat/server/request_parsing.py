"""Checks the fields of a request, and turns them into the settings of an answer: sampling,
template values, context policy."""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace
from pydantic import BaseModel

from llmchat import thinking
from llmchat.engines import Sampling
from llmchat.presets import Preset
from llmchat.server.api import (
    OWN_PARAMETERS,
    ChatRequest,
    CompletionRequest,
    Generation,
    Request,
)
from llmchat.server.compatibility import IGNORED_MESSAGE_FIELDS, Defaults, unsupported
from llmchat.server.errors import BadRequest, Unsupported

# Variables of chat templates that requests cannot set.
_RESERVED_VARIABLES = ("messages", "tools", "add_generation_prompt")


def sampling_of(
    request: Generation, preset: Preset, max_tokens: int | None, logprobs: int
) -> Sampling:
    """The preset's sampling with the request's changes. logprobs: see Sampling."""
    changes: dict[str, Any] = {
        name: value
        for name in ("temperature", *OWN_PARAMETERS, "ignore_eos", "think", "think_budget")
        if (value := getattr(request, name, None)) is not None
    }
    if request.top_p == 0:
        changes["temperature"] = 0.0
    elif request.top_p is not None:
        changes["top_p"] = request.top_p
    if max_tokens is not None:
        changes["max_tokens"] = max_tokens
    if request.seed is not None:
        changes["seed"] = request.seed % 2**63
    if request.stop is not None:
        changes["stops"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    return replace(preset.sampling, logprobs=logprobs, **changes)


def chat_settings(request: ChatRequest, preset: Preset) -> tuple[Preset, Sampling]:
    """The preset with the template values of a request, and its sampling with the request's
    changes."""
    preset = with_template_values(preset, request.chat_template_kwargs, request.reasoning_effort)
    logprobs = (request.top_logprobs or 0) + 1 if request.logprobs else 0
    return preset, sampling_of(request, preset, most_tokens(request), logprobs)


def most_tokens(request: ChatRequest) -> int | None:
    """The limit on the tokens of an answer, under its new or its old name."""
    newer = request.max_completion_tokens
    return request.max_tokens if newer is None else newer


def sampling_of_choice(sampling: Sampling, index: int) -> Sampling:
    """The sampling of one of a request's choices: each gets its own seed."""
    if sampling.seed is None or not index:
        return sampling
    return replace(sampling, seed=(sampling.seed + index) % 2**63)


def check_fields(
    part: BaseModel,
    where: str = "",
    ignored: Collection[str] = (),
    defaults: Defaults | None = None,
) -> None:
    """Raises BadRequest for a field that the server does not support.

    where: the path of the part. ignored: fields that never change the answer; defaults: values of
    others that change nothing.
    """
    if (name := unsupported(part.model_extra, ignored, defaults)) is not None:
        path = f"{where}{name}"[:100]
        raise Unsupported(f"`{path}` is not supported", path)


def check_chat(request: ChatRequest) -> None:
    """Raises BadRequest for fields and values that the server does not support."""
    _check_all_fields(request)
    for index, message in enumerate(request.messages):
        check_fields(message, f"messages.{index}.", IGNORED_MESSAGE_FIELDS)
    for name in ("response_format", "tool_choice"):
        if isinstance(part := getattr(request, name), Request):
            check_fields(part, f"{name}.")
    if request.response_format and request.response_format.json_schema:
        check_fields(request.response_format.json_schema, "response_format.json_schema.")
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("`top_logprobs` requires `logprobs`", param="top_logprobs")


def _check_all_fields(request: Generation) -> None:
    for name, value in (request.model_extra or {}).items():
        if name.startswith("guided_") and value is not None:
            # What vLLM called the fields of structured_outputs before.
            newer = f"structured_outputs.{name.removeprefix('guided_')}"[:100]
            raise Unsupported(f"`{name[:100]}` is not supported; `{newer}` is", name[:100])
    check_fields(request)
    if request.stream_options:
        check_fields(request.stream_options, "stream_options.")
    if request.structured_outputs:
        check_fields(request.structured_outputs, "structured_outputs.")


def check_completion(request: CompletionRequest) -> None:
    """Raises BadRequest for fields and values that the server does not support."""
    _check_all_fields(request)
    token_prompts = [prompt for prompt in prompts_of(request) if not isinstance(prompt, str)]
    if request.prompt == [] or not all(token_prompts):
        raise BadRequest("`prompt` is empty", param="prompt")
    if request.best_of not in (None, request.n or 1):
        raise Unsupported("`best_of` is not supported, unless it equals `n`", "best_of")
    if request.suffix:
        raise Unsupported("`suffix` is not supported", "suffix")
    if request.echo and request.logprobs is not None:
        raise Unsupported("`echo` is not supported together with `logprobs`", "echo")


def prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts of a request, each as text or as token ids."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    is_token_ids = bool(prompt) and isinstance(prompt[0], int)
    return [prompt] if is_token_ids else [*prompt]  # type: ignore[list-item]


def with_template_values(
    preset: Preset, values: Mapping[str, Any] | None, effort: str | None
) -> Preset:
    """The preset with these variables for its chat template.

    effort: OpenAI's `reasoning_effort`. Raises BadRequest for a variable that the template does not
    use.
    """
    values = dict(values or {})
    for name in values:
        _check_variable(preset, name)
    if effort is not None:
        values = _effort_variables(preset, effort) | values
    return _with_variables(preset, values) if values else preset


def _check_variable(preset: Preset, name: str) -> None:
    reserved = name in _RESERVED_VARIABLES or name.endswith("_token")
    if (
        reserved
        or not name.isidentifier()
        or not thinking.uses_variable(preset.format.template, name)
    ):
        raise Unsupported(
            f"`chat_template_kwargs`: the format of `{preset.name}` has no variable `{name[:60]}`",
            "chat_template_kwargs",
        )


def _effort_variables(preset: Preset, effort: str) -> dict[str, Any]:
    """The variables of the template that express this reasoning effort."""
    found = thinking.variables(preset.format.template, effort)
    if found is None:
        message = f"the prompt format of `{preset.name}` does not support `reasoning_effort`"
        raise Unsupported(message, "reasoning_effort")
    return found


def _with_variables(preset: Preset, values: Mapping[str, Any]) -> Preset:
    form = preset.format
    return replace(preset, format=replace(form, template_tokens={**form.template_tokens, **values}))


def with_policy(preset: Preset, trim: bool) -> Preset:
    """The preset itself if `trim`, otherwise one that refuses conversations that do not fit, as
    OpenAI does."""
    return preset if trim else replace(preset, context=replace(preset.context, policy="refuse"))
