"""The tool `calculator`: exact arithmetic, functions, percentages and units.

Nothing is evaluated as code: a parser of its own reads the expression, and every number is bounded
in size, so that each call ends in milliseconds.
"""

from threading import Event
from typing import Any

from llmchat.tools import Output, Tool, ToolSettings
from llmchat.tools.calculator.parser import calculate
from llmchat.tools.calculator.spelling import spelled


def tools(settings: ToolSettings) -> list[Tool]:
    return [Calculator()]


class Calculator:
    """Small models cannot multiply, so this does."""

    group = "calculator"
    name = "calculator"
    origin = ""
    description = (
        "Calculate exactly and convert units. Examples: 2^64 - 1; 15% of 80; sqrt(2) * pi; "
        "60 mph to km/h; mean(3, 4, 8); 9.9 > 9.11"
    )
    parameters = {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    }
    read_only = True

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        return Output(spelled(calculate(arguments["expression"])))
