"""Writes the files of a client: a copy of each first, then all of them."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from llmchat.connect.merge import merged_text
from llmchat.connect.setup import Part
from llmchat.errors import UsageError
from llmchat.settings import replace_text


class Change(Struct, frozen=True):
    """What happened to a file. copy: of its text before; changed: False if it had the settings."""

    path: Path
    changed: bool
    copy: Path | None = None


def write(parts: Sequence[Part], *, secret: bool) -> list[Change]:
    """Merge the settings into their files; an existing file is copied first.

    secret: they hold a key, so only their owner may read the files. Raises UsageError, before
    anything is written, for a file that cannot be changed without losing something.
    """
    texts = [(part.path, _new_text(part, part.path)) for part in parts if part.path]
    return [_replace(path, text, secret=secret) for path, text in texts]


def _new_text(part: Part, path: Path) -> str:
    if not path.exists():
        return part.text
    try:
        before = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "nothing was changed") from error
    return merged_text(before, part.file, part.settings, str(path))


def _replace(path: Path, text: str, *, secret: bool) -> Change:
    target = path.resolve()
    if target.exists() and target.read_text("utf-8") == text:
        return Change(path, changed=False)
    copy = _copied(target) if target.exists() else None
    replace_text(target, text, private=secret)
    return Change(path, changed=True, copy=copy)


def _copied(path: Path) -> Path:
    """A copy of a file beside it, under a name that is free."""
    for number in itertools.count(1):
        copy = path.with_name(f"{path.name}.bak{'' if number == 1 else number}")
        if not copy.exists():
            shutil.copy2(path, copy)
            return copy
    raise AssertionError("the numbers do not end")
