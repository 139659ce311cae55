"""Ask the user for permission to run a tool call."""

from collections.abc import Callable
from typing import TextIO

from llmchat.calls import Call
from llmchat.errors import shortened
from llmchat.output.terminal_text import harmless
from llmchat.settings import World
from llmchat.tools import Tool
from llmchat.tools.permission import Ask, Reply, rule_for
from llmchat.ui import printing, tool_lines
from llmchat.ui.terminal_modes import for_a_question

# Lines of arguments that are shown before the user asks for the rest.
_MOST_LINES = 40


def asker(world: World, width: Callable[[], int], stream: TextIO | None = None) -> Ask:
    """A function that shows a call with its arguments and asks for permission on a terminal."""

    def ask(call: Call, tool: Tool) -> Reply:
        return _Question(world, stream or world.stdout, width()).ask(call, tool)

    return ask


class _Question:
    def __init__(self, world: World, stream: TextIO, width: int):
        self._world, self._stream, self._width = world, stream, width

    def ask(self, call: Call, tool: Tool) -> Reply:
        """The end of the input is a no; another word asks again.

        The line of the call is printed already; a call that does not fit it is shown whole.
        """
        lines = [] if tool_lines.is_whole(call) else tool_lines.all_arguments(call)
        self._print(lines[:_MOST_LINES])
        self._print_choices(call, tool, hidden=max(0, len(lines) - _MOST_LINES))
        while True:
            line = self._read()
            if line.strip() == "v":
                self._print(lines[_MOST_LINES:])
            elif (reply := parse_reply(line)) is not None:
                return reply

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            printing.print_text(self._world, line, self._width, self._stream)

    def _print_choices(self, call: Call, tool: Tool, hidden: int) -> None:
        name = harmless(tool.name)
        for_ever = "always allow exactly this call" if rule_for(call, tool).arguments else (
            f"always allow {name}"
        )  # fmt: skip
        if tool.origin:
            for_ever += f" of {shortened(harmless(tool.origin))}"
        choices = f"y once · a {name} in this session · A {for_ever} · n [reason]"
        if hidden:
            choices += f" · v the other {hidden:,} lines"
        printing.print_note(self._world, choices, self._width, self._stream)

    def _read(self) -> str:
        """A line that was typed after the question: earlier keys must not answer it."""
        print("run it? ", end="", file=self._stream, flush=True)
        # What was typed before is no answer, and the stream of an answer hides what is typed.
        with for_a_question(self._world.stdin):
            return self._world.stdin.readline()


def parse_reply(line: str) -> Reply | None:
    """A typed answer; None for one that means nothing."""
    text = line.strip()
    answers = {"y": "once", "yes": "once", "a": "session", "A": "always"}
    if text in answers:
        return Reply(answers[text])  # type: ignore[arg-type]
    word, _, reason = text.partition(" ")
    if word.lower().rstrip(",:") in ("n", "no") or not line:
        return Reply("no", reason.strip())
    return None
