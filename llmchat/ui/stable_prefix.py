"""Find how much of an unfinished Markdown text is stable: no later text changes how it is drawn."""

import itertools
import re
import unicodedata
from typing import NamedTuple

from markdown_it.tree import SyntaxTreeNode

from llmchat.ui.code_blocks import parser
from llmchat.ui.table_layout import SAMPLE

# Marks that later text could pair with: not between blanks, and not inside a snake_case word.
_OPEN = re.compile(r"`|\[[^\]]*$|[*~](?=\S)|(?<=\S)[*~]|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)")


class StableOffsets(NamedTuple):
    """Offsets into a text.

    before, block: the starts of its last two top-level blocks; end: where its stable lines end.
    """

    before: int
    block: int
    end: int


def stable_offsets(markdown: str) -> StableOffsets:
    """Find the stable lines: all blocks but the last, and finished parts of the last one.

    Those are code lines, list items and rows of a long table.
    """
    complete = markdown[: markdown.rfind("\n") + 1]
    offsets = [0, *itertools.accumulate(len(line) + 1 for line in complete.split("\n"))]
    blocks = [node for node in SyntaxTreeNode(parser().parse(complete)).children if node.map]
    if not blocks:
        return StableOffsets(0, 0, 0)
    block = offsets[_lines(blocks[-1])[0]]
    before = offsets[_lines(blocks[-2])[0]] if len(blocks) > 1 else block
    return StableOffsets(before, block, max(block, offsets[_stable_lines(blocks[-1])]))


def stable_words_end(markdown: str) -> int:
    """Offset of the end of the stable words, if the text ends in a paragraph; else 0."""
    lines = markdown.split("\n")
    node = _last(SyntaxTreeNode(parser().parse(markdown)))
    # A table's head is a paragraph until the line below it has arrived.
    if node.type != "paragraph" or _lines(node)[1] < len(lines) or "|" in lines[-1]:
        return 0
    start = sum(len(line) + 1 for line in lines[: _lines(node)[0]])
    words = last_break(markdown[start:])
    return start + words if words and not _open_marks(markdown[: start + words]) else 0


def last_break(source: str) -> int:
    """Offset of the last place where a row may end, outside emphasis, code and links."""
    index = safe = 0
    open_marks: list[str] = []
    while index < len(source):
        char = source[index]
        run = len(source[index:]) - len(source[index:].lstrip(char))
        if char == "`":
            index = _code_end(source, index, run)
        elif char == "[":
            index = _link_end(source, index)
        elif char in "*_~":
            _match(open_marks, source, index, run)
            index += run
        else:
            index += 2 if char == "\\" else 1
            safe = index if not open_marks and _breakable(char) else safe
    return safe


def _match(open_marks: list[str], source: str, index: int, run: int) -> None:
    """Close the last open mark of this kind, or open one."""
    before, after = source[index - 1 : index], source[index + run : index + run + 1]
    mark = source[index : index + run]
    if mark in open_marks and not before.isspace():
        del open_marks[len(open_marks) - 1 - open_marks[::-1].index(mark) :]
    elif not after.isspace() and not (mark[0] == "_" and before.isalnum()):
        open_marks.append(mark)


def _code_end(source: str, index: int, run: int) -> int:
    """Offset after a code span; the end of the text if the span is still open."""
    match = re.compile(rf"(?<!`)`{{{run}}}(?!`)").search(source, index + run)
    return match.end() if match and match.end() < len(source) else len(source)


def _link_end(source: str, index: int) -> int:
    """Offset after a link or a label without a target; the end of the text if unfinished."""
    match = re.compile(r"\[[^\[\]]*\](\([^()\n]*\)|(?=[^(]))").match(source, index)
    return match.end() if match else len(source)


def _open_marks(markdown: str) -> bool:
    """Whether the last paragraph of a text has a mark that later text could pair with."""
    node = _last(SyntaxTreeNode(parser().parse(markdown)))
    return any(
        _OPEN.search(token.content)
        for inline in node.children
        for token in inline.to_tokens()[0].children or ()
        if token.type == "text"
    )


def _breakable(char: str) -> bool:
    """Whether a row may end after a character: white space or an ideograph."""
    is_wide_letter = (
        unicodedata.category(char) == "Lo" and unicodedata.east_asian_width(char) == "W"
    )
    return char.isspace() or is_wide_letter


def _stable_lines(node: SyntaxTreeNode) -> int:
    """The line up to which an open block is stable."""
    start, end = _lines(node)
    if node.type in ("fence", "code_block"):
        return end
    if node.type == "table":
        body = [row for part in node.children if part.type == "tbody" for row in part.children]
        return end if len(body) >= SAMPLE else start
    inner = [child for child in node.children if child.map and child.type != "inline"]
    return max(start, _stable_lines(inner[-1])) if inner else start


def _last(node: SyntaxTreeNode) -> SyntaxTreeNode:
    inner = [child for child in node.children if child.map and child.type != "inline"]
    return _last(inner[-1]) if inner else node


def _lines(node: SyntaxTreeNode) -> tuple[int, int]:
    return node.map or (0, 0)
