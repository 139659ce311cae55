"""Runs llmchat in a Python that hides from it what only POSIX has.

usage: python without_posix.py ARGUMENTS …

Other packages see the whole of Python. What is hidden is what Python lacks on Windows.
"""

import builtins
import sys
from types import ModuleType
from typing import Any

MODULES = {
    "fcntl", "termios", "tty", "pty", "resource", "pwd", "grp", "curses", "readline", "syslog",
}  # fmt: skip
NAMES = {
    "os": {
        "fork", "getuid", "geteuid", "getgid", "getegid", "getpgid", "killpg", "setsid", "nice",
        "uname", "statvfs", "posix_fallocate", "posix_fadvise", "mkfifo", "pipe2", "pread",
        "pwrite", "chown", "getloadavg", "sched_getaffinity", "sysconf", "ttyname", "openpty",
        "memfd_create", "sendfile", "waitid", "WNOHANG", "O_PATH", "O_NOFOLLOW", "O_DIRECTORY",
        "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY",
    },
    "signal": {
        "SIGHUP", "SIGKILL", "SIGCHLD", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGPIPE",
        "SIGWINCH", "SIGALRM", "alarm", "setitimer", "pthread_sigmask", "sigwait", "sigtimedwait",
    },
    "socket": {"AF_UNIX"},
    "select": {"poll", "epoll"},
    "mmap": {"MAP_PRIVATE", "MAP_ANONYMOUS", "PROT_READ", "PROT_WRITE"},
}  # fmt: skip


class _Portable(ModuleType):
    """A module without some of its names."""

    def __init__(self, module: ModuleType, hidden: set[str]):
        super().__init__(module.__name__)
        self.__dict__.update({k: v for k, v in vars(module).items() if k not in hidden})


def hide() -> None:
    whole = builtins.__import__
    portable = {name: _Portable(whole(name), hidden) for name, hidden in NAMES.items()}

    def import_portable(name: str, globals_: Any = None, *rest: Any, **named: Any) -> Any:
        importer = str((globals_ or {}).get("__name__", ""))
        if importer.split(".")[0] != "llmchat":
            return whole(name, globals_, *rest, **named)
        if name.split(".")[0] in MODULES:
            raise ModuleNotFoundError(f"{importer} imports {name}, which only POSIX has")
        return portable.get(name) or whole(name, globals_, *rest, **named)

    builtins.__import__ = import_portable


if __name__ == "__main__":
    hide()
    from llmchat.cli import main

    sys.exit(main(sys.argv[1:]))
