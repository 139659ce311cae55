"""Commands for what is sent to the model: context, pin, unpin, drop, compact."""

from collections.abc import Generator

import msgspec
from msgspec import UNSET

from llmchat.chat import Event
from llmchat.conversation import Mark
from llmchat.engines.capabilities import SavesCache, unwrap
from llmchat.errors import UsageError
from llmchat.found_passages import name_of
from llmchat.output.formatting import byte_count
from llmchat.ui import status
from llmchat.ui.slash.registry import Answer, command, number_of
from llmchat.ui.state import ReplState
from llmchat.window import LedgerEntry


@command(
    "context",
    "[--json]",
    "List the messages with their tokens, and whether they are sent to the model.",
    aliases=("tokens",),
)
def context(state: ReplState, rest: str) -> Answer:
    window = state.chat.next_window()
    if rest in ("--json", "json"):
        fields = ("ledger", "tokens", "limit", "reserve")
        state.print(msgspec.json.encode({name: getattr(window, name) for name in fields}).decode())
        return None
    width = max(state.width() - 1, 20)
    for entry in window.ledger:
        line = f"{_number(entry):>3} {entry.role:9} {entry.tokens:>6,} {entry.fate:10} "
        score = "" if entry.score is UNSET else f"{entry.score:.3g} "
        state.print(status.cut(line + score + entry.start, width))
    for name, text in state.attached.items():
        line = f"    file      {state.chat.engine.count(text):>6,} with next  {name}"
        state.print(status.cut(line, width))
    state.print(
        f"{window.tokens:,} of {window.limit:,} tokens used, {window.reserve:,} reserved for the"
        f" answer; policy {state.chat.preset.context.policy}"
    )
    if cached := _cached(state, window.tokens):
        state.print(cached)
    return None


def _cached(state: ReplState, tokens: int) -> str:
    """What these tokens take in the KV cache; empty where another program has it."""
    engine = unwrap(state.chat.engine)
    if not isinstance(engine, SavesCache) or not engine.token_bytes:
        return ""
    kind = "" if state.chat.preset.kv == "full" else f" as {state.chat.preset.kv}"
    return f"{byte_count(tokens * engine.token_bytes)} of KV cache{kind}"


def _number(entry: LedgerEntry) -> str:
    """The number of a message, or of a passage in it: `3.2`."""
    number = f"{entry.number or ''}"
    return number if entry.part is UNSET else f"{number}.{entry.part}"


@command(
    "pin",
    "n[.p]",
    "Always send message n and its turn, or its passage p; /context shows the numbers.",
)
def pin(state: ReplState, rest: str) -> Answer:
    return _mark(state, rest, "/pin", "pinned", "are always sent")


@command("unpin", "n[.p]", "Undo /pin or /drop for message n, or its passage p.")
def unpin(state: ReplState, rest: str) -> Answer:
    return _mark(state, rest, "/unpin", "", "are sent while there is room")


@command(
    "drop",
    "n[.p]",
    "Stop sending message n and its turn, or its passage p; they stay in the saved chat.",
)
def drop(state: ReplState, rest: str) -> Answer:
    return _mark(state, rest, "/drop", "excluded", "are no longer sent")


def _mark(state: ReplState, rest: str, name: str, mark: Mark, effect: str) -> Answer:
    word, dot, part = rest.partition(".")
    number = number_of(word, name)
    if dot:
        return _mark_passage(state, number, number_of(part, name), mark)
    message = state.chat.mark(number, mark)
    status.recount(state.chat)
    line = f"message {number} and its turn {effect}: {' '.join(message.text.split())}"
    state.print(status.cut(line, state.width() - 1))
    return None


_OF_PASSAGE: dict[Mark, str] = {
    "pinned": "is sent with every question",
    "": "is sent while its message is",
    "excluded": "is no longer sent or found in this chat",
}


def _mark_passage(state: ReplState, number: int, part: int, mark: Mark) -> Answer:
    passage = state.chat.mark_passage(number, part, mark)
    status.recount(state.chat)
    line = f"passage {number}.{part} {_OF_PASSAGE[mark]}: {name_of(passage)}"
    state.print(status.cut(line, state.width() - 1))
    return None


@command("compact", "", "Replace the conversation so far by a summary, which you can edit.")
def compact(state: ReplState, rest: str) -> Answer:
    return _compact(state)


def _compact(state: ReplState) -> Generator[Event]:
    before = state.chat.current_window().tokens
    yield from state.chat.compact()
    yield state.chat.next_window()
    summary = state.chat.conversation.summary
    if summary is None:
        raise UsageError("no summary was made")
    changed = state.edit_line("summary", summary.text)
    if changed and changed.strip() != summary.text:
        state.chat.set_summary(changed.strip())
    kept = state.chat.conversation.summary
    after = state.chat.engine.count(kept.text) if kept else 0
    state.print(f"{before:,} tokens replaced by a summary of {after:,}")
