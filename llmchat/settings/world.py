"""The world a command runs in, as one value: folders, environment, streams, arguments and clock.

`main` makes the real one and hands it down; tests make their own. No other module reads
os.environ, sys.stdin, sys.stdout, sys.stderr or the clock (tests/test_structure.py).
"""

import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.process.streams import MOST, read_all, read_file
from llmchat.process.users import is_ours


class Screen:
    """How the terminal of a world is drawn, which a chat may change.

    theme: the name of a theme; empty for that of the settings.
    """

    def __init__(self) -> None:
        self.theme = ""


class World(Struct, frozen=True):
    """Folders, environment and streams of a command, its arguments, and the time of day.

    now: seconds since the epoch. arguments: the command line without the program's name. screen:
    how the terminal is drawn; copies of a world share it.
    """

    config: Path
    data: Path
    state: Path
    cache: Path
    env: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    arguments: tuple[str, ...] = ()
    now: Callable[[], float] = time.time
    screen: Screen = msgspec.field(default_factory=Screen)

    @classmethod
    def real(cls) -> "World":
        """The world of this process."""
        from platformdirs import PlatformDirs

        places = PlatformDirs("llmchat", appauthor=False)
        return cls(
            config=places.user_config_path,
            data=places.user_data_path,
            state=places.user_state_path,
            cache=places.user_cache_path,
            env=os.environ,
            stdin=sys.stdin,
            stdout=sys.stdout,
            stderr=sys.stderr,
        )

    def in_offline_mode(self) -> "World":
        """The same world in the Hub's offline mode."""
        return msgspec.structs.replace(self, env={**self.env, "HF_HUB_OFFLINE": "1"})

    def read_text(self, name: str, most: int = MOST) -> str:
        """The text of a file, or of stdin for `-`.

        Raises UsageError for a file that cannot be read or is larger than `most` bytes.
        """
        try:
            if name == "-":
                return read_all(self.stdin, most)
            return read_file(Path(name).expanduser(), name, most)
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{name} cannot be read: {reason}") from error

    @property
    def interactive(self) -> bool:
        """Whether a person can answer a question: stdin and stdout are terminals."""
        return self.stdin.isatty() and self.stdout.isatty()

    @property
    def pretty(self) -> bool:
        """Whether stdout may carry colour and layout."""
        if self.env.get("NO_COLOR") or self.env.get("TERM") == "dumb":
            return False
        return self.stdout.isatty() or bool(self.env.get("FORCE_COLOR"))

    @property
    def columns(self) -> int:
        """The width of the terminal: COLUMNS, or the size of stdout's terminal, or 80."""
        given = self.env.get("COLUMNS", "")
        if given.isdigit() and int(given):
            return int(given)
        try:
            return os.get_terminal_size(self.stdout.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    @property
    def home(self) -> Path:
        """The folder of the user."""
        return Path(self.env.get("HOME") or "~").expanduser()

    @property
    def config_home(self) -> Path:
        """Where other programs keep the user's settings."""
        return Path(self.env.get("XDG_CONFIG_HOME") or self.home / ".config")

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def history_file(self) -> Path:
        return self.data / "history.db"

    @property
    def own_presets(self) -> Path:
        """The folder of the user's own presets."""
        return self.config / "presets"

    @property
    def own_roles(self) -> Path:
        """The folder of the user's own roles."""
        return self.config / "roles"

    @property
    def own_themes(self) -> Path:
        """The folder of the user's own themes."""
        return self.config / "themes"


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter; close to others one that exists."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _close_to_others(folder, 0o700)


def private_file(path: Path) -> None:
    """Make an empty file that only its owner may read; close to others one that exists."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    _close_to_others(path, 0o600)


def replace_text(path: Path, text: str, *, private: bool = False) -> None:
    """Replace a file in one step, so that a full disk leaves the old one; its mode stays.

    private: only its owner may read the new one.
    """
    # A symbolic link, such as one to a dotfiles repo, stays: its target is replaced.
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    if private:
        private_file(fresh)
    fresh.write_text(text, "utf-8")
    if target.exists() and not private:
        fresh.chmod(stat.S_IMODE(target.stat().st_mode))
    fresh.replace(target)


def _close_to_others(path: Path, mode: int) -> None:
    facts = path.stat()
    if is_ours(facts) and stat.S_IMODE(facts.st_mode) & 0o077:
        path.chmod(mode)
