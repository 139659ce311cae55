"""A yes-or-no question to the person who types into the REPL."""

from llmchat.output.terminal_text import harmless
from llmchat.ui.state import ReplState
from llmchat.ui.terminal_modes import for_a_question


def confirmed(state: ReplState, question: str) -> bool:
    """Whether the answer is yes; anything else, and the end of input, is no.

    What was typed before the question does not answer it.
    """
    world = state.world
    print(f"{harmless(question)} [y/N] ", end="", file=world.stdout, flush=True)
    with for_a_question(world.stdin):
        return world.stdin.readline().strip().lower() in ("y", "yes")
