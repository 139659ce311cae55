"""Merges settings into the text of a client's own file, and keeps what else is in it."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from llmchat.connect.clients import ConfigFile
from llmchat.errors import UsageError


def rendered(settings: Any, kind: str) -> str:
    """Settings as a new file of this kind has them."""
    return _WRITERS[kind](settings)


def merged_text(text: str, file: ConfigFile, settings: Any, name: str) -> str:
    """The text of a file with the settings in it; the same text if it has them already.

    Tables are merged, entries of lists are recognised by `file.entry`, and all else stays. Raises
    UsageError for a text that cannot be parsed, or has something else where a setting belongs.
    """
    old = _parsed(text, file.kind, name)
    if old is None:
        return text + rendered(with_defaults(settings, file, {}), file.kind)
    new = deepcopy(old)
    _check_shape(new, settings, name)
    settings = with_defaults(settings, file, old)
    merge(new, settings, file.entry, name)
    if rendered(new, file.kind) == rendered(old, file.kind):
        return text
    longer = _appended(text, old, new, settings) if file.kind == "yaml" else ""
    return longer or rendered(new, file.kind)


def with_defaults(settings: Any, file: ConfigFile, old: Mapping[str, Any]) -> Any:
    """The settings with those defaults of the file that `old` does not have."""
    missing = {key: value for key, value in file.defaults.items() if key not in old}
    return missing | settings if missing else settings


def merge(old: Any, new: Any, entry: str, name: str) -> None:
    """Put `new` into `old`, a table or a list of the same shape."""
    if isinstance(new, dict):
        for key, value in new.items():
            if isinstance(value, dict | list) and old.get(key):
                _check_shape(old[key], value, f"`{key}` in {name}")
                merge(old[key], value, entry, name)
            else:
                old[key] = value
    elif all(isinstance(one, dict) for one in new):
        for one in new:
            _merge_entry(old, one, entry, name)
    else:
        old[:] = new


def _merge_entry(entries: list[Any], new: dict[str, Any], entry: str, name: str) -> None:
    for old in entries:
        if isinstance(old, dict) and old.get(entry) == new[entry]:
            return merge(old, new, entry, name)
    entries.append(new)


def _check_shape(old: Any, new: Any, what: str) -> None:
    shape = dict if isinstance(new, dict) else list
    if not isinstance(old, shape):
        kind = "a table" if shape is dict else "a list"
        raise UsageError(f"{what} is not {kind}", "correct it first; nothing was changed")


def _parsed(text: str, kind: str, name: str) -> Any:
    """What a file says; None for an empty one."""
    import yaml  # type: ignore[import-untyped]
    from tomlkit.exceptions import TOMLKitError

    if not text.strip():
        return None
    try:
        return _READERS[kind](text)
    except (ValueError, yaml.YAMLError, TOMLKitError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{name} cannot be read as {kind.upper()}: {reason}",
            "a file with errors, or JSON with comments, is not changed: add the settings yourself,"
            " `llmchat connect` prints them without --write",
        ) from error


def _appended(text: str, old: Any, new: Any, settings: Any) -> str:
    """A YAML text with the settings at its end, so that comments stay; "" if that is not `new`."""
    import yaml

    if isinstance(old, dict) and set(old) & set(settings):
        return ""  # a key that repeats: parsers differ in which one they read
    longer = text.rstrip("\n") + "\n" + rendered(settings, "yaml")
    try:
        return longer if yaml.safe_load(longer) == new else ""
    except yaml.YAMLError:
        return ""


def _read_toml(text: str) -> Any:
    import tomlkit

    return tomlkit.parse(text)


def _read_yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _write_json(settings: Any) -> str:
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def _write_yaml(settings: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return text


def _write_toml(settings: Any) -> str:
    import tomlkit

    return tomlkit.dumps(settings)


_READERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads, "yaml": _read_yaml, "toml": _read_toml,
}  # fmt: skip
_WRITERS: dict[str, Callable[[Any], str]] = {
    "json": _write_json, "yaml": _write_yaml, "toml": _write_toml,
}  # fmt: skip
