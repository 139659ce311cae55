"""The fenced code blocks of answers.

The Markdown renderer uses the same parser, so that both number the blocks alike.
"""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llmchat.conversation import Message

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


class CodeBlock(NamedTuple):
    """A fenced block: the first word of its info string, its code without the last newline."""

    language: str
    text: str


@cache
def parser() -> "MarkdownIt":
    """CommonMark with tables and strikethrough, and with HTML as text and line ends kept.

    Later text must never change how earlier text is drawn, so there are no Setext headings and
    no reference links.
    """
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
        ["table", "strikethrough"]
    )
    return markdown.disable(["html_block", "html_inline", "reference", "lheading"])


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of a text, in order; a fence that is still open counts."""
    if "```" not in text and "~~~" not in text:
        return []
    fences = [token for token in parser().parse(text) if token.type == "fence"]
    return [CodeBlock(language(token.info), token.content.removesuffix("\n")) for token in fences]


def answered_blocks(messages: Iterable[Message]) -> list[CodeBlock]:
    """The code blocks of all answers of a conversation; the screen numbers them from 1."""
    answers = (message for message in messages if message.role == "assistant")
    return [block for answer in answers for block in code_blocks(answer.text)]


def language(info: str) -> str:
    return (info.split() or [""])[0]
