"""Sections of source code: a part for each function and class at the margin."""

import ast
import itertools
import re
from collections.abc import Iterator

from llmchat.memory.readers.types import Section

# A definition at the margin in the common languages: a keyword, or a C function's head.
_DEFINITION = re.compile(
    r"""^(?:(?:export|default|public|private|protected|internal|static|abstract|final|async|pub
        (?:\([\w:]+\))?|unsafe|extern|inline|const|open|override|virtual|template\s*<[^\n]*>)\s+)*
    (?:(?:class|struct|enum|interface|trait|impl|module|namespace|object|def|fn|func|function|fun
        |sub|proc|type|defmodule|defp|record|union)\b\s*(?:\([^)\n]{0,80}\)\s*)?
        (?P<name>[A-Za-z_$][\w$.:]*)
    |(?P<shell>[A-Za-z_]\w*)\s*\(\)\s*\{
    |(?:[A-Za-z_][\w:<>,*&\s]{0,80}[\s*&])(?P<c>[A-Za-z_][\w:~]*)\s*\([^;\n]{0,400}$)""",
    re.MULTILINE | re.VERBOSE,
)


def python_sections(text: str) -> tuple[Section, ...]:
    """The functions, classes and methods of Python, with their decorators and comments."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code_sections(text)
    starts = _line_starts(text)
    return tuple(_between([(starts[line], name) for line, name in _definitions(tree)], text))


def _definitions(tree: ast.Module | ast.ClassDef, above: str = "") -> Iterator[tuple[int, str]]:
    """The first line, from 0 on, and the name of each definition."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{above}{node.name}"
        yield min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1, name
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node, f"{name}.")


def code_sections(text: str) -> tuple[Section, ...]:
    """The definitions at the margin of any language, recognised by their first line."""
    found = _DEFINITION.finditer(text)
    names = [(one.start(), one["name"] or one["shell"] or one["c"]) for one in found]
    return tuple(_between(names, text))


def _between(starts: list[tuple[int, str]], text: str) -> Iterator[Section]:
    """A section from each start to the next; the comments right above belong to it."""
    places = [(0, ""), *((_with_comments(text, place), name) for place, name in starts)]
    places.append((len(text), ""))
    for (start, name), (end, _) in itertools.pairwise(places):
        if end > start:
            yield Section(start, end, name)


_COMMENT = re.compile(r"\s*(?:#|//|/?\*|--|;;|@|\[)")


def _with_comments(text: str, start: int) -> int:
    """Where the comments and attributes right above a definition begin."""
    while start > 0:
        line = text.rfind("\n", 0, start - 1) + 1
        if not _COMMENT.match(text[line:start]):
            break
        start = line
    return start


def _line_starts(text: str) -> list[int]:
    """Where each line begins. Python's lines end with \\n alone: the text has no other ends."""
    return [0, *(one.end() for one in re.finditer("\n", text))]
