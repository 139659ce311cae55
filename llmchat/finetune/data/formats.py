"""The data set formats: for each its fields and one reader function.

A format is detected by the exact fields of an object: all required ones, and no unknown ones. An
unknown field is an error that asks for --format; a named format ignores additional fields.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Message, Role
from llmchat.errors import UsageError, did_you_mean
from llmchat.finetune.data import oasst
from llmchat.finetune.data.rows import Row
from llmchat.finetune.records import Record

Reader = Callable[[Iterable[Row], str], Iterator[Record]]

# The speakers' names in ShareGPT's exports, Vicuna's successors and OpenAI's messages. A tool's
# text cannot be learned; the cleaner reports it as `order`.
_NAMES: dict[Role, str] = {
    "user": "user human",
    "assistant": "assistant gpt chatgpt bot bing bard model",
    "system": "system developer",
    "tool": "tool function function_call function_response observation",
}
_ROLES: dict[str, Role] = {name: role for role, known in _NAMES.items() for name in known.split()}


class Format(Struct, frozen=True):
    """A format.

    needs: the required fields; knows: the optional ones. read: converts rows to records, in one
    language ("" for all).
    """

    needs: frozenset[str]
    knows: frozenset[str]
    read: Reader


FORMATS: dict[str, Format] = {}
# Names that people use for the same fields.
ALIASES = {
    "gpt4-alpaca": "alpaca",
    "alpaca-cot": "alpaca",
    "openassistant-guanaco": "guanaco",
    "jsonl": "messages",
    "chatml": "messages",
}


def format_named(name: str) -> Format:
    known = ALIASES.get(name, name)
    if known not in FORMATS:
        names = (*FORMATS, *ALIASES)
        raise UsageError(
            f"unknown data format `{name}`",
            did_you_mean(name, names) or f"auto, {', '.join(FORMATS)}",
        )
    return FORMATS[known]


def detect(row: Row) -> str:
    """The name of the one format with exactly the row's fields. Raises UsageError without one."""
    fields = row.fields
    if fields is None:
        fields = frozenset({"messages"})
    found = [
        name
        for name, form in FORMATS.items()
        if form.needs and form.needs <= fields <= form.needs | form.knows
    ]
    if len(found) != 1:
        named = ", ".join(sorted(fields)) or "no fields"
        raise UsageError(
            f"{row.place}: no data format has exactly these fields: {named}",
            f"name one: --format {'|'.join(FORMATS)}",
        )
    return found[0]


def reader(name: str, needs: str = "", knows: str = "") -> Callable[[Reader], Reader]:
    """Register a reader. A format without `needs` must be named; it is never detected."""

    def register(read: Reader) -> Reader:
        FORMATS[name] = Format(frozenset(needs.split()), frozenset(knows.split()), read)
        return read

    return register


class _Alpaca(Struct):
    instruction: str
    output: str
    input: str | None = ""
    system: str | None = ""


@reader("alpaca", "instruction output", "input system id source text category cluster")
def alpaca(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """Alpaca, GPT4-Alpaca, Alpaca-CoT: instruction, input (may be missing), output."""
    for row in rows:
        one = row.to(_Alpaca)
        yield Record(
            _turn(one.instruction, one.input or "", one.output, one.system or ""), row.place
        )


class _Dolly(Struct):
    instruction: str
    response: str
    context: str | None = ""


@reader("dolly", "instruction context response", "category")
def dolly(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """Databricks' Dolly: instruction, context, response, category."""
    for row in rows:
        one = row.to(_Dolly)
        yield Record(_turn(one.instruction, one.context or "", one.response), row.place)


def _turn(question: str, input: str, answer: str, system: str = "") -> tuple[Message, ...]:
    turn = (Message("user", question, input), Message("assistant", answer))
    return (Message("system", system), *turn) if system else turn


class _Shared(Struct):
    from_: str = msgspec.field(name="from")
    value: str


class _ShareGPT(Struct):
    conversations: list[_Shared]
    system: str | None = ""


@reader(
    "sharegpt",
    "conversations",
    "id system title model source category idx lang language hash views tools",
)
def sharegpt(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """Vicuna's ShareGPT: conversations of {from, value}.

    The system text is a field of its own or the first message.
    """
    for row in rows:
        one = row.to(_ShareGPT)
        system = [Message("system", one.system)] if one.system else []
        yield Record(
            (*system, *(Message(_role(turn.from_, row), turn.value) for turn in one.conversations)),
            row.place,
        )


class _Part(Struct):
    type: str
    text: str | None = None


class _Turn(Struct):
    role: str
    content: str | list[_Part]
    input: str = ""


class _Messages(Struct):
    messages: list[_Turn]


@reader(
    "messages", "messages", "id prompt prompt_id source category chosen_rating score tags model"
)
def messages(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """OpenAI's messages of {role, content}, with llmchat's `input`; or a bare list of them."""
    for row in rows:
        messages = row.to(list[_Turn]) if row.is_list else row.to(_Messages).messages
        yield Record(
            tuple(
                Message(_role(one.role, row), _content(one.content, row), one.input)
                for one in messages
            ),
            row.place,
        )


def _content(content: str | list[_Part], row: Row) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        if part.text is None:
            raise UsageError(
                f"{row.place}: a part of a message is `{part.type}`, not text",
                "images and sound are not supported",
            )
    return "\n".join(part.text or "" for part in content)


def _role(name: str, row: Row) -> Role:
    if name.lower() not in _ROLES:
        raise UsageError(
            f"{row.place}: unknown role {name[:40]!r}", f"there are {', '.join(_ROLES)}"
        )
    return _ROLES[name.lower()]


@reader("oasst", oasst.ROW_NEEDS, oasst.ROW_KNOWS)
def oasst_rows(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """OpenAssistant's messages, linked by parent_id: the best path of each tree.

    All rows are held in memory.
    """
    return oasst.from_rows(rows, language)


@reader("oasst-trees", "message_tree_id prompt", "tree_state origin")
def oasst_trees(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """OpenAssistant's trees, one per row, with nested replies: the best path of each."""
    return oasst.from_trees(rows, language)


@reader("sessions", "title model created tags messages")
def sessions(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """llmchat's JSON export of sessions: their complete turns."""
    return _exported(rows)


@reader(
    "chatgpt",
    "mapping title",
    "create_time update_time current_node moderation_results plugin_ids conversation_id id",
)
def chatgpt(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """ChatGPT's conversations.json: the branch that was open last."""
    return _exported(rows)


def _exported(rows: Iterable[Row]) -> Iterator[Record]:
    from llmchat.history import imports
    from llmchat.history.types import Record as Stored
    from llmchat.history.types import Session

    for row in rows:
        whole = (
            msgspec.json.encode(row.value).decode()
            if isinstance(row.value, dict)
            else bytes(row.value).decode("utf-8", "replace")
        )
        for chat in imports.read(whole, row.place):
            stored = [
                Stored(0, None, stored.message, stored.state, stored.created, {})  # type: ignore[arg-type]
                for stored in chat.messages
            ]
            session = Session(
                "", chat.title, chat.model, 0, 0, chat.tags, chat.created, chat.created
            )
            yield from spoken(session, stored, row.place)


def spoken(session: Any, stored: Any, place: str) -> Iterator[Record]:
    """A session's complete turns as one record; nothing without an answer."""
    from llmchat.history.export import to_training

    line = to_training(session, stored)
    if line:
        yield from messages([Row(place, line.encode())], "")


class _Text(Struct):
    text: str


@reader("text", "text", "id source url title meta timestamp")
def text(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """JSON objects with a text; plain text files come as documents, see rows.documents."""
    for row in rows:
        yield Record((), row.place, row.to(_Text).text)


@reader("guanaco")
def guanaco(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """openassistant-guanaco: a text of `### Human: …### Assistant: …`.

    It has the fields of `text`, so it must be named.
    """
    for row in rows:
        pieces = ("\n" + row.to(_Text).text).split("### ")
        messages: list[Message] = []
        for piece in pieces[1:]:
            label, colon, words = piece.partition(":")
            if label in ("Human", "Assistant") and colon:
                messages.append(Message("user" if label == "Human" else "assistant", words))
            elif messages:
                # A heading of Markdown inside a message.
                messages[-1] = replace(messages[-1], text=f"{messages[-1].text}### {piece}")
        if pieces[0].strip() or not messages:
            raise UsageError(f"{row.place}: the text does not begin with `### Human:`")
        yield Record(tuple(replace(one, text=one.text.strip()) for one in messages), row.place)


def read_rows(rows: Iterable[Row], name: str, language: str) -> Iterator[Record]:
    """Records of the format `name`; for `auto`, of the format detected from the first row."""
    stream = iter(rows)
    first = next(stream, None)
    if first is None:
        return
    form = FORMATS[detect(first)] if name == "auto" else format_named(name)
    yield from form.read(chain([first], stream), language)
