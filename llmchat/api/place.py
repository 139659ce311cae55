"""The World of a Python program: its folders, environment and streams."""

from llmchat import plugins
from llmchat.settings import World


def here() -> World:
    """The world of this process, as it is now."""
    world = World.real()
    plugins.configure(world.env)
    return world
