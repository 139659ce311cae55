"""Read task files: JSON lines, or a JSON list, with one item each, all checked at once.

exact, contains: {"prompt": "…" or "messages": […], "input": "…", "system": "…",
                  "answer": "…" or ["…", …]}
choice:          {"prompt": "…", "choices": ["…", …], "answer": 0 or "…"}
perplexity:      {"text": "…"}

Any item can set its `kind` and its `task`. A first object without a question is the header, which
sets kind, task and system for the others.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Message
from llmchat.errors import UsageError, did_you_mean
from llmchat.evaluate.matching import normalise
from llmchat.settings import World

Kind = Literal["exact", "contains", "choice", "perplexity"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Item(Struct, frozen=True, omit_defaults=True):
    """An item. right: index of the right choice; where: file and item, for messages."""

    task: str
    kind: Kind
    number: int
    where: str
    messages: tuple[Message, ...] = ()
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int = 0
    text: str = ""


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str
    input: str = ""


class _Header(Struct, forbid_unknown_fields=True):
    kind: Kind | None = None
    task: str | None = None
    system: str | None = None


class _Wire(_Header, forbid_unknown_fields=True):
    prompt: str | None = None
    messages: list[_Message] | None = None
    input: str = ""
    answer: str | int | list[str] | None = None
    choices: list[str] | None = None
    text: str | None = None


def read_tasks(
    world: World,
    file: str,
    *,
    kind: str | None = None,
    fold: Collection[str] = (),
    limit: int = 0,
    before: int = 0,
) -> list[Item]:
    """Read the items of a file in order; only the first `limit` of each task if not 0.

    kind: for items without one in the item or the header; before: the number of items in earlier
    files. Raises UsageError for the first invalid item.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(
            f"unknown kind `{kind}`",
            did_you_mean(kind, KINDS) or f"there are {', '.join(KINDS)}",
        )
    items: list[Item] = []
    taken: dict[str, int] = {}
    header, number = _Header(), 0
    for place, value in _values(world.read_text(file), file):
        try:
            if (
                number == 0
                and header == _Header()
                and isinstance(value, dict)
                and not {"prompt", "messages", "text"} & set(value)
            ):
                header = msgspec.convert(value, _Header)
                continue
            number += 1
            wire = msgspec.convert(value, _Wire)
            item = _item(wire, header, kind, number, file)
            _check(item, fold)
        except (msgspec.ValidationError, UsageError) as error:
            raise UsageError(f"{file}, item {max(number, 1)}{place}: {error}") from error
        item = replace(item, number=before + number)
        taken[item.task] = taken.get(item.task, 0) + 1
        if not limit or taken[item.task] <= limit:
            items.append(item)
    if not items:
        raise UsageError(
            f"{file} holds no items", '{"prompt": "…", "answer": "…"} is one, a line each'
        )
    return items


def _values(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """Every JSON value of a file, with its line number in JSON lines."""
    try:
        if text.lstrip().startswith("["):
            yield from (("", value) for value in msgspec.json.decode(text, type=list[Any]))
            return
    except msgspec.DecodeError as error:
        raise UsageError(f"{file} is not valid JSON: {error}") from error
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                yield f" (line {line})", msgspec.json.decode(content)
            except msgspec.DecodeError as error:
                raise UsageError(f"{file}, line {line} is not valid JSON: {error}") from error


def _item(wire: _Wire, header: _Header, kind: str | None, number: int, file: str) -> Item:
    given = wire.kind or (
        "choice"
        if wire.choices is not None
        else "perplexity"
        if wire.text is not None
        else header.kind or kind or "exact"
    )
    task = wire.task or header.task or ("stdin" if file == "-" else Path(file).stem)
    messages: tuple[Message, ...] = () if given == "perplexity" else _messages(wire, header.system)
    choices = tuple(wire.choices or ())
    right = 0
    answers: tuple[str, ...] = ()
    if given == "choice":
        right = _right(wire.answer, choices)
    elif wire.answer is not None:
        answers = tuple(wire.answer) if isinstance(wire.answer, list) else (str(wire.answer),)
    return Item(
        task,
        given,  # type: ignore[arg-type]
        number,
        f"{file}, item {number}",
        messages,
        answers,
        choices,
        right,
        wire.text or "",
    )


def _messages(wire: _Wire, system: str | None) -> tuple[Message, ...]:
    """The conversation up to the question. An item's system text replaces the header's."""
    if (wire.prompt is None) == (wire.messages is None):
        raise UsageError("it needs a `prompt` or `messages`, one of them")
    if wire.messages is None:
        spoken = [Message("user", wire.prompt or "", wire.input)]
    elif wire.input:
        raise UsageError("`input` belongs to a `prompt`; a message has its own")
    else:
        spoken = [Message(one.role, one.content, one.input) for one in wire.messages]
    if not spoken or spoken[-1].role != "user":
        raise UsageError("the last message must be the user's")
    own = wire.system if wire.system is not None else "" if spoken[0].role == "system" else system
    return (*((Message("system", own),) if own else ()), *spoken)


def _right(answer: str | int | list[str] | None, choices: tuple[str, ...]) -> int:
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    raise UsageError(
        f"the answer {answer!r} is none of the {len(choices)} choices;"
        " it is one of their texts, or an index from 0"
    )


def _check(item: Item, fold: Collection[str]) -> None:
    if item.kind == "perplexity" and not item.text:
        raise UsageError("perplexity needs a `text`")
    if item.kind == "choice" and (
        len(item.choices) < 2
        or len(set(item.choices)) < len(item.choices)
        or not all(map(str.strip, item.choices))
    ):
        raise UsageError("choice needs at least two different choices, none of them empty")
    if item.kind in ("exact", "contains"):
        if item.choices or item.text:
            raise UsageError(
                f"`{'choices' if item.choices else 'text'}` is for another kind than {item.kind}"
            )
        if not item.answers:
            raise UsageError("`answer` is missing")
        if not all(normalise(answer, fold) for answer in item.answers):
            raise UsageError("an answer is empty")
