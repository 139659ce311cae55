"""Confine this process for good: what the kernel lets it do, before foreign code runs in it.

Imports the standard library only. Three layers, none of which needs a privilege:
- limits of memory, time, file size and open files (setrlimit);
- a seccomp filter: no process, no program, no socket, no signal to another process, nothing that
  outlives the process;
- Landlock: files are readable where a list says so, and writable in one folder. Kernels before 5.13
  do not have it.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable

_LIBC = ctypes.CDLL(None, use_errno=True)
_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38
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


class Unsupported(Exception):
    """This machine cannot confine a process."""


# System calls by architecture: its audit number, then the calls that are refused.
_X86_64 = (
    0xC000003E,
    {
        "clone": 56, "clone3": 435, "kill": 62, "tgkill": 234, "prlimit64": 302, "socketpair": 53,
    },
    (
        57, 58, 59, 322,  # fork, vfork, execve, execveat
        200, 129, 297, 424, 434, 438,  # tkill, rt_sigqueueinfo and others, pidfd_*
        101, 310, 311, 312,  # ptrace, process_vm_readv and writev, kcmp
        41, 42,  # socket, connect
        425, 426, 427,  # io_uring, which could do all of this
        29, 68, 64, 240, 319,  # shmget, msgget, semget, mq_open, memfd_create
        272, 308,  # unshare, setns
        321, 248, 249, 250, 298, 323,  # bpf, keys, perf_event_open, userfaultfd
        203, 141, 144, 142,  # sched_setaffinity, setpriority, sched_setscheduler, _setparam
    ),
)  # fmt: skip
_AARCH64 = (
    0xC00000B7,
    {
        "clone": 220, "clone3": 435, "kill": 129, "tgkill": 131, "prlimit64": 261,
        "socketpair": 199,
    },
    (
        221, 281, 130, 138, 240, 424, 434, 438, 117, 270, 271, 272, 198, 203, 425, 426, 427,
        194, 186, 190, 180, 279, 97, 268, 280, 217, 218, 219, 241, 282, 122, 140, 119, 118,
    ),
)  # fmt: skip
_ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _AARCH64}
_CLONE_THREAD = 0x10000
_SOCK_STREAM = 1
_ALLOW, _REFUSE, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
# Classic BPF: load a word, mask it, jump if equal, greater or equal or a bit is set, return.
_LOAD, _AND, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_X32 = 0x40000000


def can_confine() -> bool:
    """Whether this kernel and architecture have the filter of system calls."""
    # PR_GET_SECCOMP fails where the kernel has none.
    return platform.machine() in _ARCHITECTURES and _LIBC.prctl(21, 0, 0, 0, 0) >= 0


def confine_calls() -> None:
    """Refuse system calls that reach outside of this process. Raises Unsupported."""
    if not can_confine():
        raise Unsupported(platform.machine())
    program = b"".join(_filter(*_ARCHITECTURES[platform.machine()], os.getpid()))
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    _checked(_LIBC.prctl(_SET_SECCOMP, 2, header, 0, 0))


def _filter(
    architecture: int, named: dict[str, int], refused: tuple[int, ...], own: int
) -> Iterable[bytes]:
    """The instructions of the filter. Each test that holds returns; all else is allowed."""
    no, yes = _instruction(_RETURN, _REFUSE | errno.EPERM), _instruction(_RETURN, _ALLOW)
    missing = _instruction(_RETURN, _REFUSE | errno.ENOSYS)
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_EQUAL, architecture, 1, 0)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER)
    yield _instruction(_AT_LEAST, _X32, 0, 1)
    yield no
    for number in refused:
        yield from (_instruction(_EQUAL, number, 0, 1), no)
    # glibc then uses clone, whose flags a filter can read.
    yield from (_instruction(_EQUAL, named["clone3"], 0, 1), missing)
    thread = _instruction(_HAS_BIT, _CLONE_THREAD, 0, 1)
    yield from _only_if(named["clone"], _FIRST, [thread], yes, no)
    itself = _instruction(_EQUAL, own, 0, 1)
    yield from _only_if(named["kill"], _FIRST, [itself], yes, no)
    yield from _only_if(named["tgkill"], _FIRST, [itself], yes, no)
    zero = [_instruction(_EQUAL, 0, 1, 0), itself]
    yield from _only_if(named["prlimit64"], _FIRST, zero, yes, no)
    # A socket pair for datagrams could send to any socket with a name.
    stream = [_instruction(_AND, 0xF), _instruction(_EQUAL, _SOCK_STREAM, 0, 1)]
    yield from _only_if(named["socketpair"], _SECOND, stream, yes, no)
    yield yes


def _only_if(
    number: int, argument: int, test: list[bytes], yes: bytes, no: bytes
) -> Iterable[bytes]:
    """One system call, allowed only if a test of an argument holds."""
    body = [_instruction(_LOAD, argument), *test, yes, no]
    yield _instruction(_EQUAL, number, 0, len(body))
    yield from body


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
