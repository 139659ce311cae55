"""A role that was read from a file of another program."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.parse_guard import reading
from llmchat.settings.sampling import SAMPLING_SETTINGS
from llmchat.settings.types import check


class Found(Struct):
    """A role as the table of its TOML file.

    notes: what was left out. model: what the file named; whether it is one of llmchat's is for the
    caller to see.
    """

    name: str
    table: dict[str, Any]
    source: Path
    notes: list[str] = []
    model: str = ""


def yaml_of(text: str, path: Path) -> Any:
    """The value of a YAML text, which can only hold plain values.

    Raises UsageError for one with aliases, which can stand for more text than memory holds.
    """
    import yaml  # type: ignore[import-untyped]

    with reading(path, UsageError, "it is not valid YAML"):
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UsageError(f"{path.name} has YAML aliases", "replace them by their values")
        return yaml.safe_load(text)


def slug(name: str) -> str:
    """A name that a file can have: `Grammar Genie` becomes `grammar-genie`."""
    return re.sub(r"[^\w.-]+", "-", name.strip()).strip("-.").lower()


def sampling_of(options: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The sampling parameters among the options of another program; notes name the others."""
    kept = {}
    for name, value in options.items():
        if value is None:
            continue
        try:
            kept[name] = check(value, SAMPLING_SETTINGS[name], name)
        except KeyError:
            notes.append(f"`{name}` is left out: llmchat has no such parameter")
        except UsageError as error:
            notes.append(f"`{name}` is left out: {error.message}")
    return kept


def left_out(table: Mapping[str, Any], known: tuple[str, ...], notes: list[str]) -> None:
    """Note the keys of a file that have no place in a role."""
    for key, value in table.items():
        if key not in known and value not in (None, "", [], {}):
            notes.append(f"`{key}` is left out: a role has no place for it")


def text_of(value: Any, key: str, path: Path) -> str:
    """A text in a file; "" where it is missing. Raises UsageError for any other value."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UsageError(f"{path}: `{key}` is not a text")
    return value


def table_of(**parts: Any) -> dict[str, Any]:
    """A table without its empty values, in the order of a role's file."""
    return {name: value for name, value in parts.items() if value}
