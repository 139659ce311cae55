"""From a request to what an engine is asked: sampling, messages, and what is refused because it cannot be honoured."""

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Sampling
from llmchat.presets import Preset
from llmchat.server.api import ChatMessage, ChatRequest, CompletionRequest, Generation, Tool
from llmchat.server.errors import BadRequest

# Who may speak after whom.
_FOLLOWERS = {"": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}
_OWN = ("top_k", "min_p", "repetition_penalty", "ignore_eos")


def sampling_of(request: Generation, preset: Preset, max_tokens: int | None, logprobs: int) -> Sampling:
    """The preset's sampling with what the request says. logprobs: as in Sampling."""
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(request, name):
            raise BadRequest(f"`{name}` is not supported; `repetition_penalty` is", param=name, code="unsupported_parameter")
    if request.logit_bias:
        raise BadRequest("`logit_bias` is not supported", param="logit_bias", code="unsupported_parameter")
    given: dict[str, Any] = {name: value for name in ("temperature", *_OWN) if (value := getattr(request, name)) is not None}
    if request.top_p == 0:
        given["temperature"] = 0.0
    elif request.top_p is not None:
        given["top_p"] = request.top_p
    if max_tokens is not None:
        given["max_tokens"] = max_tokens
    if request.seed is not None:
        given["seed"] = request.seed % 2**63
    if request.stop is not None:
        given["stops"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    return replace(preset.sampling, logprobs=logprobs, **given)


def nth(sampling: Sampling, index: int) -> Sampling:
    """The sampling of the choice with this index: a seed gives each choice its own."""
    return sampling if sampling.seed is None or not index else replace(sampling, seed=(sampling.seed + index) % 2**63)


def check_chat(request: ChatRequest) -> None:
    """Raises BadRequest for what would have to be ignored."""
    if request.response_format and request.response_format.type != "text":
        raise BadRequest("only `text` can be asked for", param="response_format", code="unsupported_parameter")
    if request.tool_choice not in (None, "none", "auto"):
        raise BadRequest("`tool_choice` can be `auto` or `none`", param="tool_choice", code="unsupported_parameter")
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("`top_logprobs` needs `logprobs`", param="top_logprobs")


def check_completion(request: CompletionRequest) -> None:
    if request.best_of not in (None, request.n or 1):
        raise BadRequest("`best_of` is not supported beside `n`", param="best_of", code="unsupported_parameter")
    if request.suffix:
        raise BadRequest("`suffix` is not supported", param="suffix", code="unsupported_parameter")
    if request.echo and request.logprobs is not None:
        raise BadRequest("`echo` is not supported together with `logprobs`", param="echo", code="unsupported_parameter")


def conversation_of(messages: Sequence[ChatMessage]) -> Conversation:
    """The request's messages: system texts joined to one, messages of one speaker in a row joined to one.

    Raises BadRequest where the order of speakers makes no conversation.
    """
    system = "\n\n".join(filter(None, (_text(message) for message in messages if message.role in ("system", "developer"))))
    spoken: list[Message] = []
    for index, message in enumerate(messages):
        if message.role in ("system", "developer"):
            continue
        said = _message(message, index)
        before = spoken[-1].role if spoken else ""
        if said.role == before != "tool" and not (said.calls or spoken[-1].calls):
            spoken[-1] = replace(spoken[-1], text="\n\n".join(filter(None, (spoken[-1].text, said.text))))
        elif said.role in _FOLLOWERS[before]:
            spoken.append(said)
        else:
            after = f"one from `{before}`" if before else "nothing"
            raise BadRequest(f"message {index + 1} is from `{said.role}`, which cannot follow {after}", param=f"messages.{index}.role")
    if not spoken:
        raise BadRequest("there is no message from `user`", param="messages")
    if spoken[-1].calls:
        raise BadRequest("the last message calls a function; its result must follow", param="messages")
    return Conversation(((Message("system", system),) if system else ()) + tuple(spoken))


def _message(message: ChatMessage, index: int) -> Message:
    calls = []
    for call in message.tool_calls or ():
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except ValueError as error:
            raise BadRequest(f"the arguments of `{call.function.name}` are no JSON", param=f"messages.{index}.tool_calls") from error
        calls.append({"type": "function", "id": call.id, "function": {"name": call.function.name, "arguments": arguments}})
    if calls and message.role != "assistant":
        raise BadRequest("only `assistant` calls functions", param=f"messages.{index}.tool_calls")
    return Message(message.role, _text(message), calls=tuple(calls))  # type: ignore[arg-type]


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def with_tools(preset: Preset, tools: Sequence[Tool] | None, choice: object) -> Preset:
    """The preset with a format that shows these tools. Raises BadRequest where the model's template has no place for them."""
    if not tools or choice == "none":
        return preset
    if "tools" not in (preset.format.template or ""):
        raise BadRequest(f"the prompt format of `{preset.name}` has no place for tools", param="tools", code="unsupported_parameter")
    shown = [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in tools]
    return replace(preset, format=replace(preset.format, template_tokens={**preset.format.template_tokens, "tools": shown}))


def with_policy(preset: Preset, trim: bool) -> Preset:
    """Without `trim` a conversation that does not fit is refused, as OpenAI does it; with it the preset's policy leaves out what does not fit."""
    return preset if trim else replace(preset, context=replace(preset.context, policy="refuse"))
