"""From a request to what an engine is asked: sampling, messages, and what is refused because it cannot be honoured."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Sampling
from llmchat.presets import Preset
from llmchat.server.api import (
    OWN_PARAMETERS,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    Generation,
    Request,
    Tool,
)
from llmchat.server.compatibility import OF_MESSAGES, check_nesting, unsupported
from llmchat.server.errors import BadRequest

# Who may speak after whom.
_FOLLOWERS = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def sampling_of(
    request: Generation, preset: Preset, max_tokens: int | None, logprobs: int
) -> Sampling:
    """The preset's sampling with what the request says. logprobs: as in Sampling."""
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(request, name):
            raise BadRequest(
                f"`{name}` is not supported; `repetition_penalty` is",
                param=name,
                code="unsupported_parameter",
            )
    if request.logit_bias:
        raise BadRequest(
            "`logit_bias` is not supported", param="logit_bias", code="unsupported_parameter"
        )
    given: dict[str, Any] = {
        name: value
        for name in ("temperature", *OWN_PARAMETERS, "ignore_eos")
        if (value := getattr(request, name)) is not None
    }
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


def sampling_of_choice(sampling: Sampling, index: int) -> Sampling:
    """The sampling of the choice with this index: a seed gives each choice its own."""
    return (
        sampling
        if sampling.seed is None or not index
        else replace(sampling, seed=(sampling.seed + index) % 2**63)
    )


def check_fields(request: Request, where: str = "") -> None:
    """Raises BadRequest for the name of a field that would have to be ignored."""
    if (name := unsupported(request.model_extra)) is not None:
        raise _refused(f"{where}{name}"[:100])


def _refused(field: str) -> BadRequest:
    return BadRequest(f"`{field}` is not supported", param=field, code="unsupported_parameter")


def check_chat(request: ChatRequest) -> None:
    """Raises BadRequest for what would have to be ignored."""
    check_fields(request)
    if request.stream_options:
        check_fields(request.stream_options, "stream_options.")
    for index, message in enumerate(request.messages):
        extra = {
            name: value
            for name, value in (message.model_extra or {}).items()
            if name not in OF_MESSAGES
        }
        if (name := unsupported(extra)) is not None:
            raise _refused(f"messages.{index}.{name}"[:100])
    if request.response_format and request.response_format.type != "text":
        raise BadRequest(
            "only `text` can be asked for", param="response_format", code="unsupported_parameter"
        )
    if request.tool_choice not in (None, "none", "auto"):
        raise BadRequest(
            "`tool_choice` can be `auto` or `none`",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("`top_logprobs` needs `logprobs`", param="top_logprobs")


def check_completion(request: CompletionRequest) -> None:
    """Raises BadRequest for what would have to be ignored."""
    check_fields(request)
    if request.stream_options:
        check_fields(request.stream_options, "stream_options.")
    if request.prompt == []:
        raise BadRequest("there is no prompt", param="prompt")
    if any(not prompt for prompt in prompts_of(request) if not isinstance(prompt, str)):
        raise BadRequest("there is no prompt", param="prompt")
    if request.best_of not in (None, request.n or 1):
        raise BadRequest(
            "`best_of` is not supported beside `n`", param="best_of", code="unsupported_parameter"
        )
    if request.suffix:
        raise BadRequest("`suffix` is not supported", param="suffix", code="unsupported_parameter")
    if request.echo and request.logprobs is not None:
        raise BadRequest(
            "`echo` is not supported together with `logprobs`",
            param="echo",
            code="unsupported_parameter",
        )


def prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts of a request, each as text or as token ids."""
    given = request.prompt
    if isinstance(given, str):
        return [given]
    alone = bool(given) and isinstance(given[0], int)
    return [given] if alone else [*given]  # type: ignore[list-item]


def to_conversation(messages: Sequence[ChatMessage]) -> Conversation:
    """The request's messages: system texts joined to one, messages of one speaker in a row joined to one.

    Where nobody but `system` speaks, its text is the request; an answer before any question follows an empty one.
    Raises BadRequest where the order of speakers makes no conversation.
    """
    texts = [
        _text(message, index)
        for index, message in enumerate(messages)
        if message.role in ("system", "developer")
    ]
    system = "\n\n".join(filter(None, texts))
    spoken: list[Message] = []
    for index, said in _joined(messages):
        before = spoken[-1].role if spoken else ""
        if said.role == "assistant" and not before:
            spoken.append(Message("user", ""))
        elif said.role not in _FOLLOWERS[before]:
            after = f"one from `{before}`" if before else "nothing"
            raise BadRequest(
                f"message {index + 1} is from `{said.role}`, which cannot follow {after}",
                param=f"messages.{index}.role",
            )
        spoken.append(said)
    if not spoken and system:
        return Conversation((Message("user", system),))
    if not spoken:
        raise BadRequest("there is no message from `user`", param="messages")
    if spoken[-1].calls:
        raise BadRequest(
            "the last message calls a function; its result must follow", param="messages"
        )
    return Conversation(((Message("system", system),) if system else ()) + tuple(spoken))


def _joined(messages: Sequence[ChatMessage]) -> Iterator[tuple[int, Message]]:
    """Those that are not from `system`, with the index of the first; neighbours of one speaker as one, unless they have to do with functions."""
    spoken = [
        (index, _message(message, index))
        for index, message in enumerate(messages)
        if message.role not in ("system", "developer")
    ]
    alone = (
        said.role if said.role != "tool" and not said.calls else str(number)
        for number, (_, said) in enumerate(spoken)
    )
    for _, group in groupby(zip(alone, spoken, strict=True), key=lambda pair: pair[0]):
        same = [one for _, one in group]
        index, first = same[0]
        text = "\n\n".join(filter(None, (said.text for _, said in same)))
        yield index, replace(first, text=text) if len(same) > 1 else first


def _message(message: ChatMessage, index: int) -> Message:
    calls = []
    for call in message.tool_calls or ():
        try:
            arguments = json.loads(call.function.arguments or "{}")
            check_nesting(arguments)
            json.dumps(arguments, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise BadRequest(
                f"the arguments of `{call.function.name}` are no JSON",
                param=f"messages.{index}.tool_calls",
            ) from error
        calls.append(
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.function.name, "arguments": arguments},
            }
        )
    if calls and message.role != "assistant":
        raise BadRequest("only `assistant` calls functions", param=f"messages.{index}.tool_calls")
    return Message(message.role, _text(message, index), calls=tuple(calls))  # type: ignore[arg-type]


def _text(message: ChatMessage, index: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    texts = []
    for number, part in enumerate(message.content):
        text = (
            part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        )
        if text is None:
            kind = part.type[:40]
            said = (
                f"a part of type `{kind}` has no text"
                if kind in ("text", "refusal")
                else f"`{kind}` parts are not supported; models here read text alone"
            )
            raise BadRequest(said, param=f"messages.{index}.content.{number}.type")
        texts.append(text)
    return "".join(texts)


# What a template is given by ourselves.
_OURS = ("messages", "tools", "add_generation_prompt")


def with_template_values(
    preset: Preset, values: Mapping[str, Any] | None, effort: str | None
) -> Preset:
    """The preset with a format whose chat template is given these values. Raises BadRequest for one that the template does not ask for."""
    form = preset.format
    given = dict(values or {})
    for name in given:
        if (
            name in _OURS
            or name.endswith("_token")
            or not name.isidentifier()
            or not asks_for(form.template, name)
        ):
            message = f"`chat_template_kwargs`: the prompt format of `{preset.name}` does not use `{name[:60]}`"
            raise BadRequest(message, param="chat_template_kwargs", code="unsupported_parameter")
    if effort is not None:
        if asks_for(form.template, "reasoning_effort"):
            given.setdefault("reasoning_effort", effort)
        elif asks_for(form.template, "enable_thinking"):
            given.setdefault("enable_thinking", effort not in ("none", "minimal"))
        else:
            message = f"the prompt format of `{preset.name}` does not use `reasoning_effort`"
            raise BadRequest(message, param="reasoning_effort", code="unsupported_parameter")
    return (
        replace(preset, format=replace(form, template_tokens={**form.template_tokens, **given}))
        if given
        else preset
    )


def asks_for(template: str | None, name: str) -> bool:
    """Whether a chat template mentions a variable of this name."""
    return bool(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", template or ""))


def with_tools(preset: Preset, tools: Sequence[Tool] | None, choice: object) -> Preset:
    """The preset with a format that shows these tools. Raises BadRequest where the model's template has no place for them."""
    if not tools or choice == "none":
        return preset
    if "tools" not in (preset.format.template or ""):
        raise BadRequest(
            f"the prompt format of `{preset.name}` has no place for tools",
            param="tools",
            code="unsupported_parameter",
        )
    shown = [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in tools]
    return replace(
        preset,
        format=replace(
            preset.format, template_tokens={**preset.format.template_tokens, "tools": shown}
        ),
    )


def with_policy(preset: Preset, trim: bool) -> Preset:
    """Without `trim` a conversation that does not fit is refused, as OpenAI does it; with it the preset's policy leaves out what does not fit."""
    return preset if trim else replace(preset, context=replace(preset.context, policy="refuse"))
