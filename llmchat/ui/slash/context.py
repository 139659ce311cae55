"""Commands for what the model is given: context, pin, unpin, drop, compact."""

from collections.abc import Generator

import msgspec

from llmchat.chat import Event
from llmchat.conversation import Mark
from llmchat.errors import UsageError
from llmchat.ui import status
from llmchat.ui.slash.registry import Answer, command, number_of
from llmchat.ui.state import ReplState


@command(
    "context",
    "[--json]",
    "Show each message with its tokens, and whether it is sent to the model.",
    aliases=("tokens",),
)
def context(state: ReplState, rest: str) -> Answer:
    window = state.chat.look_ahead()
    if rest in ("--json", "json"):
        state.print(
            msgspec.json.encode(
                {name: getattr(window, name) for name in ("ledger", "tokens", "limit", "reserve")}
            ).decode()
        )
        return None
    width = state.width()
    for entry in window.ledger:
        line = f"{entry.number or '':>3} {entry.role:9} {entry.tokens:>6,} {entry.fate:10} "
        state.print(status.cut(line + entry.start, max(width - 1, 20)))
    for name, text in state.attached.items():
        state.print(
            status.cut(
                f"    file      {state.chat.engine.count(text):>6,} with next  {name}",
                max(width - 1, 20),
            )
        )
    state.print(
        f"{window.tokens:,} of {window.limit:,} tokens used, {window.reserve:,} kept for the answer; policy {state.chat.preset.context.policy}"
    )
    return None


@command("pin", "n", "Always send message n and its turn; /context shows the numbers.")
def pin(state: ReplState, rest: str) -> Answer:
    return _mark(state, rest, "/pin", "pinned", "are always sent")


@command("unpin", "n", "Undo a /pin or a /drop of message n.")
def unpin(state: ReplState, rest: str) -> Answer:
    return _mark(state, rest, "/unpin", "", "are sent while there is room")


@command("drop", "n", "Stop sending message n and its turn; they stay in the history.")
def drop(state: ReplState, rest: str) -> Answer:
    return _mark(state, rest, "/drop", "excluded", "are no longer sent")


def _mark(state: ReplState, rest: str, name: str, mark: Mark, effect: str) -> Answer:
    number = number_of(rest, name)
    message = state.chat.mark(number, mark)
    status.recount(state.chat)
    state.print(
        status.cut(
            f"message {number} and its turn {effect}: {' '.join(message.text.split())}",
            state.width() - 1,
        )
    )
    return None


@command("compact", "", "Replace the conversation so far with a summary, which you can edit.")
def compact(state: ReplState, rest: str) -> Answer:
    return _compacted(state)


def _compacted(state: ReplState) -> Generator[Event]:
    before = state.chat.look().tokens
    yield from state.chat.compact()
    yield state.chat.look_ahead()
    summary = state.chat.conversation.summary
    if summary is None:
        raise UsageError("no summary was made")
    changed = state.edit_line("summary", summary.text)
    if changed and changed.strip() != summary.text:
        state.chat.set_summary(changed.strip())
    kept = state.chat.conversation.summary
    after = state.chat.engine.count(kept.text) if kept else 0
    state.print(f"{before:,} tokens replaced by a summary of {after:,}")
