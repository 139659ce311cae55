"""Sessions as files: Markdown and HTML for people, JSON and JSONL for programs and for training."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmchat.history.types import Record, Session
from llmchat.html_page import fill

_PAGE = Path(__file__).with_name("session.html")


def to_json(session: Session, records: Sequence[Record]) -> str:
    """OpenAI's messages, with what llmchat knows beyond them; read back by `import` without loss of text, marks or times."""
    value = {
        "id": session.id,
        "title": session.title,
        "model": session.model,
        "created": session.created,
        "tags": list(session.tags),
    }
    return (
        msgspec.json.format(
            msgspec.json.encode(value | {"messages": [_wire(record) for record in records]}),
            indent=2,
        ).decode()
        + "\n"
    )


def to_training(session: Session, records: Sequence[Record]) -> str:
    """One line of JSON with the messages that were said: complete turns alone, without summaries, cancelled and excluded ones."""
    kept: list[dict[str, str]] = []
    for record in records:
        message = record.message
        if message.role == "system":
            kept = [one for one in kept if one["role"] != "system"]
            kept.insert(0, {"role": "system", "content": message.text})
        elif message.role == "user":
            if kept and kept[-1]["role"] == "user":
                kept.pop()
            kept.append(
                {"role": "user", "content": message.text}
                | ({"input": message.input} if message.input else {})
            )
        elif message.role == "assistant" and kept and kept[-1]["role"] == "user":
            if record.state == "complete" and message.mark != "excluded":
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
            "body": Markup(markdown.render(record.message.text)),
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


EXPORTS: dict[str, Callable[[Session, Sequence[Record]], str]] = {
    "md": to_markdown,
    "json": to_json,
    "html": to_html,
    "jsonl": to_training,
}


def together(form: str, exports: Sequence[str]) -> str:
    """Several exports as one text: JSON becomes a list, HTML pages follow each other in one."""
    if len(exports) == 1 or form in ("jsonl", "md"):
        return ("\n" if form == "md" else "").join(exports)
    if form == "json":
        return (
            msgspec.json.format(
                b"[" + b",".join(one.encode() for one in exports) + b"]", indent=2
            ).decode()
            + "\n"
        )
    return (
        "<!doctype html>\n"
        + "".join(one.removeprefix("<!doctype html>\n").replace("</html>\n", "") for one in exports)
        + "</html>\n"
    )


def when(seconds: float) -> str:
    """A moment as people of this machine's time zone read it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _wire(record: Record) -> dict[str, Any]:
    message = record.message
    value: dict[str, Any] = {
        "role": message.role,
        "content": message.text,
        "created": record.created,
    }
    if message.role == "summary":
        # The field has no such role; a system message with this name is what others can read.
        value |= {"role": "system", "name": "summary", "covers": message.covers}
    optional: dict[str, Any] = {
        "input": message.input,
        "files": message.files,
        "mark": message.mark,
        "state": record.state if record.state != "complete" else "",
    }
    return value | {name: text for name, text in optional.items() if text}


def _heading(record: Record) -> str:
    return f"{record.message.role}{' (cancelled)' if record.state == 'cancelled' else ''}"


def _with_material(record: Record) -> str:
    return (
        f"{record.message.input}\n\n{record.message.text}"
        if record.message.input
        else record.message.text
    )
