"""Which of the passages that a search put beside questions a model is sent.

The passages of a message are the first parts of its input. Pure functions of messages; they find
nothing themselves.
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from llmchat.conversation import FoundPassage, Message, material

# The name of the part behind the passages that says how to use them.
REQUEST = "how to cite"


def passages_of(message: Message) -> list[tuple[FoundPassage, str]]:
    """The passages of a message with their texts; empty if its parts are unknown."""
    parts = message.materials
    if not message.passages or len(parts) < len(message.passages):
        return []
    return [(one, text) for one, (_, text) in zip(message.passages, parts, strict=False)]


def with_passages(
    message: Message, found: Sequence[tuple[FoundPassage, str]], request: str = ""
) -> Message:
    """A message with passages before its other material. request: how to use them, behind them."""
    pieces = [(name_of(one), text) for one, text in found]
    if found and request:
        pieces.append((REQUEST, request))
    text, files = material([*pieces, *(one for one in message.materials if one[1])])
    passages = (*(one for one, _ in found), *message.passages)
    return replace(message, input=text, files=files, passages=passages)


def name_of(passage: FoundPassage) -> str:
    """A passage in one line: its number, document and heading."""
    heading = f" › {passage.heading}" if passage.heading else ""
    return f"[{passage.n}] {passage.source}{heading}"


def without_passages(message: Message) -> Message:
    """A message without what a search found for it."""
    return _only(message, lambda one: False)


def sendable(message: Message) -> Message:
    """A message without the passages that are excluded."""
    if all(one.mark != "excluded" for one in message.passages):
        return message
    return _only(message, lambda one: one.mark != "excluded")


def lighter(message: Message) -> Message | None:
    """A message without its worst passage that is not pinned; None if it has none."""
    loose = [one for one in message.passages if one.mark != "pinned"]
    if not loose or not passages_of(message):
        return None
    # Of equal ones, the last.
    worst = min(reversed(loose), key=lambda one: one.score)
    return _only(message, lambda one: one is not worst)


def with_pinned(messages: tuple[Message, ...], unsent: Sequence[Message]) -> tuple[Message, ...]:
    """The messages that are sent, with the pinned passages of those that are not.

    They go before the material of the last question.
    """
    pinned = [one for message in unsent for one in passages_of(message) if one[0].mark == "pinned"]
    asked = max((i for i, one in enumerate(messages) if one.role == "user"), default=-1)
    if not pinned or asked < 0:
        return messages
    return (*messages[:asked], with_passages(messages[asked], pinned), *messages[asked + 1 :])


def _only(message: Message, wanted: Callable[[FoundPassage], bool]) -> Message:
    """A message with some of its passages; without any, it needs no word on how to use them."""
    found, parts = passages_of(message), message.materials
    if not found:
        return message
    kept = [(one, text) for one, text in found if wanted(one)]
    others = parts[len(found) :]
    if not kept:
        others = [one for one in others if one[0] != REQUEST]
    text, files = material([*((name_of(one), text) for one, text in kept), *others])
    passages = tuple(one for one, _ in kept)
    return replace(message, input=text, files=files, passages=passages)
