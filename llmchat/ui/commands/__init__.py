"""The slash commands of the REPL. Importing this package registers them all."""

from llmchat.ui.commands import chatting, code, context, look, sessions, settings
from llmchat.ui.commands.registry import Answer, Command, Leave, parse, registry

__all__ = ["Answer", "Command", "Leave", "chatting", "code", "context", "look", "parse", "registry", "sessions", "settings"]
