"""MCP servers: programs and services whose tools a model can call, through the official SDK.

`load_servers` reads what the user listed, `connect` starts them. Nothing else is ever started.
"""

from llmchat.tools.mcp.config import Server, config_files, load_config, load_servers
from llmchat.tools.mcp.servers import Limits, McpServers, McpTool, connect

__all__ = [
    "Limits",
    "McpServers",
    "McpTool",
    "Server",
    "config_files",
    "connect",
    "load_config",
    "load_servers",
]
