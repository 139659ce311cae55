"""Confine this process for good, before foreign code runs in it. Needs no privilege.

Limits of memory, time, file size and open files (setrlimit), and Landlock: files are readable where
a list says so, and writable in one folder. Kernels before 5.13 do not have Landlock. `system_calls`
closes the rest. Imports the standard library only.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Iterable

_LIBC = ctypes.CDLL(None, use_errno=True)
_SET_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
_KILL = 9


def limit(memory: int, seconds: int, file_size: int) -> None:
    """Set limits that the process cannot raise again."""
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def die_with_parent() -> None:
    _checked(_LIBC.prctl(_SET_DEATH_SIGNAL, _KILL, 0, 0, 0))


def drop_privileges() -> None:
    """Give up every capability, as of root, and the way to new ones."""
    _checked(_LIBC.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    header = struct.pack("Ii", 0x20080522, 0)
    _checked(_LIBC.capset(header, struct.pack("6I", *[0] * 6)))


# Landlock: the same numbers on all architectures (linux/landlock.h).
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
# Rights by version of the interface: 13 at first, then REFER, TRUNCATE and IOCTL_DEV.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_NET = 0b11
_SCOPES = 0b11


def landlock_version() -> int:
    """The version of Landlock's interface here; 0 where the kernel has none."""
    return max(int(_LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), 1)), 0)


def confine_files(
    readable: Iterable[str], listable: Iterable[str], writable: Iterable[str]
) -> None:
    """Close all files but these folders and files, with what is below them, where the kernel can.

    listable: folders whose names may be listed. TCP and signals to others are closed as well.
    """
    version = landlock_version()
    if not version:
        return
    handled = _RIGHTS.get(version, (1 << 16) - 1)
    # A kernel takes only the fields that it knows.
    fields = (handled, _NET if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    rules = struct.pack("3Q", *fields)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _checked(_LIBC.syscall(_CREATE, rules, ctypes.c_size_t(len(rules)), 0))
    for paths, rights in ((readable, _READ), (listable, _READ_DIR), (writable, handled)):
        for path in paths:
            _allow(ruleset, path, rights & handled)
    _checked(_LIBC.syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _OF_FILES
    try:
        rule = struct.pack("=Qi", rights, opened)
        _checked(_LIBC.syscall(_ADD, ruleset, 1, rule, 0))
    finally:
        os.close(opened)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
