"""What a line asks: prompts, messages, instructions, or requests of OpenAI's batch API.

https://platform.openai.com/docs/guides/batch has the last form.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from llmchat.batches.template import Template, as_text
from llmchat.conversation import Conversation, Message
from llmchat.errors import UsageError
from llmchat.roles import Role
from llmchat.server.api import ChatRequest
from llmchat.server.request_messages import to_conversation
from llmchat.server.request_parsing import check_chat

_CHAT = "/v1/chat/completions"
_PROMPTS = ("prompt", "messages", "instruction")
_FORMS = "`prompt`, `messages`, `instruction` or `body`"


class Ask(Struct, frozen=True):
    """A conversation to answer. request: the body of an OpenAI request, with its settings."""

    conversation: Conversation
    request: ChatRequest | None = None


def ask_of(value: Any, template: Template | None = None, role: Role | None = None) -> Ask:
    """What a line asks, in the words of a role. With a template, its fields make the prompt.

    Raises UsageError.
    """
    if isinstance(value, str) and template is None:
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise UsageError(f"it is not a JSON object with {_FORMS}")
    if template is None and "body" in value:
        return _of_request(value)
    if role is None:
        return _of_object(value, template)
    given = [name for name in _PROMPTS if name in value]
    if template is None and not given and role.prompt and not role.takes_input:
        ask = Ask(_with_system(Conversation((Message("user", ""),)), _text(value, "system")))
    else:
        ask = _of_object(value, template)
    return _in_role(ask, role, value)


def _in_role(ask: Ask, role: Role, fields: Mapping[str, Any]) -> Ask:
    """The last question in the words of a role; fields of the line give it values."""
    named = {name: as_text(fields[name]) for name in role.names if name in fields}
    return Ask(role.with_values(named).ask_last(ask.conversation))


def _of_object(value: Mapping[str, Any], template: Template | None) -> Ask:
    """What an object asks that is no request of OpenAI's."""
    if template is not None:
        return _of_texts(template.fill(value), "", _text(value, "system"))
    given = [name for name in _PROMPTS if name in value]
    if len(given) != 1:
        has = f"both {_quoted(given)}" if given else f"none of {_FORMS}"
        raise UsageError(f"it has {has}")
    if given == ["messages"]:
        found = _of_messages(value["messages"])
        return Ask(_with_system(found.conversation, _text(value, "system")))
    return _of_texts(_text(value, given[0]), _text(value, "input"), _text(value, "system"))


def _of_texts(text: str, material: str, system: str) -> Ask:
    if not text and not material:
        raise UsageError("its prompt is empty")
    return Ask(_with_system(Conversation((Message("user", text, material),)), system))


def _with_system(conversation: Conversation, system: str) -> Conversation:
    if not system:
        return conversation
    return Conversation((Message("system", system), *conversation.messages))


def _of_messages(messages: Any) -> Ask:
    request = _checked({"model": "", "messages": messages})
    return Ask(to_conversation(request.messages))


def _of_request(value: Mapping[str, Any]) -> Ask:
    url = value.get("url", _CHAT)
    if url != _CHAT:
        raise UsageError(f"requests to `{str(url)[:60]}` are not supported", f"{_CHAT} is")
    if not isinstance(value["body"], dict):
        raise UsageError("`body` is not a JSON object")
    request = _checked({"model": "", **value["body"]})
    if request.stream:
        raise UsageError("`body.stream` is not supported in a batch")
    return Ask(to_conversation(request.messages), request)


def _checked(body: Mapping[str, Any]) -> ChatRequest:
    """A request as the server would check it."""
    from pydantic import ValidationError

    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        problem = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
        where = ".".join(map(str, problem["loc"]))
        raise UsageError(f"`{where}`: {problem['msg']}") from error
    check_chat(request)
    return request


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UsageError(f"`{name}` is not a text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"`{name}` contains a lone surrogate")
    return text


def _quoted(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
