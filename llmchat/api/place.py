"""Where a Python program runs: its folders, environment and streams."""

from llmchat.settings import World


def here() -> World:
    """The world of this process, as it is now."""
    return World.real()
