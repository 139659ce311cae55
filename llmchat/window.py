"""Which part of a conversation the model is given. Nothing is dropped without a line in the ledger.

Trimming works on whole turns (a user message and its answer) and by tokens. A window that overflows is emptied down to a low-water mark,
not by just enough: the start then stays the same for many turns, and with it the KV cache of everything that follows. The function is
pure: it replays the conversation turn by turn, so the same conversation always gives the same window.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Counter
from llmchat.engines.bounded_count import count_within, far_over, surely_over
from llmchat.errors import ContextOverflow
from llmchat.presets.types import ContextPolicy, Preset
from llmchat.prompt import Prompt, PromptFormat, plain_text
from llmchat.settings.types import Policy

# Without a longest answer, this share of the window is kept free for one, but no more than so many tokens.
ANSWER_SHARE = 0.25
ANSWER_TOKENS = 1024
# However long an answer may be, this share of the window stays for the conversation.
PROMPT_SHARE = 0.25

Fate = Literal[
    "sent", "pinned", "attached", "dropped", "summarised", "excluded", "unanswered", "unasked"
]
SUMMARY_HEADING = "Summary of the conversation so far:"


class Entry(Struct, frozen=True):
    """One line of the ledger: a message, what it costs, and what happened to it.

    number: of the message among the spoken ones, from 1; 0 for system text and summary. Material that came with a message has its own line.
    """

    role: str
    """`system`, `user`, `assistant`, `tool` or `summary`."""
    tokens: int
    """Tokens that the message takes."""
    fate: Fate
    """What became of it: `sent`, `pinned` (always sent), `attached` (material that came with a
    message), `dropped`, `summarised`, `excluded`, `unanswered` or `unasked`.
    """
    start: str
    """Its first characters."""
    number: int = 0
    """Its number among the messages, from 1; 0 for system text and summary."""


class Window(Struct, frozen=True):
    """What is sent: the messages, `tokens` of the rendered prompt, out of `limit`, of which `reserve` are kept for the answer.

    left: messages that the policy has no room for; a summary that replaced them would stand for the first `covers` spoken messages.
    """

    messages: tuple[Message, ...]
    ledger: tuple[Entry, ...]
    tokens: int
    limit: int
    reserve: int
    left: tuple[Message, ...] = ()
    covers: int = 0

    @property
    def dropped(self) -> int:
        return sum(entry.fate == "dropped" for entry in self.ledger)

    @property
    def sent(self) -> int:
        """Messages that are sent, the system text and a summary among them."""
        return sum(entry.fate in ("sent", "pinned") for entry in self.ledger)


class _Turn(Struct, frozen=True):
    """A question and its answer. first: index of its first message among the spoken ones; fate: before anything is trimmed."""

    messages: tuple[Message, ...]
    tokens: int
    first: int
    fate: Fate = "sent"

    @property
    def end(self) -> int:
        return self.first + len(self.messages)


# A policy answers which turn is the first to be sent, given every turn, the room for turns in tokens, and its settings.
_Policy = Callable[[Sequence[_Turn], int, ContextPolicy], int]


def fit(
    conversation: Conversation, preset: Preset, engine: Counter, context: int, max_tokens: int
) -> tuple[Window, Prompt]:
    """The window for the next answer, in a model that holds `context` tokens, and the prompt that was counted.

    Raises ContextOverflow when the policy refuses to drop, and when what must be sent does not fit.
    """
    policy, form = preset.context, preset.format
    limit = min(policy.tokens, context) if policy.tokens else context
    reserve = (
        min(max_tokens, int(limit * (1 - PROMPT_SHARE)))
        if max_tokens
        else min(ANSWER_TOKENS, int(limit * ANSWER_SHARE))
    )
    system = _system(conversation)
    count = functools.partial(count_within, engine, limit=limit)
    fixed = _fixed(form, engine, system, limit)
    asked = _turns(
        conversation, lambda message: count(plain_text(message)), _overhead(form, engine)
    )
    pinned = [turn for turn in asked if turn.fate == "pinned"]
    turns = [turn for turn in asked if turn.fate == "sent"]
    room = limit - reserve - fixed - sum(turn.tokens for turn in pinned)
    start = _POLICIES[policy.policy](turns, room, policy)

    while True:
        sent = sorted((*pinned, *turns[start:]), key=lambda turn: turn.first)
        messages = (*system, *(message for turn in sent for message in _joined(turn.messages)))
        tokens = fixed + sum(turn.tokens for turn in sent)
        if not far_over(tokens, limit):
            prompt = form.render(messages)
            tokens = len(engine.encode(prompt))
            if tokens + reserve <= limit:
                break
        if policy.policy == "refuse":
            raise ContextOverflow(
                f"the conversation is {tokens:,} tokens; a window of {limit:,} holds {limit - reserve:,} beside the answer",
                "`/new` starts afresh; --context or another policy makes room",
            )
        if start == len(turns) - 1:
            raise ContextOverflow(
                f"the last message{' and what is pinned need' if pinned else ' needs'} {tokens:,} tokens; "
                f"a window of {limit:,} holds {limit - reserve:,} beside the answer",
                f"shorten it, widen the window with --context, or ask for less with --max-tokens{'; /unpin frees room' if pinned else ''}",
            )
        # The sum of the turns was an estimate, for pieces joined can be more tokens than apart; the count of the whole decides.
        start += 1
    left = tuple(message for turn in turns[:start] for message in turn.messages)
    covers = turns[start - 1].end if start else 0
    return Window(
        messages, _ledger(conversation, asked, sent, count), tokens, limit, reserve, left, covers
    ), prompt


def _fixed(form: PromptFormat, engine: Counter, system: tuple[Message, ...], limit: int) -> int:
    """Tokens that are sent whatever is left out: the system text, tools and what the format itself writes."""
    tokens = sum(count_within(engine, message.text, limit) for message in system)
    if not surely_over(tokens, limit):
        prompt = form.render((*system, Message("user", "")))
        tokens = count_within(engine, prompt.text, limit)
        if not surely_over(tokens, limit):
            return len(engine.encode(prompt))
    raise ContextOverflow(
        f"the system text and the tools need {tokens:,} tokens; the window holds {limit:,}",
        "shorten them, or widen the window with --context",
    )


def _system(conversation: Conversation) -> tuple[Message, ...]:
    """One system message: the system text, and the summary that stands for what is no longer sent."""
    summary = f"{SUMMARY_HEADING}\n{conversation.summary.text}" if conversation.summary else ""
    text = "\n\n".join(filter(None, (conversation.system, summary)))
    return (Message("system", text),) if text else ()


def _drop_oldest(turns: Sequence[_Turn], room: int, policy: ContextPolicy) -> int:
    """Replay the chat: whenever a new turn overflows the room, drop whole turns until the rest is at the low-water mark."""
    start, used = 0, 0
    for index, turn in enumerate(turns):
        used += turn.tokens
        if used > room:
            while start < index and used > room * policy.low_water:
                used -= turns[start].tokens
                start += 1
    return start


def _last_n(turns: Sequence[_Turn], room: int, policy: ContextPolicy) -> int:
    return max(0, len(turns) - policy.turns)


def _refuse(turns: Sequence[_Turn], room: int, policy: ContextPolicy) -> int:
    return 0


_POLICIES: dict[Policy, _Policy] = {
    "drop-oldest": _drop_oldest,
    "last-n": _last_n,
    "summary": _drop_oldest,
    "refuse": _refuse,
}


def _turns(
    conversation: Conversation, cost: Callable[[Message], int], overhead: int
) -> list[_Turn]:
    turns: list[_Turn] = []
    for index, message in enumerate(conversation.spoken):
        tokens = cost(message) + overhead
        if message.role == "user" or not turns:
            turns.append(_Turn((message,), tokens, index))
        else:
            turns[-1] = replace(
                turns[-1], messages=(*turns[-1].messages, message), tokens=turns[-1].tokens + tokens
            )
    covered = conversation.summary.covers if conversation.summary else 0
    # The last question is always sent, whatever is marked.
    return [replace(turn, fate=_fate(turn, covered)) for turn in turns[:-1]] + turns[-1:]


def _joined(messages: tuple[Message, ...]) -> list[Message]:
    """A turn with answers that follow each other directly as one: imported chats have them, and no format has a place for two."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else message
        if (
            joined
            and last.role == message.role == "assistant"
            and not (last.calls or message.calls)
        ):
            joined[-1] = replace(last, text="\n\n".join(filter(None, (last.text, message.text))))
        else:
            joined.append(message)
    return joined


def _fate(turn: _Turn, covered: int) -> Fate:
    marks = {message.mark for message in turn.messages}
    if turn.messages[-1].role != "assistant":
        # A question whose answer never came (an error, a cancel before the first word) would break the order of speakers.
        return "unanswered"
    if turn.messages[0].role != "user":
        # An answer before the first question, such as the greeting of an imported chat, would break it too.
        return "unasked"
    return (
        "excluded"
        if "excluded" in marks
        else "pinned"
        if "pinned" in marks
        else "summarised"
        if turn.end <= covered
        else "sent"
    )


def _overhead(form: PromptFormat, engine: Counter) -> int:
    """Tokens the format itself adds to a message, rounded up."""
    question, answer = Message("user", "a"), Message("assistant", "a")
    more = _size(form, engine, (question, answer, question)) - _size(form, engine, (question,))
    return max(0, -(-(more - 2 * engine.count("a")) // 2))


def _size(form: PromptFormat, engine: Counter, messages: tuple[Message, ...]) -> int:
    return len(engine.encode(form.render(messages)))


def _ledger(
    conversation: Conversation,
    asked: Sequence[_Turn],
    sent: Sequence[_Turn],
    count: Callable[[str], int],
) -> tuple[Entry, ...]:
    lines = (
        [Entry("system", count(conversation.system), "sent", _first_words(conversation.system))]
        if conversation.system
        else []
    )
    if conversation.summary:
        lines.append(
            Entry(
                "summary",
                count(conversation.summary.text),
                "sent",
                _first_words(conversation.summary.text),
            )
        )
    going = {turn.first for turn in sent}
    for turn in asked:
        fate: Fate = turn.fate if turn.fate != "sent" or turn.first in going else "dropped"
        for number, message in enumerate(turn.messages, turn.first + 1):
            if message.input and (message.text or message.files):
                known = "attached" if turn.first in going else fate
                lines += [
                    Entry("file", count(text), known, name or _first_words(text), number)
                    for name, text in message.materials
                ]
            if message.input and message.text:
                lines.append(
                    Entry(
                        message.role, count(message.text), fate, _first_words(message.text), number
                    )
                )
            elif not message.files:
                lines.append(
                    Entry(
                        message.role,
                        count(plain_text(message)),
                        fate,
                        _first_words(plain_text(message)),
                        number,
                    )
                )
    return tuple(lines)


def _first_words(text: str) -> str:
    return " ".join(text[:200].split())[:60]
