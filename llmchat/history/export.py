"""Sessions as files: Markdown and HTML for people, JSON and JSONL for programs and for training."""

import html
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from llmchat.history.types import Record, Session

_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
article { border-top: 1px solid var(--line); padding: .5rem 0; overflow-wrap: anywhere; }
article.user { font-weight: 600; } header, h2, .input { color: #888; font-size: .85rem; font-weight: 400; margin: .25rem 0; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .2rem .5rem; }
"""


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
        f"\n## {_who(record)}\n\n{_with_material(record)}\n" for record in records
    )


def to_html(session: Session, records: Sequence[Record]) -> str:
    """One page that needs nothing else. Markdown is rendered; HTML in a message is shown as text."""
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    title = html.escape(session.title or session.id)
    articles = "".join(
        f'<article class="{record.message.role}"><h2>{html.escape(_who(record))}</h2>'
        + (
            f'<pre class="input">{html.escape(record.message.input)}</pre>'
            if record.message.input
            else ""
        )
        + f"{render(record.message.text)}</article>\n"
        for record in records
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style>\n<h1>{title}</h1>\n"
        f"<header>{html.escape(session.model)} · {when(session.created)}</header>\n{articles}</html>\n"
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


def _who(record: Record) -> str:
    return f"{record.message.role}{' (cancelled)' if record.state == 'cancelled' else ''}"


def _with_material(record: Record) -> str:
    return (
        f"{record.message.input}\n\n{record.message.text}"
        if record.message.input
        else record.message.text
    )
