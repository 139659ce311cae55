"""Lists and facts for people, and lists as JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from llmchat.formatting import byte_count
from llmchat.history.export import when
from llmchat.hub import report
from llmchat.models.facts import ModelFacts
from llmchat.settings import World
from llmchat.terminal_text import fit_for, harmless
from llmchat.ui.json_output import print_json


def rows(
    world: World,
    table: Sequence[Mapping[str, Any] | Struct],
    columns: Sequence[str],
    *,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """A table with these columns. json: all of every row, as one list; quiet: the first column alone, a value a line."""
    if json:
        print_json(world, table)
    elif quiet:
        for row in table:
            print(fit_for(world.stdout, str(_field(row, columns[0]))), file=world.stdout)
    elif world.pretty:
        grid = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in table:
            grid.add_row(*(harmless(_shown(name, _field(row, name))) for name in columns))
        # Titles and snippets are people's words: no [markup], no :emoji:, no colours of numbers.
        Console(file=world.stdout, markup=False, emoji=False, highlight=False).print(grid)
    else:
        for row in table:
            print(
                fit_for(
                    world.stdout, "\t".join(_shown(name, _field(row, name)) for name in columns)
                ),
                file=world.stdout,
            )


def facts(world: World, values: Mapping[str, Any], *, json: bool = False) -> None:
    """One name and value a line; empty values are left out."""
    if json:
        return print_json(world, values)
    for name, value in values.items():
        if value not in (None, "", [], {}):
            print(fit_for(world.stdout, f"{name:18} {_flat(value)}"), file=world.stdout)


def _field(row: Mapping[str, Any] | Struct, name: str) -> Any:
    return row[name] if isinstance(row, Mapping) else getattr(row, name)


def model_facts(world: World, known: ModelFacts, session: str = "") -> None:
    """The facts of a model, with sizes, dates and counts as people read them."""
    facts(world, _readable(msgspec.to_builtins(known)) | {"session": session})


def _readable(known: Mapping[str, Any]) -> dict[str, Any]:
    copy, own = known["prepared"], known.get("trained_context")
    return dict(known) | {
        "files": [
            f"{name} ({byte_count(count, decimals=0)})" for name, count in known["files"].items()
        ],
        "parameters": report.count(known["parameters"]) if known["parameters"] else "",
        "context": {
            name: f"{value:,}" if name == "tokens" else value
            for name, value in known["context"].items()
        },
        "trained_context": f"{own:,} tokens" if own else "",
        "prepared": f"{copy['folder']} ({byte_count(copy['size'], decimals=0)})" if copy else "",
        "pulled": "yes" if known["pulled"] else "no",
        "used": when(known["used"]) if known["used"] else "",
    }


def notes(world: World, lines: Sequence[str]) -> None:
    """What a person should know beside a list, on stderr."""
    for line in lines:
        print(f"note: {line}", file=world.stderr)


def _shown(name: str, value: Any) -> str:
    return (
        byte_count(value, decimals=0)
        if name == "size"
        else when(value)
        if name == "updated"
        else " ".join(_flat(value).split())
    )


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items()) or "as the model"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
