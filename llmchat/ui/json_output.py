"""The one way in which commands print JSON. What they print: docs/json.md."""

from typing import Any

import msgspec

from llmchat.output.terminal_text import json_for
from llmchat.settings import World


def print_json(world: World, value: Any, *, compact: bool = False) -> None:
    """Print a value as JSON on stdout. compact: on one line; otherwise indented."""
    text = msgspec.json.encode(value).decode() if compact else pretty_json(value)
    print(json_for(world.stdout, text), file=world.stdout, flush=True)


def pretty_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
