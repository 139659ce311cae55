"""Finds the user whose program is at the other end of a TCP connection on this machine.

Reads the kernel's socket tables in /proc/net, which every user may read; Linux only.
"""

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
    """Whether the client belongs to the user who runs this process; False if unknown."""
    if not SUPPORTED or client is None or server is None:
        return False
    return owner(client, server, _table_lines()) == os.getuid()


def owner(client: Address, server: Address, table: Iterable[str]) -> int | None:
    """The user id of the client's socket in a table in the format of /proc/net/tcp; None if no
    program has the socket open."""
    notations = zip(_notations(client), _notations(server), strict=True)
    wanted = set(notations)
    for line in table:
        fields = line.split()
        # The kernel lists a closed socket with inode 0, and with root as its user.
        if len(fields) > 9 and (fields[1], fields[2]) in wanted and fields[9] != "0":
            return int(fields[7])
    return None


def _table_lines() -> Iterator[str]:
    for path in _TABLES:
        if path.exists():
            yield from path.read_text("ascii").splitlines()


def _notations(address: Address) -> tuple[str, str]:
    """The address as the tables list it: in its own family, and as IPv6 (a dual-stack socket lists
    IPv4 addresses in IPv6 notation)."""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    wide = ip if ip.version == 6 else ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)
    return _hex(ip.packed, address[1]), _hex(wide.packed, address[1])


def _hex(packed: bytes, port: int) -> str:
    """The tables print each four bytes of an address as a number in the machine's byte order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
