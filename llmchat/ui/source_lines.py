"""The numbered sources of an answer, one line each below it, clickable where terminals allow it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from llmchat.settings import World
from llmchat.tools.sources import NumberedSource
from llmchat.ui import printing


def print_sources(
    world: World, sources: Sequence[NumberedSource], width: int, stream: TextIO | None = None
) -> None:
    """Print the sources; on a terminal, each line opens its page or file."""
    for one in sources:
        printing.print_link(world, line_of(one), link_of(one.url), width, stream)


def line_of(source: NumberedSource) -> str:
    """`[1] Title: https://…`, or `[1] notes.md › Heading (characters 120-480)` for a passage."""
    if place := source.place:
        return f"[{source.n}] {source.title} (characters {place.start}-{place.end})"
    titled = source.url if source.title == source.url else f"{source.title}: {source.url}"
    return f"[{source.n}] {titled}"


def link_of(source: str) -> str:
    """The address of a page, or of a file on this machine; empty for a chat."""
    if source.startswith(("session:", "earlier in this chat")):
        return ""
    if "://" in source:
        return source
    return f"file://{Path(source).expanduser().absolute()}"
