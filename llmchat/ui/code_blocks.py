"""The fenced code blocks of answers, and the Markdown parser that also draws them, so that both count alike."""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llmchat.conversation import Message

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


class CodeBlock(NamedTuple):
    """One fenced block: its info string's first word, and the code without the last line end."""

    language: str
    text: str


@cache
def parser() -> "MarkdownIt":
    """CommonMark with tables and ~~strikethrough~~, but HTML is text, every line end is kept, and nothing read later changes
    what was read before: no Setext headings and no reference links."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
        ["table", "strikethrough"]
    )
    return markdown.disable(["html_block", "html_inline", "reference", "lheading"])


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of one text, in order; a fence that is still open counts."""
    if "```" not in text and "~~~" not in text:
        return []
    fences = [token for token in parser().parse(text) if token.type == "fence"]
    return [CodeBlock(language(token.info), token.content.removesuffix("\n")) for token in fences]


def answered_blocks(messages: Iterable[Message]) -> list[CodeBlock]:
    """The code blocks of all answers of a conversation; block N of the screen is item N - 1."""
    return [block for one in messages if one.role == "assistant" for block in code_blocks(one.text)]


def language(info: str) -> str:
    return (info.split() or [""])[0]
