"""The slash commands of the REPL. Importing this package registers them all."""

from llmchat.ui.slash import (  # noqa: F401
    code,
    context,
    conversation,
    docs,
    memory,
    recall,
    role,
    sessions,
    settings,
    show,
    structure,
    theme,
    tools,
    web,
)
from llmchat.ui.slash.registry import Answer, Command, LeaveRepl, parse, registry

__all__ = ["Answer", "Command", "LeaveRepl", "parse", "registry"]
