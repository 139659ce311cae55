"""Changes one key of config.toml; the rest of the file, its comments and its order stay."""

from typing import Any

from llmchat.errors import UsageError
from llmchat.settings import World, checked_option


def set_key(world: World, key: str, value: str) -> tuple[str, Any]:
    """Write a checked value; returns the key as the file has it, and the value."""
    import tomlkit

    known, checked = checked_option(key, value)
    document = _read(world)
    written = next((name for name in document if name.replace("-", "_") == known), known)
    document[written] = checked
    _write(world, tomlkit.dumps(document))
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
        _write(world, tomlkit.dumps(document))
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


def _write(world: World, text: str) -> None:
    """Replace the file in one step, so that a full disk leaves the old one."""
    path = world.config_file
    path.parent.mkdir(parents=True, exist_ok=True)
    # A symbolic link, such as one to a dotfiles repo, stays: its target is replaced.
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(text, "utf-8")
    fresh.replace(target)
