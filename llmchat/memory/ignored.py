"""What the `.gitignore` files of a folder leave out, as git reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_NAME = ".gitignore"
# More than any person writes.
_MOST_BYTES = 1_000_000


class Rules(Struct, frozen=True):
    """The patterns that hold in a folder: those of its own file, then those of the folders above.

    patterns: each with the length of the path that it counts from.
    """

    patterns: "tuple[tuple[int, GitIgnoreSpec], ...]" = ()

    def below(self, folder: Path) -> "Rules":
        """The rules within a folder."""
        found = _patterns(folder / _NAME)
        return Rules(((_prefix(folder), found), *self.patterns)) if found else self

    def leave_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a path is ignored. The nearest file with a matching pattern decides."""
        for length, spec in self.patterns:
            name = path[length:].lstrip("/") + ("/" if is_folder else "")
            decided = spec.check_file(name).include
            if decided is not None:
                return decided
        return False


def rules_above(folder: Path) -> Rules:
    """The rules of a folder's repository for what is in it; none outside of a repository.

    None either where they ignore the folder itself: whoever names it wants it.
    """
    rules = Rules()
    for parent in _from_top(folder.resolve()):
        if parent == folder.resolve():
            break
        rules = rules.below(parent)
    return Rules() if rules.leave_out(str(folder.resolve()), is_folder=True) else rules


def _from_top(folder: Path) -> Iterator[Path]:
    """The folders from the top of a repository down to this one; nothing without a repository."""
    line = [folder, *folder.parents]
    tops = [number for number, one in enumerate(line) if (one / ".git").exists()]
    if tops:
        yield from reversed(line[: tops[0] + 1])


def _prefix(folder: Path) -> int:
    return len(str(folder))


def _patterns(file: Path) -> "GitIgnoreSpec | None":
    """The patterns of a file; None if there is none that can be read."""
    try:
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            return None
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    return _spec(lines)


def _spec(lines: list[str]) -> "GitIgnoreSpec":
    """The patterns of lines; git skips those that are invalid."""
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return GitIgnoreSpec.from_lines(filter(_is_valid, lines))


def _is_valid(line: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
