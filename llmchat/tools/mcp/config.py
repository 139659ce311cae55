"""MCP servers as the user lists them: the `mcpServers` JSON that other clients read, too."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import LlmchatError, UsageError, any_of
from llmchat.parse_guard import reading, shown
from llmchat.settings import World

_LARGEST = 1_000_000
_HTTP = ("http", "streamable-http", "streamableHttp")
_STDIO = ("stdio", "local")
# Keys of other clients that llmchat needs not follow: it asks before a call, whatever they allow.
_OF_OTHERS = {
    "alwaysAllow", "autoApprove", "trust", "timeout", "description", "name", "note", "notes",
    "icon", "version", "tags", "gallery", "disabledByUser", "fromGalleryId",
}  # fmt: skip
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Server(Struct, frozen=True, kw_only=True):
    """A server in a file: a `command` to start, or the `url` of one that runs.

    include, exclude: names of its tools that are offered (all, if empty) and that are not.
    ignored: keys of the file that mean nothing here. file: where it is listed.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    disabled: bool = False
    ignored: tuple[str, ...] = ()
    file: str = ""

    @property
    def origin(self) -> str:
        """What identifies it: its command line or address as the file has them, without a query."""
        if self.url:
            scheme, _, rest = self.url.partition("://")
            place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
            return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"
        return shlex.join([self.command, *self.args])

    def expanded(self, env: Mapping[str, str]) -> "Server":
        """The server with `${VAR}`, `${env:VAR}` and `${VAR:-default}` replaced.

        Raises UsageError for a variable that is not set.
        """
        return Server(
            command=expand(self.command, env),
            args=tuple(expand(argument, env) for argument in self.args),
            env={name: expand(value, env) for name, value in self.env.items()},
            cwd=expand(self.cwd, env),
            url=expand(self.url, env),
            headers={name: expand(value, env) for name, value in self.headers.items()},
            include=self.include,
            exclude=self.exclude,
        )


def config_files(world: World, flags: Sequence[str] = ()) -> list[Path]:
    """The files to read: `mcp.json` in the config folder, if there is one, and those of --mcp."""
    own = world.config / "mcp.json"
    return [*([own] if own.is_file() else []), *(Path(flag).expanduser() for flag in flags)]


def load_servers(world: World, flags: Sequence[str] = ()) -> dict[str, Server]:
    """The servers of all files by name. One of --mcp replaces one of `mcp.json`.

    Raises UsageError for a file that cannot be used, and for a name in two files of --mcp.
    """
    own, found = world.config / "mcp.json", dict[str, Server]()
    for path in config_files(world, flags):
        for name, server in load_config(path).items():
            other = found.get(name)
            if other is not None and other.file != str(own):
                raise UsageError(
                    f"MCP server `{name}` is in both {other.file} and {path}",
                    "rename it in one of them",
                )
            found[name] = server
    return found


def load_config(path: Path) -> dict[str, Server]:
    """The servers of a file by name, disabled ones too.

    Raises UsageError, naming the file and the server, for anything that is not as it must be.
    """
    with reading(path, UsageError, "see `MCP servers` in docs/tools.md for an example"):
        table = json.loads(_text(path), object_pairs_hook=_without_duplicates)
    if not isinstance(table, dict) or not isinstance(table.get("mcpServers"), dict):
        raise UsageError(f"{path}: there is no object `mcpServers` in it", _example(table))
    return {name: _server(name, entry, path) for name, entry in table["mcpServers"].items()}


def expand(text: str, env: Mapping[str, str]) -> str:
    """The text with variables of the environment in place of `${VAR}`."""

    def value(match: re.Match[str]) -> str:
        name = _NAME.fullmatch(match[1])
        if name is None:
            raise UsageError(f"`{shown(match[0])}` is not a variable of the environment")
        found = env.get(name[1], name[2]) or name[2] or ""
        if name[1] not in env and name[2] is None:
            raise UsageError(f"the variable `{name[1]}` is not set", f"export {name[1]}=…")
        return found

    return _VARIABLE.sub(value, text)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST // 1_000_000} MB")
    return data.decode("utf-8-sig")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{shown(twice)}` is in it twice")
    return table


def _example(table: object) -> str:
    if isinstance(table, dict) and isinstance(table.get("servers"), dict):
        return "rename `servers` to `mcpServers`"
    return '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}'


class _Entry:
    """Reads one server's object, key by key; what nobody read is unknown."""

    def __init__(self, name: str, entry: object, path: Path):
        self.where = f"{path}: MCP server `{shown(name)}`"
        if not name.strip() or not name.isprintable() or len(name) > 64:
            raise self.wrong("must have a name of 1 to 64 printable characters")
        if not isinstance(entry, dict):
            raise self.wrong("must be an object")
        self.entry, self.read = entry, set[str]()

    def wrong(self, what: str) -> LlmchatError:
        return UsageError(f"{self.where} {what}")

    def get(self, key: str, kind: type, phrase: str) -> Any:
        """The value of a key, or an empty one where it is missing or null."""
        self.read.add(key)
        value = self.entry.get(key)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            raise self.wrong(f"needs {phrase} as its `{key}`")
        return value

    def text(self, key: str) -> str:
        value: str = self.get(key, str, "text")
        if "\0" in value:
            raise self.wrong(f"has a NUL character in its `{key}`")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.get(key, list, "a list of texts")
        if not all(isinstance(value, str) and "\0" not in value for value in values):
            raise self.wrong(f"needs a list of texts as its `{key}`")
        return tuple(values)

    def pairs(self, key: str) -> dict[str, str]:
        """Names and texts. Numbers and booleans become text, as other clients do."""
        table = self.get(key, dict, "an object of texts")
        if not all(isinstance(value, str | int | float) for value in table.values()):
            raise self.wrong(f"needs an object of texts as its `{key}`")
        pairs = {name: _as_text(value) for name, value in table.items()}
        if any("\0" in part or "\n" in name for name, part in pairs.items()) or "" in pairs:
            raise self.wrong(f"has an invalid character in its `{key}`")
        return pairs

    @property
    def unknown(self) -> tuple[str, ...]:
        return tuple(key for key in self.entry if key not in self.read | _OF_OTHERS)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _server(name: str, entry: object, path: Path) -> Server:
    found = _Entry(name, entry, path)
    kind, command = found.text("type") or found.text("transport"), found.text("command")
    url = found.text("url") or found.text("httpUrl")
    _check_kind(found, kind, command, url)
    server = Server(
        command=command,
        args=found.texts("args"),
        env=found.pairs("env"),
        cwd=found.text("cwd"),
        url=url,
        headers=found.pairs("headers"),
        include=found.texts("includeTools"),
        exclude=found.texts("excludeTools") + found.texts("disabledTools"),
        disabled=_disabled(found),
        file=str(path),
    )
    return replace(server, ignored=found.unknown)


def _disabled(found: _Entry) -> bool:
    off = found.get("disabled", bool, "true or false")
    on = found.get("enabled", bool, "true or false") or found.entry.get("enabled") is None
    return off or not on


def _check_kind(found: _Entry, kind: str, command: str, url: str) -> None:
    if kind == "sse":
        raise UsageError(
            f"{found.where} uses SSE, which MCP has replaced",
            "use the server's streamable HTTP address, with `type` set to `http`",
        )
    if kind not in ("", *_STDIO, *_HTTP):
        raise found.wrong(f"has the unknown type `{shown(kind)}`; use {any_of(['stdio', 'http'])}")
    if bool(command) == bool(url):
        raise found.wrong("needs either `command` or `url`" if not url else "has two ways to start")
    if kind and (kind in _HTTP) != bool(url):
        raise found.wrong(f"has the type `{kind}` but no `{'command' if url else 'url'}`")
