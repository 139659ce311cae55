"""Write records for other tools: Alpaca, OpenAI messages, ShareGPT or plain text.

The files are JSON lines, or one JSON list for a name that ends in .json.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
from msgspec.structs import replace

from llmchat.errors import UsageError, did_you_mean
from llmchat.finetune.records import Record
from llmchat.output.formatting import counted
from llmchat.prompt import plain_text
from llmchat.settings import World

Form = Callable[[Record], dict[str, Any]]
Write = Callable[[dict[str, Any]], None]

_SHAREGPT = {"user": "human", "assistant": "gpt"}


def to_alpaca(record: Record) -> dict[str, Any]:
    """instruction, input, output, and optionally system. Raises UsageError for several turns."""
    system = [message.text for message in record.messages if message.role == "system"]
    roles = [message.role for message in record.messages if message.role != "system"]
    if roles != ["user", "assistant"] or len(system) > 1:
        what = "a plain text" if record.text else counted(len(roles), "message")
        raise UsageError(
            f"{record.place}: Alpaca holds one question and one answer; this is {what}",
            "`--to messages` holds them all",
        )
    question, answer = record.messages[-2:]
    value = {"instruction": question.text, "input": question.input, "output": answer.text}
    return value | ({"system": system[0]} if system else {})


def to_messages(record: Record) -> dict[str, Any]:
    """messages of {role, content}, with llmchat's `input` for material.

    Other tools ignore `input`; `joined` writes it into the question.
    """
    _spoken(record)
    turns = [
        {"role": one.role, "content": one.text} | ({"input": one.input} if one.input else {})
        for one in record.messages
    ]
    return {"messages": turns}


def to_sharegpt(record: Record) -> dict[str, Any]:
    """conversations of {from, value}. Material has no field, so it precedes the question."""
    _spoken(record)
    turns = [
        {"from": _SHAREGPT.get(one.role, one.role), "value": plain_text(one)}
        for one in record.messages
    ]
    return {"conversations": turns}


def to_text(record: Record) -> dict[str, Any]:
    if not record.text:
        raise UsageError(
            f"{record.place}: a conversation cannot be written as plain text",
            "`--to messages` holds it",
        )
    return {"text": record.text}


FORMS: dict[str, Form] = {
    "alpaca": to_alpaca,
    "messages": to_messages,
    "sharegpt": to_sharegpt,
    "text": to_text,
}


def form_named(name: str) -> Form:
    if name not in FORMS:
        raise UsageError(
            f"data cannot be written as `{name}`",
            did_you_mean(name, tuple(FORMS)) or f"there are {', '.join(FORMS)}",
        )
    return FORMS[name]


def joined(record: Record) -> Record:
    """The record with every input written into its question, for tools without `input`."""
    return replace(
        record,
        messages=tuple(replace(one, text=plain_text(one), input="") for one in record.messages),
    )


def as_found(record: Record) -> dict[str, Any]:
    """The record as it is, for the file of removed records."""
    return to_text(record) if record.text else to_messages(record)


def _spoken(record: Record) -> None:
    if record.text:
        raise UsageError(
            f"{record.place}: a plain text cannot be written as a conversation",
            "`--to text` holds it",
        )


def free(name: str, inputs: Sequence[str], force: bool) -> Path:
    """A path to write to. Raises UsageError if it exists or is one of the inputs."""
    path = Path(name).expanduser()
    for source in inputs:
        origin = Path(source).expanduser()
        if origin.exists() and origin.resolve() in (path.resolve(), *path.resolve().parents):
            raise UsageError(
                f"{name} is read from", "an input is never overwritten; name another file"
            )
    if path.is_dir():
        raise UsageError(f"{name} is a folder")
    if path.exists() and not force:
        raise UsageError(f"{name} exists", "--force replaces it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    return path


@contextmanager
def writer(path: Path | None, world: World) -> Iterator[Write]:
    """A function that writes values as JSON lines, or as one list for *.json.

    Without a path it writes to stdout. The file appears once it is complete.
    """
    encode = msgspec.json.Encoder().encode
    if path is None:

        def show(value: dict[str, Any]) -> None:
            print(encode(value).decode(), file=world.stdout)

        yield show
        return
    as_list, count = path.suffix == ".json", 0
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:

            def write(value: dict[str, Any]) -> None:
                nonlocal count
                before = (b"[\n" if not count else b",\n") if as_list else b""
                cast(BinaryIO, file).write(before + encode(value) + (b"" if as_list else b"\n"))
                count += 1

            yield write
            if as_list:
                file.write(b"\n]\n" if count else b"[]\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
