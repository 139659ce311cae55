"""Changes one key of config.toml; the rest of the file, its comments and its order stay."""

from typing import Any

from llmchat.errors import UsageError
from llmchat.settings import World, checked_option, replace_text


def set_key(world: World, key: str, value: str) -> tuple[str, Any]:
    """Write a checked value; returns the key as the file has it, and the value."""
    import tomlkit

    known, checked = checked_option(key, value)
    document = _read(world)
    written = next((name for name in document if name.replace("-", "_") == known), known)
    document[written] = checked
    replace_text(world.config_file, tomlkit.dumps(document))
    return written, checked


def unset_key(world: World, key: str) -> bool:
    """Remove a key, also one that is not an option; returns whether it was there."""
    import tomlkit

    document = _read(world)
    known = key.replace("-", "_")
    written = [name for name in document if name.replace("-", "_") == known]
    for name in written:
        del document[name]
    if written:
        replace_text(world.config_file, tomlkit.dumps(document))
    return bool(written)


def _read(world: World) -> Any:
    import tomlkit
    from tomlkit.exceptions import ParseError

    path = world.config_file
    try:
        return tomlkit.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (ParseError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", "correct the file first") from error
