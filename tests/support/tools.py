"""Small tools for tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from llmchat.tools import Output

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass
class SmallTool:
    """Answers with `work(arguments)`, and remembers the arguments of each call."""

    name: str = "echo"
    group: str = "echo"
    origin: str = ""
    description: str = "Repeat the text. It is only a test."
    parameters: dict[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {"text": {"type": "string"}}}
    )
    read_only: bool = True
    work: Callable[[dict[str, Any]], str] = lambda arguments: str(arguments.get("text", ""))
    calls: list[dict[str, Any]] = field(default_factory=list)

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        self.calls.append(arguments)
        return Output(self.work(arguments))
