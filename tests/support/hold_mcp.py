"""Holds MCP servers open, as a chat does, until a signal or a line on stdin.

python hold_mcp.py FOLDER BEHAVIOUR|URL…
"""

import os
import sys
from pathlib import Path

from llmchat.process.signals import orderly_end
from llmchat.tools.mcp import Server
from support.mcp_clients import call, connected, entry


def main(home: str, *behaviours: str) -> None:
    servers = {f"s{number}": _server(one) for number, one in enumerate(behaviours)}
    with orderly_end(), connected(Path(home), **servers) as running:
        print("ready", flush=True)
        command = sys.stdin.readline().strip()
        if command == "hang":
            print("hanging", flush=True)
            call(running, "hang", "s0")
        if command == "error":
            raise RuntimeError("a bug")


def _server(behaviour: str) -> Server:
    """One that behaves so, or the one at an address."""
    if behaviour.startswith("http"):
        return Server(url=behaviour)
    return entry(behaviour, MARK=os.environ["MARK"])


if __name__ == "__main__":
    main(*sys.argv[1:])
