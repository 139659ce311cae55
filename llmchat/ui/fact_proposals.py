"""At the end of a chat the model may propose facts about the user, who confirms each one.

Only what the user wrote is read for it: a file, a page or a tool's result must not become a fact.
"""

import json
from collections.abc import Sequence
from contextlib import closing, suppress

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Sampling
from llmchat.errors import LlmchatError, UsageError
from llmchat.memory.facts import one_line
from llmchat.models.structures import check_for
from llmchat.reply import reply, with_thinking
from llmchat.structure import from_schema
from llmchat.ui.state import ReplState

_MOST = 5
_LONGEST = 120
# An array of short strings, whatever the model would rather write.
_FORM = from_schema(
    {
        "type": "array",
        "items": {"type": "string", "minLength": 3, "maxLength": _LONGEST},
        "maxItems": _MOST,
    }
)
_SAMPLING = Sampling(temperature=0, max_tokens=300, structure=_FORM)
_TASK = (
    "List what these messages say about the user that stays true: name, home, family, work, tools,"
    " preferences. Leave out questions and tasks. Write a JSON list of short sentences that begin"
    ' with "The user".'
)
# The part of the window that the user's messages may take.
_PART = 0.5


def offer_facts(state: ReplState) -> None:
    """Ask the user about each fact that the model proposes of this chat.

    Nothing happens where memory does not propose, nobody can be asked, or nothing new was written.
    """
    memory = state.chat.memory
    if memory.use != "propose" or memory.facts is None or state.confirm is None:
        return
    written = _written(state.chat)
    if not written:
        return
    state.print_note("looking for facts to remember …")
    try:
        proposed = propose(state.chat, written)
    except LlmchatError as error:
        return state.print_note(f"note: no facts were proposed: {error.message}")
    finally:
        memory.known = len(state.chat.conversation.messages)
    for text in proposed:
        if state.confirm(f"remember `{text}`?"):
            memory.facts.add(text)


def propose(chat: Chat, written: Sequence[str]) -> list[str]:
    """The facts that the chat's model finds in texts of the user, without those known already."""
    check_for(_FORM, chat.preset.engine, chat.engine)
    conversation = Conversation((Message("user", _task(written)),))
    preset, sampling = replace(chat.preset, actions=()), _SAMPLING
    with suppress(UsageError):  # a model that always thinks, or never
        with_thinking(preset, replace(sampling, think="off"), conversation, chat.engine)
        sampling = replace(sampling, think="off")
    with closing(reply(conversation, preset, chat.engine, sampling)) as events:
        text = "".join(event.text for event in events if isinstance(event, Chunk))
    return _new(chat, _parsed(text))


def _written(chat: Chat) -> list[str]:
    """What the user wrote since facts were last proposed: the newest part that fits."""
    new = chat.conversation.messages[chat.memory.known :]
    texts = [message.text for message in new if message.role == "user" and message.text.strip()]
    limit = min(chat.preset.context.tokens or chat.engine.context, chat.engine.context)
    room, kept = int(limit * _PART), list[str]()
    for text in reversed(texts):
        room -= chat.engine.count(text)
        if room < 0:
            break
        kept.append(text)
    return kept[::-1]


def _task(written: Sequence[str]) -> str:
    lines = "\n".join(f"- {' '.join(text.split())}" for text in written)
    return f"Messages of a user:\n{lines}\n\n{_TASK}"


def _parsed(text: str) -> list[str]:
    """The strings of a JSON list. One that was cut off at max_tokens has none."""
    try:
        values = json.loads(text)
    except ValueError:
        return []
    return [one for one in values if isinstance(one, str)] if isinstance(values, list) else []


def _new(chat: Chat, texts: Sequence[str]) -> list[str]:
    """The texts as facts are kept, each once, without those that are known."""
    known = {
        fact.text.casefold() for fact in (chat.memory.facts.all() if chat.memory.facts else ())
    }
    found = dict[str, str]()
    for text in texts:
        with suppress(UsageError):
            line = one_line(text)
            if line.casefold() not in known:
                found.setdefault(line.casefold(), line)
    return list(found.values())[:_MOST]
