"""Reads roles: the user's own from the config folder, then the built-in ones."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from llmchat.errors import LlmchatError, ModelNotFound, UsageError, did_you_mean
from llmchat.parse_guard import read_toml, reason
from llmchat.roles.types import INPUT, Role, check_text, names_in
from llmchat.settings.sampling import SAMPLING_SETTINGS
from llmchat.settings.types import check
from llmchat.structure import Structure, from_schema
from llmchat.structure.arguments import parse

SHIPPED = Path(str(files("llmchat.roles"))) / "shipped"
OFF = "off"
_NAME = re.compile(r"\w[\w.-]{0,99}")
# Fields that the file's name and the command line give.
_NOT_IN_FILE = ("name", "spec")


def find_role(spec: str, own: Path | None = None, *, complete: bool = True) -> Role:
    """The role named by a text: `NAME`, or `NAME KEY=VALUE …`; NAME.toml with a `/` is a path.

    own: the folder of the user's roles. complete: raise UsageError for a name without a value.
    """
    name, given = _parsed(spec)
    role = read_role(path_of(name, own)).with_values(given)
    if complete:
        role.check_complete()
    return replace(role, spec=_spec(name, given))


def chosen_role(spec: str | None, own: Path | None = None, *, complete: bool = True) -> Role | None:
    """The same for an option; None where it is not given, or `off`."""
    if not spec or spec == OFF:
        return None
    return find_role(spec, own, complete=complete)


def names(own: Path | None = None) -> dict[str, Role]:
    """Every role by its name, sorted, without the user's invalid files (see `broken`)."""
    roles = [role for role in _all(own) if isinstance(role, Role)]
    return {role.name: role for role in sorted(roles, key=lambda role: role.name)}


def broken(own: Path | None = None) -> list[str]:
    """The error of each of the user's files that cannot be used."""
    return [role.message for role in _all(own) if isinstance(role, LlmchatError)]


def known_names(own: Path | None = None) -> list[str]:
    """The names of all roles, without reading their files."""
    return sorted(_files(own))


def path_of(name: str, own: Path | None = None) -> Path:
    """The file of a role. Raises ModelNotFound."""
    if _is_path(name):
        path = Path(name).expanduser()
        if path.is_file():
            return path.resolve()
        raise ModelNotFound(f"there is no role file {name}")
    known = _files(own)
    if name not in known:
        hint = did_you_mean(name, list(known)) or "`llmchat roles list` shows them"
        raise ModelNotFound(f"there is no role `{name}`", hint)
    return known[name]


def check_name(name: str) -> str:
    """A name that a new role can have. Raises UsageError."""
    if not _NAME.fullmatch(name) or name == OFF:
        raise UsageError(f"invalid role name `{name}`", "use letters, digits, `-`, `_` and `.`")
    return name


def read_role(path: Path) -> Role:
    """The role in a TOML file. Raises UsageError for an invalid one."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Reading a pipe or a device might never end.
        raise UsageError(f"{path} is not a regular file")
    try:
        table = read_toml(path)
    except FileNotFoundError as error:
        raise ModelNotFound(f"there is no role file {path}") from error
    return _checked(table, path)


def parse_role(text: str, path: Path) -> Role:
    """The role in a text that is to become the file `path`."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {reason(error)}") from error
    return _checked(table, path)


def _checked(table: dict[str, Any], path: Path) -> Role:
    try:
        return _role(table, path)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error


def _role(table: dict[str, Any], path: Path) -> Role:
    _check_keys(table)
    if "schema" in table:
        table["schema"] = _schema(table["schema"], path.parent)
    if isinstance(table.get("values"), dict):
        table["values"] = {name: _as_text(value) for name, value in table["values"].items()}
    try:
        role = msgspec.convert(table | {"name": path.stem, "spec": path.stem}, Role)
    except (msgspec.ValidationError, RecursionError, ValueError) as error:
        raise UsageError(reason(error)) from error
    _check_texts(role)
    return replace(role, sampling=_sampling(role.sampling))


def _check_keys(table: Mapping[str, Any]) -> None:
    known = [name for name in Role.__struct_fields__ if name not in _NOT_IN_FILE]
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"a role has {', '.join(known)}"
            raise UsageError(f"there is no key `{key}` in a role", hint)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_texts(role: Role) -> None:
    texts = {"system": role.system, "prompt": role.prompt}
    texts |= {f"turns[{index}]": turn for index, turn in enumerate(role.turns)}
    for key, text in texts.items():
        check_text(text, key)
        if key.startswith("turns") and not text.strip():
            raise UsageError(f"`{key}` is empty")
    if INPUT in names_in(role.system):
        raise UsageError(f"`system` contains ${INPUT}", "put the question into `prompt`")
    if INPUT in role.values:
        raise UsageError(f"`values` contains `{INPUT}`", "it is always the question")
    role.with_values(role.values)


def _sampling(written: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters, checked like flags."""
    checked = {}
    for name, value in written.items():
        if name not in SAMPLING_SETTINGS:
            hint = did_you_mean(name, list(SAMPLING_SETTINGS))
            raise UsageError(f"there is no sampling parameter `{name}`", hint)
        checked[name] = check(value, SAMPLING_SETTINGS[name], f"`sampling.{name}`")
    return checked


def _schema(written: Any, folder: Path) -> str:
    """A schema, as after `/schema` or a table, as a text that is valid in every folder."""
    if isinstance(written, dict):
        return f"schema {from_schema(written).source}"
    if not isinstance(written, str):
        raise UsageError("`schema` is not a text or a table")
    structure = parse(written, folder)
    if structure is None:
        return OFF
    return _in_every_folder(structure, written, folder)


def _in_every_folder(structure: Structure, written: str, folder: Path) -> str:
    if structure.kind == "grammar":
        name = written.strip().partition(" ")[2].strip()
        return f"grammar {(folder / Path(name).expanduser()).resolve()}"
    return f"{structure.kind} {structure.source}".strip()


def _parsed(spec: str) -> tuple[str, dict[str, str]]:
    """The name and the values of a text."""
    try:
        name, *rest = shlex.split(spec) or [""]
    except ValueError as error:
        raise UsageError(
            f"the role `{spec}` cannot be read: {str(error).lower()}",
            "quote a value of several words: 'NAME key=\"two words\"'",
        ) from error
    given = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(
                f"`{word}` after the role `{name}` is not KEY=VALUE",
                "quote a value of several words: 'NAME key=\"two words\"'",
            )
        given[key] = value
    return name, given


def _spec(name: str, given: Mapping[str, str]) -> str:
    """The text that finds a role again from any folder."""
    found = str(Path(name).expanduser().resolve()) if _is_path(name) else name
    return shlex.join([found, *(f"{key}={value}" for key, value in given.items())])


def _is_path(name: str) -> bool:
    return name.endswith(".toml") and "/" in name


def _files(own: Path | None) -> dict[str, Path]:
    """Name → file; the user's own files go before those of llmchat."""
    folders = [folder for folder in (SHIPPED, own) if folder and folder.is_dir()]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _all(own: Path | None) -> Iterator[Role | LlmchatError]:
    for path in _files(own).values():
        try:
            yield read_role(path)
        except LlmchatError as error:
            yield error
