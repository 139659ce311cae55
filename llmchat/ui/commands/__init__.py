"""The slash commands of the REPL. Importing this package registers them all."""

from llmchat.ui.commands import chatting, context, look, sessions, settings
from llmchat.ui.commands.registry import Answer, Command, Leave, parse, registry

__all__ = ["Answer", "Command", "Leave", "chatting", "context", "look", "parse", "registry", "sessions", "settings"]
