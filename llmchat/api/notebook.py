"""Shows answers and chats in a notebook: Markdown that grows, and a chat as HTML."""

import time
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from llmchat.conversation import Message
from llmchat.history.export import body_of

# Seconds between two pictures of an answer: a browser draws each one anew.
_INTERVAL_S = 0.1
_MOST_ROWS, _LONGEST_CELL = 50, 400
_GREY = "#888888"
_COLOURS = {"user": "#2f6fde", "assistant": "#2e8b57", "tool": "#b07219"}


def show_growing(pieces: Iterator[str]) -> None:
    """Show the text in the cell's output while it arrives. An interrupt keeps what is there."""
    from IPython.display import Markdown, display

    text, shown = "", 0.0
    handle: Any = display(Markdown(""), display_id=True)
    try:
        for piece in pieces:
            text += piece
            if time.monotonic() - shown > _INTERVAL_S:
                handle.update(Markdown(text))
                shown = time.monotonic()
    finally:
        handle.update(Markdown(text))


def chat_html(title: str, messages: Sequence[Message]) -> str:
    """A chat as HTML without scripts or style sheets; HTML in a message appears as text."""
    head = f'<div style="opacity:.7;margin-bottom:.5em">{escape(title)}</div>'
    return f'<div class="llmchat">{head}{"".join(_parts(messages))}</div>'


def _parts(messages: Iterable[Message]) -> Iterator[str]:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    for message in messages:
        colour = _COLOURS.get(message.role, _GREY)
        label = f'<b style="color:{colour}">{message.role}</b>'
        frame = f"border-left:3px solid {colour};padding:.1em .8em;margin:.4em 0"
        body = markdown.render(body_of(message))
        yield f'<div style="{frame}">{label}{_material(message)}{body}</div>'


def _material(message: Message) -> str:
    if not message.input:
        return ""
    names = ", ".join(name for name, _ in message.files) or "material"
    return (
        f"<details><summary>{escape(names)}</summary><pre>{escape(message.input)}</pre></details>"
    )


def batch_html(rows: Sequence[tuple[int, str, bool]]) -> str:
    """The answers of a batch as a table. rows: number, text, and whether it is an error."""
    shown = [
        f'<tr><td>{line}</td><td style="text-align:left;white-space:pre-wrap'
        f'{";color:#c0392b" if is_error else ""}">{escape(_shortened(text))}</td></tr>'
        for line, text, is_error in rows[:_MOST_ROWS]
    ]
    more = f"<p>… and {len(rows) - _MOST_ROWS:,} more</p>" if len(rows) > _MOST_ROWS else ""
    return f"<table>{''.join(shown)}</table>{more}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"
