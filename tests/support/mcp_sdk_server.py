"""A server that is written with the official SDK, of version 2 or 1: stdio, or HTTP on a port.

    python mcp_sdk_server.py RECORD [PORT]

RECORD is the file that gets a line when a call is cancelled.
"""

import sys
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel

try:
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as App
except ImportError:
    from mcp.server.fastmcp import Context  # type: ignore[no-redef]
    from mcp.server.fastmcp import FastMCP as App  # type: ignore[no-redef]

RECORD, PORT = Path(sys.argv[1]), int((sys.argv[2:] or ["0"])[0])
OLD = App.__name__ == "FastMCP"
app: Any = App("sdk", **({"host": "127.0.0.1", "port": PORT} if OLD and PORT else {}))


class Secret(BaseModel):
    password: str


@app.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@app.tool()
async def hang(ctx: Context) -> str:  # type: ignore[type-arg]
    """Report progress, and never return."""
    try:
        await ctx.report_progress(1, 2)
        await anyio.sleep_forever()
    finally:
        RECORD.write_text("cancelled", "utf-8")
    return ""


@app.tool()
async def ask(ctx: Context) -> str:  # type: ignore[type-arg]
    """Ask the user for a password."""
    return str(await ctx.elicit("Your password?", Secret))


@app.tool()
async def grow(ctx: Context) -> str:  # type: ignore[type-arg]
    """Get another tool."""
    app.add_tool(add, name="grown")
    if OLD:
        await ctx.session.send_tool_list_changed()
    else:
        await ctx.notify_tools_changed()
    return "grown"


if __name__ == "__main__":
    if not PORT:
        app.run()
    elif OLD:
        app.run("streamable-http")
    else:
        app.run("streamable-http", host="127.0.0.1", port=PORT)
