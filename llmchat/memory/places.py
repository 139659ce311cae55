"""Where indexes are on this machine, and what they may be called."""

import re
from pathlib import Path

from llmchat.errors import UsageError, did_you_mean
from llmchat.settings import World

_NAME = re.compile(r"[\w][\w.-]{0,63}")
_SUFFIX = ".sqlite"


def index_path(world: World, name: str) -> Path:
    """The file of an index. Raises UsageError for a name that is not one word."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"invalid name of an index: `{name}`", "use letters, digits, `-`, `_` and `.`"
        )
    return world.data / "indexes" / f"{name}{_SUFFIX}"


def existing_index(world: World, name: str) -> Path:
    """The file of an index that exists. Raises UsageError."""
    path = index_path(world, name)
    if not path.is_file():
        known = index_names(world)
        hint = did_you_mean(name, known) or f"`llmchat index add {name} PATH` makes it"
        raise UsageError(f"there is no index `{name}`", hint)
    return path


def index_names(world: World) -> list[str]:
    """The names of the indexes on this machine, sorted."""
    return sorted(path.stem for path in (world.data / "indexes").glob(f"*{_SUFFIX}"))


def delete_index(path: Path) -> None:
    """Delete the file of an index, and those that SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
