"""The supported clients: one TOML file each, with the settings that make it use the server."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llmchat.errors import UsageError, did_you_mean
from llmchat.parse_guard import read_toml

SHIPPED = Path(str(files("llmchat.connect"))) / "clients"
Protocol = Literal["chat", "messages", "responses"]
Kind = Literal["json", "yaml", "toml", "python", "shell"]
PLACEHOLDER = re.compile(r"\{(\w+)\}")


class ConfigFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What one file of a client must contain.

    path: where the file is: `~` is the user's home, and the key names the platform as Python's
    `sys.platform` does, `other` for the rest; empty for text that belongs into no file of the
    client. variable: an environment variable that names another folder for it. settings: with
    `{model}` and other fields of Values. defaults: for keys that the file does not have. entry: the
    key by which an entry of a list is recognised. text: instead of settings, for `python` and
    `shell`; placeholders become literals of that language.
    """

    kind: Kind
    path: dict[str, str] = {}
    variable: str = ""
    settings: Any = None
    defaults: dict[str, Any] = {}
    entry: str = "name"
    text: str = ""


class Client(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A program that can use the server.

    window: tokens of the smallest context window that its own instructions leave room in. tools:
    whether it requires tools. run: the command that uses the settings. source: where its settings
    are documented. tested: version and day of a test; empty if only its documentation was read.
    notes: for the user.
    """

    name: str = ""
    title: str
    protocol: Protocol
    window: int
    tools: bool
    run: str = ""
    source: str
    tested: str = ""
    notes: str = ""
    files: tuple[ConfigFile, ...]


class Values(Struct, frozen=True):
    """What is filled in. url: of the API, with `/v1`; root: without. output: tokens that an answer
    may have. home: of the user. key: `none` for a server without keys.
    """

    model: str
    url: str
    root: str
    window: int
    output: int
    home: str
    key: str = "none"


def client_names() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def all_clients() -> list[Client]:
    """Every client, by name."""
    return [_read(SHIPPED / f"{name}.toml") for name in client_names()]


def find_client(name: str) -> Client:
    """Raises UsageError with the names that come close."""
    names = client_names()
    if name not in names:
        hint = did_you_mean(name, names) or f"`llmchat connect` lists them: {', '.join(names)}"
        raise UsageError(f"no client is called `{name}`", hint)
    return _read(SHIPPED / f"{name}.toml")


def _read(path: Path) -> Client:
    return msgspec.convert({**read_toml(path), "name": path.stem}, Client)


def filled(settings: Any, known: Mapping[str, Any]) -> Any:
    """The settings with values in place of their placeholders, also in keys.

    A text that is a placeholder alone becomes the value itself, which may be a number.
    """
    if isinstance(settings, dict):
        return {str(filled(key, known)): filled(value, known) for key, value in settings.items()}
    if isinstance(settings, list):
        return [filled(value, known) for value in settings]
    if not isinstance(settings, str):
        return settings
    if alone := PLACEHOLDER.fullmatch(settings):
        return known[alone[1]]
    return PLACEHOLDER.sub(lambda found: str(known[found[1]]), settings)
