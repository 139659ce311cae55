"""Commands for what the model is given: context, pin, unpin, drop, compact."""

from collections.abc import Generator

import msgspec

from llmchat.chat import Event
from llmchat.conversation import Mark
from llmchat.errors import UsageError
from llmchat.ui import status
from llmchat.ui.commands.registry import Answer, command, number_of
from llmchat.ui.state import Talk


@command("context", "[--json]", "What the model is given of this chat: each message with its tokens, sent or not.", aliases=("tokens",))
def context(talk: Talk, rest: str) -> Answer:
    window = talk.chat.look_ahead()
    if rest in ("--json", "json"):
        talk.say(msgspec.json.encode({name: getattr(window, name) for name in ("ledger", "tokens", "limit", "reserve")}).decode())
        return None
    width = talk.width()
    for entry in window.ledger:
        line = f"{entry.number or '':>3} {entry.role:9} {entry.tokens:>6,} {entry.fate:10} "
        talk.say(status.cut(line + entry.start, max(width - 1, 20)))
    for name, text in talk.attached.items():
        talk.say(status.cut(f"    file      {talk.chat.engine.count(text):>6,} with next  {name}", max(width - 1, 20)))
    talk.say(
        f"{window.tokens:,} of {window.limit:,} tokens used, {window.reserve:,} kept for the answer; policy {talk.chat.preset.context.policy}"
    )
    return None


@command("pin", "n", "Always send message n, whatever else must go; /context numbers them.")
def pin(talk: Talk, rest: str) -> Answer:
    return _mark(talk, rest, "/pin", "pinned", "is always sent")


@command("unpin", "n", "Take a pin, or a /drop, back.")
def unpin(talk: Talk, rest: str) -> Answer:
    return _mark(talk, rest, "/unpin", "", "is sent while there is room")


@command("drop", "n", "Never send message n and what it belongs to; it stays in the history.")
def drop(talk: Talk, rest: str) -> Answer:
    return _mark(talk, rest, "/drop", "excluded", "is not sent any more")


def _mark(talk: Talk, rest: str, name: str, mark: Mark, effect: str) -> Answer:
    number = number_of(rest, name)
    message = talk.chat.mark(number, mark)
    talk.say(status.cut(f"message {number}, with the turn it belongs to, {effect}: {' '.join(message.text.split())}", talk.width() - 1))
    return None


@command("compact", "", "Put a summary in the place of all that was said, and show it for a change by hand.")
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
    talk.say(f"{before:,} tokens before; the summary has {talk.chat.engine.count(talk.chat.conversation.summary.text):,}")  # type: ignore[union-attr]
