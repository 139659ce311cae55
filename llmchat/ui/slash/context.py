"""Commands for what the model is given: context, pin, unpin, drop, compact."""

from collections.abc import Generator

import msgspec

from llmchat.chat import Event
from llmchat.conversation import Mark
from llmchat.errors import UsageError
from llmchat.ui import status
from llmchat.ui.slash.registry import Answer, command, number_of
from llmchat.ui.state import Talk


@command(
    "context",
    "[--json]",
    "Show each message with its tokens, and whether it is sent to the model.",
    aliases=("tokens",),
)
def context(talk: Talk, rest: str) -> Answer:
    window = talk.chat.look_ahead()
    if rest in ("--json", "json"):
        talk.say(
            msgspec.json.encode(
                {name: getattr(window, name) for name in ("ledger", "tokens", "limit", "reserve")}
            ).decode()
        )
        return None
    width = talk.width()
    for entry in window.ledger:
        line = f"{entry.number or '':>3} {entry.role:9} {entry.tokens:>6,} {entry.fate:10} "
        talk.say(status.cut(line + entry.start, max(width - 1, 20)))
    for name, text in talk.attached.items():
        talk.say(
            status.cut(
                f"    file      {talk.chat.engine.count(text):>6,} with next  {name}",
                max(width - 1, 20),
            )
        )
    talk.say(
        f"{window.tokens:,} of {window.limit:,} tokens used, {window.reserve:,} kept for the answer; policy {talk.chat.preset.context.policy}"
    )
    return None


@command("pin", "n", "Always send message n and its turn; /context shows the numbers.")
def pin(talk: Talk, rest: str) -> Answer:
    return _mark(talk, rest, "/pin", "pinned", "are always sent")


@command("unpin", "n", "Undo a /pin or a /drop of message n.")
def unpin(talk: Talk, rest: str) -> Answer:
    return _mark(talk, rest, "/unpin", "", "are sent while there is room")


@command("drop", "n", "Stop sending message n and its turn; they stay in the history.")
def drop(talk: Talk, rest: str) -> Answer:
    return _mark(talk, rest, "/drop", "excluded", "are no longer sent")


def _mark(talk: Talk, rest: str, name: str, mark: Mark, effect: str) -> Answer:
    number = number_of(rest, name)
    message = talk.chat.mark(number, mark)
    status.recount(talk.chat)
    talk.say(
        status.cut(
            f"message {number} and its turn {effect}: {' '.join(message.text.split())}",
            talk.width() - 1,
        )
    )
    return None


@command("compact", "", "Replace the conversation so far with a summary, which you can edit.")
def compact(talk: Talk, rest: str) -> Answer:
    return _compacted(talk)


def _compacted(talk: Talk) -> Generator[Event]:
    before = talk.chat.look().tokens
    yield from talk.chat.compact()
    yield talk.chat.look_ahead()
    summary = talk.chat.conversation.summary
    if summary is None:
        raise UsageError("no summary was made")
    changed = talk.edit_line("summary", summary.text)
    if changed and changed.strip() != summary.text:
        talk.chat.set_summary(changed.strip())
    kept = talk.chat.conversation.summary
    after = talk.chat.engine.count(kept.text) if kept else 0
    talk.say(f"{before:,} tokens replaced by a summary of {after:,}")
