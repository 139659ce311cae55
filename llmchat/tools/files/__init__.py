"""The tools `files_list`, `files_read` and `files_search`: look into the files below a root folder.

They change nothing. What they return is untrusted: somebody else may have written a file.
"""

import os
from collections.abc import Iterable
from itertools import islice
from threading import Event
from typing import Any

from llmchat.output.formatting import byte_count
from llmchat.output.terminal_text import excerpt
from llmchat.tools import Output, Tool, ToolError, ToolSettings
from llmchat.tools.files.reading import Lines, read_lines, refuse_binary
from llmchat.tools.files.root import Root, is_closed
from llmchat.tools.files.searching import MOST_MATCHES, Search, matcher
from llmchat.tools.files.walk import MOST_ENTRIES, Walk, printable

_MOST_NAMES = 200
_LINES = 200
_PATH = {"type": "string", "default": "."}
# Without an example: small models copy it.
_PATTERN = {"type": "string", "description": "names of files", "default": "*"}


def tools(settings: ToolSettings) -> list[Tool]:
    root = Root(settings.root)
    return [FilesList(root), FilesRead(root), FilesSearch(root)]


class _FileTool:
    group = "files"
    origin = ""
    read_only = True

    def __init__(self, root: Root):
        self._root = root


class FilesList(_FileTool):
    name = "files_list"
    description = (
        "List a folder of the user. With `pattern`, such as *.py, find files by name in all its"
        " folders."
    )
    parameters = {
        "type": "object",
        "properties": {"path": _PATH, "pattern": _PATTERN},
        "additionalProperties": False,
    }

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        path = arguments.get("path") or "."
        pattern = arguments.get("pattern") or ""
        if pattern in ("", "*"):
            return Output(self._listing(path), untrusted=True)
        walk = Walk(self._root, path, pattern, stop)
        found = list(islice(walk.files(), _MOST_NAMES + 1))
        lines = [printable(file) for file in found[:_MOST_NAMES]]
        if len(found) > _MOST_NAMES:
            lines.append(f"[only the first {_MOST_NAMES} files; use a narrower pattern]")
        lines += _incomplete(walk.complete)
        return Output("\n".join(lines) or f"no file fits `{excerpt(pattern)}`", untrusted=True)

    def _listing(self, path: str) -> str:
        """Folders first, then files with their sizes."""
        with self._root.folder(path) as opened, os.scandir(opened) as entries:
            seen = [entry for entry in islice(entries, MOST_ENTRIES) if not is_closed(entry.name)]
            seen.sort(key=lambda entry: (not entry.is_dir(follow_symlinks=False), entry.name))
            lines = [_entry(entry) for entry in seen[:_MOST_NAMES]]
        if len(seen) > _MOST_NAMES:
            more = len(seen) - _MOST_NAMES
            lines.append(f"[{more:,} more entries; use `pattern` to find files by name]")
        return "\n".join(lines) or "the folder is empty"


class FilesRead(_FileTool):
    name = "files_read"
    description = f"Read a text file of the user, at most {_LINES} lines from line `start`."
    parameters = {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "start": {"type": "integer", "minimum": 1, "default": 1},
            "lines": {"type": "integer", "minimum": 1, "maximum": _LINES, "default": _LINES},
        },
        "required": ["path"],
        "additionalProperties": False,
    }

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        path, start = arguments["path"], int(arguments.get("start", 1))
        with self._root.file(path) as file:
            refuse_binary(file, path)
            lines = read_lines(file, start, int(arguments.get("lines", _LINES)), stop)
        return Output(_page(printable(path), lines), untrusted=True)


class FilesSearch(_FileTool):
    name = "files_search"
    description = "Find the lines that contain a text in all files below a folder of the user."
    parameters = {
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1},
            "path": _PATH,
            "pattern": _PATTERN,
            "regex": {"type": "boolean", "default": False},
        },
        "required": ["text"],
        "additionalProperties": False,
    }

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        text, pattern = arguments["text"], arguments.get("pattern") or "*"
        walk = Walk(self._root, arguments.get("path") or ".", pattern, stop)
        matches = matcher(text, arguments.get("regex", False))
        search = Search(self._root, walk, matches, stop)
        found = list(islice(search.lines(), MOST_MATCHES + 1))
        lines = found[:MOST_MATCHES]
        if len(found) > MOST_MATCHES:
            lines.append(f"[only the first {MOST_MATCHES} lines; search for something rarer]")
        lines += _incomplete(search.complete)
        where = f" in files named `{excerpt(pattern)}`" if pattern != "*" else ""
        nothing = f"no line contains `{excerpt(text)}`{where}"
        return Output("\n".join(lines) or nothing, untrusted=True)


def _page(name: str, lines: Lines) -> str:
    """The lines, with a head that names their numbers and an end that names the next ones."""
    if lines.total == 0:
        return f"{name} is empty"
    if not lines.texts and lines.total is not None:
        raise ToolError(f"{name} has only {lines.total:,} lines")
    of = f"{lines.total:,}" if lines.total is not None else "many"
    head = f"{name}, lines {lines.first}-{lines.last} of {of}:"
    more = [] if lines.total == lines.last else [f"[continue with start={lines.last + 1}]"]
    return "\n".join([head, *lines.texts, *more])


def _entry(entry: os.DirEntry[str]) -> str:
    name = printable(entry.name)
    if entry.is_dir(follow_symlinks=False):
        return f"{name}/"
    if entry.is_symlink():
        return f"{name} (link)"
    if not entry.is_file():
        return f"{name} (not a plain file)"
    return f"{name} {byte_count(entry.stat(follow_symlinks=False).st_size)}"


def _incomplete(complete: bool) -> Iterable[str]:
    return [] if complete else ["[stopped: there are too many files; search a smaller folder]"]
