"""Tool calls and their results as lines on a terminal. Text of a model is made harmless first."""

import json
from typing import Any

from llmchat.calls import Call
from llmchat.output.formatting import counted
from llmchat.output.terminal_text import harmless
from llmchat.tools.toolbox import Result

_LINE = 60


def started(call: Call, number: int) -> str:
    """A call on one line: `tool 3: files_read(path="a.txt")`; long arguments are shortened."""
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in call.arguments.items())
    kind = f"tool {number}" if number else "action"
    return harmless(f"{kind}: {call.name}({arguments})")


def is_whole(call: Call) -> bool:
    """Whether the line of a call shows all of its arguments as they are."""
    return all(len(text := _json(one)) <= _LINE and "\\n" not in text
               for one in call.arguments.values())  # fmt: skip


def finished(result: Result) -> str:
    """What became of a call, on one line."""
    if result.error:
        return f"→ {harmless(result.error)}"
    length = len(result.whole or result.text)
    cut = f", cut to {counted(len(result.text), 'character')}" if result.whole else ""
    return f"→ {counted(length, 'character')} in {result.seconds:.1f} s{cut}"


def all_arguments(call: Call) -> list[str]:
    """The whole call: nothing that would run is hidden. A text of several lines is a block."""
    lines = [harmless(call.name)]
    for name, value in call.arguments.items():
        text = value if isinstance(value, str) and "\n" in value else _json(value)
        first, *rest = harmless(text).split("\n")
        head = f"  {harmless(name)}: "
        lines += [f"{head}{first}"] if not rest else [head.rstrip(), *_indented([first, *rest])]
    return lines


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    text = _json(value)
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"
