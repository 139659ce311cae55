"""The tool calls of a turn, as its messages have them."""

import json
from collections.abc import Sequence

from llmchat.calls import Call
from llmchat.conversation import Conversation, Message

STOPPED = "error: the user stopped this call"


def calls_of(message: Message) -> list[Call]:
    """The calls of an answer."""
    return [Call(one["id"], **one["function"]) for one in message.calls]


def written(message: Message) -> str:
    """An answer with its calls as text; the ids of calls are left out."""
    calls = (
        f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})"
        for call in calls_of(message)
    )
    return "\n".join(filter(None, (message.text, *calls)))


def count_results(conversation: Conversation) -> int:
    """How many calls of the whole chat have a result."""
    return sum(message.role == "tool" for message in conversation.messages)


def earlier_result(conversation: Conversation, call: Call) -> str | None:
    """The result of the same call earlier in this turn; None if there was none.

    Small models call again instead of reading the result.
    """
    turn = conversation.messages[conversation.question + 1 :]
    same = {
        each.id
        for message in turn
        for each in calls_of(message)
        if (each.name, each.arguments) == (call.name, call.arguments)
    }
    return _text_of(turn, same)


def _text_of(turn: Sequence[Message], ids: set[str]) -> str | None:
    results = (message.text for message in turn if message.call_id in ids)
    return next(results, None)


def reminder(result: str) -> str:
    """What the model is given for a call that it repeats."""
    return f"You have the result already: {result}\nAnswer the user now."
