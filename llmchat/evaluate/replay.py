"""Generate the answers of a saved chat again, and compare them with the saved ones.

Each answer is generated from the messages before it, with its own sampling, seed, context policy
and tools. No tool runs: the recorded results are among those messages. The KV cache starts empty,
so rounding alone can change a greedy answer whose top tokens were nearly equal.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.answer_record import AnswerRecord
from llmchat.calls import ToolRequest
from llmchat.conversation import Conversation
from llmchat.engines import Engine, Sampling
from llmchat.history import Record
from llmchat.presets import ContextPolicy, Preset
from llmchat.reply import reply
from llmchat.tool_turn import written


class ReplayedAnswer(Struct, frozen=True):
    """One answer, generated again.

    same: None if that was not possible, because of `why`; at: the first differing character.
    """

    number: int
    """Number of the answer, from 1."""
    same: bool | None
    """Whether it is the same; null if it could not be asked."""
    at: int = 0
    """Index of the first different character."""
    then: str = ""
    """The stored answer."""
    now: str = ""
    """The new answer."""
    why: str = ""
    """Why it could not be asked."""


class Replay(Struct, frozen=True):
    """What `llmchat sessions replay --json` prints."""

    changed: list[str]
    """How the loaded model differs from that of the session."""
    answers: list[ReplayedAnswer]
    """One entry for each answer."""


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what the model of an answer differs from the one that is loaded."""
    return [
        f"{name} was {then[name]}, is {now.get(name)}"
        for name in then
        if then[name] != now.get(name)
    ]


def replay(records: Sequence[Record], preset: Preset, engine: Engine) -> Iterator[ReplayedAnswer]:
    """Generate every answer of a branch again, one after another."""
    for index, record in enumerate(records):
        if record.message.role != "assistant":
            continue
        number = sum(one.message.role == "assistant" for one in records[: index + 1])
        details = record.details
        if "sampling" not in details:
            yield ReplayedAnswer(
                number, None, why="it was imported, or is older than these records"
            )
        elif details.get("resumed"):
            yield ReplayedAnswer(
                number, None, why="it was written in more than one piece (/continue)"
            )
        else:
            before = Conversation(tuple(one.message for one in records[:index]))
            yield _again(number, record, before, preset, engine)


def _again(
    number: int, record: Record, before: Conversation, preset: Preset, engine: Engine
) -> ReplayedAnswer:
    details = record.details
    sampling = replace(msgspec.convert(details["sampling"], Sampling), seed=details.get("seed"))
    asked = replace(preset, context=msgspec.convert(details["context"], ContextPolicy))
    engine.clear_cache()
    before = before.with_hint(str(details.get("hint", "")))
    tools = msgspec.convert(details.get("tools"), ToolRequest | None)
    answer = AnswerRecord()
    for event in reply(before, asked, engine, sampling, tools):
        answer.feed(event)
    then, now = written(record.message), written(answer.message())
    # A stopped answer is compared with the beginning of the new one.
    shown = now[: len(then)] if record.state == "cancelled" else now
    at = next(
        (i for i, (a, b) in enumerate(zip(then, shown, strict=False)) if a != b),
        min(len(then), len(shown)),
    )
    return ReplayedAnswer(number, then == shown, at, then, now)
