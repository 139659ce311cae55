"""A filter of system calls (seccomp) for this process, for good. Imports the standard library only.

It refuses what reaches out of the process: other processes and programs, sockets, signals, the
memory of others, objects that outlive it, and what Landlock leaves open: modes, owners, times and
attributes of files. What is not named here stays allowed.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
_GET_SECCOMP, _SET_SECCOMP, _BY_FILTER = 21, 22, 2


class Calls(NamedTuple):
    """Numbers of system calls on an architecture, and its number in audit.h."""

    audit: int
    clone: int
    kill: int
    tgkill: int
    prlimit64: int
    socketpair: int
    prctl: int
    fcntl: int
    ioctl: int
    refused: tuple[int, ...]
    ignored: tuple[int, ...]
    attributes: tuple[int, ...]


# The same on all architectures: pidfd_send_signal, pidfd_open, pidfd_getfd, the three of io_uring,
# which could do all the rest.
_NEW = (424, 434, 438, 425, 426, 427)
_X86_64 = Calls(
    audit=0xC000003E, clone=56, kill=62, tgkill=234, prlimit64=302, socketpair=53, prctl=157,
    fcntl=72, ioctl=16,
    refused=(
        *_NEW,
        57, 58, 59, 322,  # fork, vfork, execve, execveat
        200, 129, 297,  # tkill, rt_sigqueueinfo, rt_tgsigqueueinfo
        101, 310, 311, 312,  # ptrace, process_vm_readv, process_vm_writev, kcmp
        41, 42,  # socket, connect
        29, 68, 64, 240, 319,  # shmget, msgget, semget, mq_open, memfd_create
        272, 308,  # unshare, setns
        321, 248, 249, 250,  # bpf, add_key, request_key, keyctl
        298, 323,  # perf_event_open, userfaultfd
        203, 141, 144, 142, 314, 251,  # sched_set*, setpriority, ioprio_set
        76,  # truncate
    ),
    # chmod, fchmod, fchmodat, fchmodat2, chown, fchown, lchown, fchownat, utime, utimes, futimesat,
    # utimensat
    ignored=(90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261, 280),
    # setxattr, lsetxattr, fsetxattr, setxattrat, removexattr and its like, file_setattr
    attributes=(188, 189, 190, 463, 197, 198, 199, 466, 469),
)  # fmt: skip
_AARCH64 = Calls(
    audit=0xC00000B7, clone=220, kill=129, tgkill=131, prlimit64=261, socketpair=199, prctl=167,
    fcntl=25, ioctl=29,
    refused=(
        *_NEW, 221, 281, 130, 138, 240, 117, 270, 271, 272, 198, 203, 194, 186, 190, 180, 279, 97,
        268, 280, 217, 218, 219, 241, 282, 122, 140, 119, 118, 274, 30, 45,
    ),
    ignored=(52, 53, 452, 54, 55, 88),
    attributes=(5, 6, 7, 463, 14, 15, 16, 466, 469),
)  # fmt: skip
_ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _AARCH64}
_CLONE3 = 435
_CLONE_THREAD = 0x10000
_SOCK_STREAM = 1
# Options of prctl, fcntl and ioctl that undo the death with the parent, or make the kernel send a
# signal to whoever is named.
_PR_SET_PDEATHSIG = 1
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902

_ALLOW, _ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
# Classic BPF: load a word, mask it, jump if equal, greater or equal or a bit is set, return.
_LOAD, _AND, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_X32 = 0x40000000


def can_confine() -> bool:
    """Whether this kernel and architecture have the filter."""
    return platform.machine() in _ARCHITECTURES and _LIBC.prctl(_GET_SECCOMP, 0, 0, 0, 0) >= 0


def confine_calls() -> None:
    """Filter the calls of this process. Needs no_new_privs. Raises OSError."""
    program = b"".join(_filter(_ARCHITECTURES[platform.machine()], os.getpid()))
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    if _LIBC.prctl(_SET_SECCOMP, _BY_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls was not accepted")


def _filter(calls: Calls, own: int) -> Iterator[bytes]:
    """The instructions. Each call that is named here returns; all others are allowed."""
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_EQUAL, calls.audit, 1, 0)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER)
    # The calls of x32 have these bits in their numbers.
    yield _instruction(_AT_LEAST, _X32, 0, 1)
    yield _error(errno.EPERM)
    yield from _always(calls.refused, errno.EPERM)
    # glibc then uses clone, whose flags a filter can read.
    yield from _always((_CLONE3,), errno.ENOSYS)
    # Copying a file sets its mode and times: that must not fail.
    yield from _always(calls.ignored, 0)
    yield from _always(calls.attributes, errno.ENOTSUP)
    yield from _only(calls.clone, _FIRST, [_instruction(_HAS_BIT, _CLONE_THREAD, 0, 1)])
    itself = _instruction(_EQUAL, own, 0, 1)
    yield from _only(calls.kill, _FIRST, [itself])
    yield from _only(calls.tgkill, _FIRST, [itself])
    yield from _only(calls.prlimit64, _FIRST, [_instruction(_EQUAL, 0, 1, 0), itself])
    # A socket pair for datagrams could send to any socket with a name.
    stream = [_instruction(_AND, 0xF), _instruction(_EQUAL, _SOCK_STREAM, 0, 1)]
    yield from _only(calls.socketpair, _SECOND, stream)
    yield from _only(calls.prctl, _FIRST, _none_of(_PR_SET_PDEATHSIG))
    yield from _only(calls.fcntl, _SECOND, _none_of(_F_SETOWN, _F_SETSIG, _F_SETOWN_EX))
    yield from _only(calls.ioctl, _SECOND, _none_of(_FIOSETOWN, _SIOCSPGRP))
    yield _instruction(_RETURN, _ALLOW)


def _always(numbers: Iterable[int], error: int) -> Iterator[bytes]:
    for number in numbers:
        yield _instruction(_EQUAL, number, 0, 1)
        yield _error(error)


def _only(number: int, argument: int, test: list[bytes]) -> Iterator[bytes]:
    """One call, allowed only if a test of an argument goes on to the next instruction."""
    allow = _instruction(_RETURN, _ALLOW)
    body = [_instruction(_LOAD, argument), *test, allow, _error(errno.EPERM)]
    yield _instruction(_EQUAL, number, 0, len(body))
    yield from body


def _none_of(*values: int) -> list[bytes]:
    """A test for `_only`: the argument is none of these values."""
    last = len(values)
    return [_instruction(_EQUAL, value, last - place, 0) for place, value in enumerate(values)]


def _error(number: int) -> bytes:
    return _instruction(_RETURN, _ERROR | number)


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)
