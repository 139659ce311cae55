"""Commands for what is remembered of the user: remember, forget, memory."""

from collections.abc import Iterable

from llmchat.errors import UsageError, any_of
from llmchat.memory.facts import Fact, Facts
from llmchat.memory.of_chat import fitting
from llmchat.output.formatting import counted
from llmchat.settings.types import MemoryUse, choices
from llmchat.ui.slash.registry import Answer, command, number_of
from llmchat.ui.state import ReplState

_USES = choices(MemoryUse)


def _facts(state: ReplState) -> Facts:
    return state.chat.memory.facts or Facts.of(state.world)


def _numbers(state: ReplState, word: str) -> Iterable[tuple[str, str]]:
    return [(str(fact.id), fact.text) for fact in _facts(state).all()]


@command("remember", "TEXT", "Remember a fact about you for the chats to come.")
def remember(state: ReplState, rest: str) -> Answer:
    if not rest:
        raise UsageError("/remember takes a fact", "`/memory` lists what is remembered")
    fact = _facts(state).add(rest)
    state.print(f"remembered as {fact.id}: {fact.text}")
    state.print_note(_when_it_counts(state))
    return None


def _when_it_counts(state: ReplState) -> str:
    if state.chat.memory.use == "off":
        return (
            "memory is off: `/memory on` uses it in this chat,"
            " `llmchat config set memory on` in every chat"
        )
    return "it counts from the next chat on; `/memory on` reads it now"


@command("forget", "n|TEXT", "Forget a remembered fact; /memory numbers them.", complete=_numbers)
def forget(state: ReplState, rest: str) -> Answer:
    facts = _facts(state)
    (fact,) = facts.remove(_meant(facts, rest).id)
    state.print(f"forgotten: {fact.text}")
    # What was forgotten must not be sent again, even if the model reads its prompt again for it.
    state.chat.memory.read()
    return None


def _meant(facts: Facts, rest: str) -> Fact:
    """The fact of a number, or the only one that contains a text."""
    if rest.isdecimal():
        return facts.find(number_of(rest, "/forget"))
    found = [fact for fact in facts.all() if rest and rest.casefold() in fact.text.casefold()]
    if len(found) == 1:
        return found[0]
    if not rest:
        raise UsageError("/forget takes the number of a fact", "`/memory` numbers them")
    if not found:
        raise UsageError(f"no fact contains `{rest}`", "`/memory` lists them")
    numbers = any_of([str(fact.id) for fact in found])
    raise UsageError(f"{len(found)} facts contain `{rest}`", f"`/forget` takes {numbers}")


@command(
    "memory",
    "[on|off|propose]",
    "List what is remembered of you, or set whether chats use it; `propose` also lets the model"
    " propose facts when the chat ends.",
    complete=lambda state, word: _USES,
)
def memory(state: ReplState, rest: str) -> Answer:
    if rest and rest not in _USES:
        raise UsageError(f"/memory takes {any_of(_USES)}, not `{rest}`")
    chat_memory = state.chat.memory
    chat_memory.facts = _facts(state)
    for use in _USES:
        if rest == use:
            chat_memory.switch(use)  # type: ignore[arg-type]
    known = chat_memory.facts.all()
    for fact in known:
        state.print(f"{fact.id:>4}  {fact.text}")
    state.print(f"memory is {chat_memory.use}; {_extent(known)}")
    return None


def _extent(known: list[Fact]) -> str:
    sent = len(fitting(known))
    if sent == len(known):
        return counted(len(known), "fact")
    return f"the newest {sent} of {len(known)} facts fit; the tool `memory` finds the others"
