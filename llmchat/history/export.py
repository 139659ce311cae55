"""Export sessions: Markdown and HTML for people, JSON for programs, JSONL for training."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from llmchat import plugins
from llmchat.conversation import Message
from llmchat.errors import UsageError, did_you_mean
from llmchat.history.types import Record, Session
from llmchat.output.html_page import fill
from llmchat.plugins import Offer

_PAGE = Path(__file__).with_name("session.html")


def to_json(session: Session, records: Sequence[Record]) -> str:
    """OpenAI's messages, with fields of llmchat's own; `import` restores texts, marks and times."""
    value = {
        "id": session.id,
        "title": session.title,
        "model": session.model,
        "created": session.created,
        "tags": list(session.tags),
        "messages": [_openai_message(record) for record in records],
    }
    return _indented(msgspec.json.encode(value))


def _indented(encoded: bytes) -> str:
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def to_training(session: Session, records: Sequence[Record]) -> str:
    """One line of JSON with the complete turns: no summaries, no cancelled or excluded answers, and
    no turns with tool calls.
    """
    kept: list[dict[str, str]] = []
    for record in records:
        message = record.message
        if message.role == "system":
            kept = [one for one in kept if one["role"] != "system"]
            kept.insert(0, {"role": "system", "content": message.text})
        elif message.role == "user":
            if kept and kept[-1]["role"] == "user":
                kept.pop()
            material = {"input": message.input} if message.input else {}
            kept.append({"role": "user", "content": message.text} | material)
        elif message.role == "assistant" and kept and kept[-1]["role"] == "user":
            # An answer that needed a tool would teach the model to make its result up.
            usable = message.mark != "excluded" and not message.calls
            if record.state == "complete" and usable:
                kept.append({"role": "assistant", "content": message.text})
            else:
                kept.pop()
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    return msgspec.json.encode({"messages": kept}).decode() + "\n" if kept else ""


def to_markdown(session: Session, records: Sequence[Record]) -> str:
    head = f"# {session.title or session.id}\n\n{session.model} · {when(session.created)}\n"
    return head + "".join(
        f"\n## {_heading(record)}\n\n{_with_material(record)}\n" for record in records
    )


def to_html(session: Session, records: Sequence[Record]) -> str:
    """A page that needs no other file. Markdown is rendered; HTML in a message appears as text."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    messages = [
        {
            "role": record.message.role,
            "heading": _heading(record),
            "input": record.message.input,
            "body": Markup(markdown.render(body_of(record.message))),
        }
        for record in records
    ]
    return fill(
        _PAGE,
        title=session.title or session.id,
        model=session.model,
        created=when(session.created),
        messages=messages,
    )


Export = Callable[[Session, Sequence[Record]], str]
EXPORTS: dict[str, Export] = {
    "md": to_markdown,
    "json": to_json,
    "html": to_html,
    "jsonl": to_training,
}


def export_forms() -> list[str]:
    """The names of all formats: our own, then those of plugins."""
    return [*EXPORTS, *(name for name in plugins.names("exporter") if name not in EXPORTS)]


def exporter(form: str) -> Export:
    """What writes a session in this format. Raises UsageError for an unknown one."""
    if form in EXPORTS:
        return EXPORTS[form]
    offer = plugins.find("exporter", form)
    if offer is None:
        known = export_forms()
        hint = did_you_mean(form, known) or f"use {', '.join(known)}"
        raise UsageError(f"invalid format `{form}`", hint)
    return partial(_by_plugin, offer, plugins.make(offer))


def _by_plugin(offer: Offer, export: Export, session: Session, records: Sequence[Record]) -> str:
    with plugins.faults(offer):
        text = export(session, records)
    if not isinstance(text, str):
        raise plugins.fault(offer, f"it returned `{type(text).__name__}`, not text")
    return text


def join_exports(form: str, exports: Sequence[str]) -> str:
    """Join several exports into one text: JSON becomes a list, HTML pages follow each other."""
    if len(exports) == 1 or form not in ("json", "html"):
        return ("" if form == "jsonl" else "\n").join(exports)
    if form == "json":
        return _indented(b"[" + b",".join(one.encode() for one in exports) + b"]")
    start, end = "<!doctype html>\n", "</html>\n"
    pages = (one.removeprefix(start).replace(end, "") for one in exports)
    return "".join((start, *pages, end))


def when(seconds: float) -> str:
    """A moment in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _openai_message(record: Record) -> dict[str, Any]:
    message = record.message
    value: dict[str, Any] = {
        "role": message.role,
        "content": message.text,
        "created": record.created,
    }
    if message.role == "summary":
        # OpenAI has no such role; other programs read a system message with this name.
        value |= {"role": "system", "name": "summary", "covers": message.covers}
    optional: dict[str, Any] = {
        "input": message.input,
        "files": message.files,
        "passages": message.passages,
        "mark": message.mark,
        "tool_calls": [_openai_call(call) for call in message.calls],
        "tool_call_id": message.call_id,
        "state": record.state if record.state != "complete" else "",
    }
    return value | {name: text for name, text in optional.items() if text}


def _openai_call(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as JSON text, as OpenAI's API has them."""
    function = call["function"]
    arguments = msgspec.json.encode(function["arguments"]).decode()
    return {**call, "function": {**function, "arguments": arguments}}


def _heading(record: Record) -> str:
    return f"{record.message.role}{' (cancelled)' if record.state == 'cancelled' else ''}"


def _with_material(record: Record) -> str:
    return "\n\n".join(filter(None, (record.message.input, body_of(record.message))))


def body_of(message: Message) -> str:
    """The text of a message as Markdown, with its calls; the result of a tool is a code block."""
    text = _fenced(message.text) if message.role == "tool" else message.text
    calls = (
        f"`{function['name']}`\n\n" + _fenced(_indented(msgspec.json.encode(function["arguments"])))
        for function in (call["function"] for call in message.calls)
    )
    return "\n\n".join(filter(None, (text, *calls)))


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    runs = re.findall(r"`{3,}", text)
    fence = "`" * (max(map(len, runs), default=2) + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
