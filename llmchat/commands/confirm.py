"""A yes-or-no question to the person at the terminal."""

from typing import TextIO

from llmchat.output.terminal_text import harmless
from llmchat.settings import World


def confirmed(world: World, question: str, stream: TextIO | None = None) -> bool:
    """Whether the answer is yes; anything else, and the end of input, is no.

    stream: where the question is printed, by default stdout.
    """
    out = stream or world.stdout
    print(f"{harmless(question)} [y/N] ", end="", file=out, flush=True)
    return world.stdin.readline().strip().lower() in ("y", "yes")
