"""Print lists and facts as tables for people, or as JSON for programs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from llmchat.history.export import when
from llmchat.hub import report
from llmchat.models.facts import ModelFacts
from llmchat.models.running import kind_lines
from llmchat.output.formatting import byte_count
from llmchat.output.terminal_text import fit_for, harmless
from llmchat.settings import World
from llmchat.ui.json_output import print_json


def rows(
    world: World,
    table: Sequence[Mapping[str, Any] | Struct],
    columns: Sequence[str],
    *,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Print a table with these columns.

    json: print all fields of every row, as one list; quiet: print the first column only, one
    value a line.
    """
    if json:
        print_json(world, table)
    elif quiet:
        _print_lines(world, (str(_field(row, columns[0])) for row in table))
    elif world.pretty:
        grid = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in table:
            grid.add_row(*(harmless(cell) for cell in _cells(row, columns)))
        # Users write titles and snippets: they may contain [markup], :emoji: or numbers.
        Console(file=world.stdout, markup=False, emoji=False, highlight=False).print(grid)
    else:
        _print_lines(world, ("\t".join(_cells(row, columns)) for row in table))


def _print_lines(world: World, lines: Iterable[str]) -> None:
    for line in lines:
        print(fit_for(world.stdout, line), file=world.stdout)


def _cells(row: Mapping[str, Any] | Struct, columns: Sequence[str]) -> list[str]:
    return [_cell(name, _field(row, name)) for name in columns]


def facts(world: World, values: Mapping[str, Any], *, json: bool = False) -> None:
    """Print one name and value a line, without empty values."""
    if json:
        return print_json(world, values)
    for name, value in values.items():
        if value not in (None, "", [], {}):
            print(fit_for(world.stdout, f"{name:18} {_flat(value)}"), file=world.stdout)


def _field(row: Mapping[str, Any] | Struct, name: str) -> Any:
    return row[name] if isinstance(row, Mapping) else getattr(row, name)


def model_facts(world: World, known: ModelFacts, session: str = "") -> None:
    """Print the facts of a model, with readable sizes, dates and counts."""
    facts(world, _readable(msgspec.to_builtins(known)) | {"session": session})
    for index, line in enumerate(kind_lines(known.kinds)):
        print(fit_for(world.stdout, f"{'' if index else 'kinds':18} {line}"), file=world.stdout)


def _readable(known: Mapping[str, Any]) -> dict[str, Any]:
    copy, trained = known["prepared"], known.get("trained_context")
    return dict(known) | {
        "files": [
            f"{name} ({byte_count(count, decimals=0)})" for name, count in known["files"].items()
        ],
        "parameters": report.count(known["parameters"]) if known["parameters"] else "",
        "context": {
            name: f"{value:,}" if name == "tokens" else value
            for name, value in known["context"].items()
        },
        "trained_context": f"{trained:,} tokens" if trained else "",
        "prepared": f"{copy['folder']} ({byte_count(copy['size'], decimals=0)})" if copy else "",
        "kinds": [],
        "bits": f"{known['bits']:.2f} a weight" if known["bits"] else "",
        "memory": byte_count(known["memory"]) if known["memory"] else "",
        "pulled": "yes" if known["pulled"] else "no",
        "used": when(known["used"]) if known["used"] else "",
    }


def notes(world: World, lines: Sequence[str]) -> None:
    """Print notes about a list on stderr."""
    for line in lines:
        print(f"note: {line}", file=world.stderr)


def _cell(name: str, value: Any) -> str:
    if name == "size":
        return byte_count(value, decimals=0)
    if name == "updated":
        return when(value)
    return " ".join(_flat(value).split())


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items()) or "as the model"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
