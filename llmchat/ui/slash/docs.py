"""The command for the indexes that questions are searched in."""

from collections.abc import Iterable

from llmchat.memory.places import index_names
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState


def _complete(state: ReplState, word: str) -> Iterable[str]:
    return [*index_names(state.world), "off", *(f"off {name}" for name in state.documents.names)]


@command(
    "docs",
    "[NAME|off [NAME]]",
    "Search an index for each question, stop searching one or all, or list them.",
    complete=_complete,
)
def docs(state: ReplState, rest: str) -> Answer:
    word, _, name = rest.partition(" ")
    if word == "off":
        state.documents.stop(name.strip())
    elif rest:
        state.documents.use(rest)
    state.chat.search_docs(state.documents.named)
    used = ", ".join(state.documents.names)
    state.print(f"searched for each question: {used}" if used else "no documents are searched")
    unused = sorted({*index_names(state.world)} - {*state.documents.names})
    if not rest and unused:
        state.print(f"others: {', '.join(unused)}; `/docs NAME` searches one")
    elif not rest and not used:
        state.print("`llmchat index add NAME PATH` makes an index")
    return None
