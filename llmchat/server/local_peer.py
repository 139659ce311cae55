"""Whose program is at the other end of a TCP connection on this machine, by the kernel's own table (Linux alone has one that all may read)."""

import ipaddress
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SUPPORTED = sys.platform == "linux"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
Address = tuple[str, int]


def is_same_user(client: Address | None, server: Address | None) -> bool:
    """Whether the client of this connection is a program of the user who runs this one; False where nobody can tell."""
    if not SUPPORTED or client is None or server is None:
        return False
    return owner(client, server, _lines()) == os.getuid()


def owner(client: Address, server: Address, table: Iterable[str]) -> int | None:
    """The user id of the client's socket, as /proc/net/tcp lists it; None where no program has it open any more."""
    wanted = {
        (f"{one}", f"{other}")
        for one, other in zip(_spelled(client), _spelled(server), strict=True)
    }
    for line in table:
        fields = line.split()
        # A socket that its program has closed has no inode, and its user is root.
        if len(fields) > 9 and (fields[1], fields[2]) in wanted and fields[9] != "0":
            return int(fields[7])
    return None


def _lines() -> Iterator[str]:
    for path in _TABLES:
        if path.exists():
            yield from path.read_text("ascii").splitlines()


def _spelled(address: Address) -> tuple[str, str]:
    """An address in the two ways in which the tables write it: by its own, and IPv4 inside IPv6 for a socket that can do both."""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    wide = ip if ip.version == 6 else ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)
    return _hex(ip.packed, address[1]), _hex(wide.packed, address[1])


def _hex(packed: bytes, port: int) -> str:
    """The table prints each four bytes of an address as one number of the machine's own byte order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
