"""Choose the part of a conversation that the model is given.

Trimming works on whole turns (a user message and its answer) and by tokens. A window that
overflows is emptied down to a low-water mark rather than by just enough: its start then stays the
same for many turns, and so does the KV cache of everything that follows. `fit` is pure: it replays
the conversation turn by turn, so the same conversation always gives the same window. Every message
has an entry in the ledger; none is dropped silently.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Counter
from llmchat.engines.bounded_count import count_within, far_over, surely_over
from llmchat.errors import ContextOverflow
from llmchat.found_passages import lighter, name_of, passages_of, sendable, with_pinned
from llmchat.presets.types import ContextPolicy, Preset
from llmchat.prompt import Prompt, PromptFormat, plain_text
from llmchat.settings.types import Policy

# Without max_tokens, this fraction of the window is reserved for the answer, up to ANSWER_TOKENS.
ANSWER_FRACTION = 0.25
ANSWER_TOKENS = 1024
# Whatever max_tokens is, this fraction of the window remains for the conversation.
PROMPT_FRACTION = 0.25

Fate = Literal[
    "sent", "pinned", "attached", "dropped", "summarised", "excluded", "unanswered", "unasked"
]
# The roles of the definitions of tools, and of passages, in the ledger.
_TOOLS, _PASSAGE = "tools", "passage"
# What is sent without being a message of its own.
_UNCOUNTED = (_TOOLS, _PASSAGE, "memory")
SUMMARY_HEADING = "Summary of the conversation so far:"


class LedgerEntry(Struct, frozen=True):
    """A message, its tokens, and whether it is sent.

    Attached files and passages have entries of their own.
    """

    role: str
    """`system`, `user`, `assistant`, `tool`, `summary`, `file`, `passage`, `memory` for facts of
    the user, or `tools` for the definitions of tools.
    """
    tokens: int
    """Tokens that the message takes."""
    fate: Fate
    """What became of it: `sent`, `pinned` (always sent), `attached` (material that came with a
    message), `dropped`, `summarised`, `excluded`, `unanswered` or `unasked`.
    """
    start: str
    """Its first characters."""
    number: int = 0
    """Its number among the messages, from 1; 0 for what is not one of them."""
    part: int | UnsetType = UNSET
    """Of a passage: its number in its message, from 1."""
    score: float | UnsetType = UNSET
    """Of a passage: how well it fits the question; higher is better."""


class Window(Struct, frozen=True):
    """The messages that are sent.

    tokens: of the rendered prompt, out of `limit`, of which `reserve` are kept for the answer.
    left_out: messages for which the policy has no room. A summary that replaces them covers the
    first `covers` spoken messages.
    """

    messages: tuple[Message, ...]
    ledger: tuple[LedgerEntry, ...]
    tokens: int
    limit: int
    reserve: int
    left_out: tuple[Message, ...] = ()
    covers: int = 0

    @property
    def dropped(self) -> int:
        """The number of messages that were dropped."""
        return sum(entry.fate == "dropped" and entry.role != _PASSAGE for entry in self.ledger)

    @property
    def sent(self) -> int:
        """The number of messages that are sent, including the system text and a summary."""
        counted = (entry for entry in self.ledger if entry.role not in _UNCOUNTED)
        return sum(entry.fate in ("sent", "pinned") for entry in counted)


class _Turn(Struct, frozen=True):
    """A question and its answer.

    first: index of its first message among the spoken ones. fate: before anything is trimmed.
    """

    messages: tuple[Message, ...]
    tokens: int
    first: int
    fate: Fate = "sent"

    @property
    def end(self) -> int:
        return self.first + len(self.messages)


# A policy returns the index of the first turn to send, given the turns, the tokens of room for
# them, and its settings.
_Policy = Callable[[Sequence[_Turn], int, ContextPolicy], int]


def fit(
    conversation: Conversation, preset: Preset, engine: Counter, context: int, max_tokens: int
) -> tuple[Window, Prompt]:
    """The window for the next answer, in a model that holds `context` tokens, and its prompt.

    Raises ContextOverflow if the policy refuses to drop, or if what must be sent does not fit.
    """
    policy, form = preset.context, preset.format
    limit = min(policy.tokens, context) if policy.tokens else context
    reserve = _reserve(limit, max_tokens)
    count = functools.partial(count_within, engine, limit=limit)
    system = _system(conversation)
    fixed = _fixed_tokens(form, engine, system, limit)
    all_turns = _turns(conversation, count, _overhead(form, engine))
    pinned = [turn for turn in all_turns if turn.fate == "pinned"]
    turns = [turn for turn in all_turns if turn.fate == "sent"]
    room = limit - reserve - fixed - sum(turn.tokens for turn in pinned)
    start = _POLICIES[policy.policy](turns, room, policy)

    while True:
        sent = sorted((*pinned, *turns[start:]), key=lambda turn: turn.first)
        messages = (*system, *(message for turn in sent for message in _merged(turn.messages)))
        messages = with_pinned(messages, _unsent(all_turns, sent))
        tokens = fixed + sum(turn.tokens for turn in sent)
        if not far_over(tokens, limit):
            prompt = form.render(messages)
            tokens = len(engine.encode(prompt))
            if tokens + reserve <= limit:
                break
        if start == len(turns) - 1 and (less := _lighter(turns[-1], count)):
            turns[-1] = all_turns[-1] = less
            continue
        if policy.policy == "refuse":
            raise _refusal(tokens, limit, reserve)
        if start == len(turns) - 1:
            raise _last_message_too_long(tokens, limit, reserve, pinned=bool(pinned))
        # The tokens of the turns were an estimate: joined pieces can have more tokens than apart.
        start += 1
    ledger = _ledger(conversation, all_turns, sent, count, _tools(form, engine, system, fixed))
    left_out = tuple(message for turn in turns[:start] for message in turn.messages)
    covers = turns[start - 1].end if start else 0
    return Window(messages, ledger, tokens, limit, reserve, left_out, covers), prompt


def _unsent(turns: Sequence[_Turn], sent: Sequence[_Turn]) -> list[Message]:
    """The messages of the turns that are not sent."""
    numbers = {turn.first for turn in sent}
    return [message for turn in turns if turn.first not in numbers for message in turn.messages]


def _lighter(turn: _Turn, count: Callable[[str], int]) -> _Turn | None:
    """A turn without the worst passage of its question; None if it has none to give."""
    question, *others = turn.messages
    less = lighter(question)
    if less is None:
        return None
    spared = count(question.input) - count(less.input)
    return replace(turn, messages=(less, *others), tokens=turn.tokens - spared)


def _reserve(limit: int, max_tokens: int) -> int:
    """Tokens of the window that are kept for the answer."""
    if max_tokens:
        return min(max_tokens, int(limit * (1 - PROMPT_FRACTION)))
    return min(ANSWER_TOKENS, int(limit * ANSWER_FRACTION))


def _refusal(tokens: int, limit: int, reserve: int) -> ContextOverflow:
    return ContextOverflow(
        f"the conversation is {tokens:,} tokens; a window of {limit:,} holds {limit - reserve:,}"
        " in addition to the answer",
        "`/new` starts afresh; --context or another policy makes room",
    )


def _last_message_too_long(
    tokens: int, limit: int, reserve: int, *, pinned: bool
) -> ContextOverflow:
    subject = "the last message and what is pinned need" if pinned else "the last message needs"
    unpin = "; /unpin frees room" if pinned else ""
    return ContextOverflow(
        f"{subject} {tokens:,} tokens; a window of {limit:,} holds {limit - reserve:,}"
        " in addition to the answer",
        "shorten it, widen the window with --context, or ask for less with --max-tokens" + unpin,
    )


def _fixed_tokens(
    form: PromptFormat, engine: Counter, system: tuple[Message, ...], limit: int
) -> int:
    """Tokens that are always sent: the system text, tools and what the format itself writes."""
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


def _tools(
    form: PromptFormat, engine: Counter, system: tuple[Message, ...], fixed: int
) -> tuple[LedgerEntry, ...]:
    """The entry of the definitions of tools. fixed: tokens of the prompt with them."""
    if not form.offered:
        return ()
    without = form.without_tools().render((*system, Message("user", "")))
    tokens = max(0, fixed - len(engine.encode(without)))
    return (LedgerEntry(_TOOLS, tokens, "sent", ", ".join(form.offered)[:60]),)


def _content(message: Message) -> str:
    """The text of a message and its calls."""
    calls = [
        f"{called['name']} {json.dumps(called['arguments'], ensure_ascii=False)}"
        for called in (call["function"] for call in message.calls)
    ]
    return "\n".join(filter(None, (plain_text(message), *calls)))


def _system(conversation: Conversation) -> tuple[Message, ...]:
    """One system message: the system text, what is remembered of the user, and the summary of what
    is no longer sent."""
    summary = f"{SUMMARY_HEADING}\n{conversation.summary.text}" if conversation.summary else ""
    text = "\n\n".join(filter(None, (conversation.system, conversation.memory, summary)))
    return (Message("system", text),) if text else ()


def _drop_oldest(turns: Sequence[_Turn], room: int, policy: ContextPolicy) -> int:
    """Replay the chat: when a turn overflows the room, drop turns down to the low-water mark."""
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


def _turns(conversation: Conversation, count: Callable[[str], int], overhead: int) -> list[_Turn]:
    """overhead: tokens that the format adds to a message."""
    turns: list[_Turn] = []
    for index, message in enumerate(map(sendable, conversation.spoken)):
        tokens = count(_content(message)) + overhead
        if message.role == "user" or not turns:
            turns.append(_Turn((message,), tokens, index))
        else:
            last = turns[-1]
            messages = (*last.messages, message)
            turns[-1] = replace(last, messages=messages, tokens=last.tokens + tokens)
    covered = conversation.summary.covers if conversation.summary else 0
    # The last question is always sent, whatever its mark.
    return [replace(turn, fate=_fate(turn, covered)) for turn in turns[:-1]] + turns[-1:]


def _merged(messages: tuple[Message, ...]) -> list[Message]:
    """A turn with consecutive answers merged into one.

    Imported chats have such answers, and no prompt format has a place for two.
    """
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last and last.role == message.role == "assistant" and not (last.calls or message.calls):
            text = "\n\n".join(filter(None, (last.text, message.text)))
            merged[-1] = replace(last, text=text)
        else:
            merged.append(message)
    return merged


def _fate(turn: _Turn, covered: int) -> Fate:
    marks = {message.mark for message in turn.messages}
    if turn.messages[-1].role != "assistant" or turn.messages[-1].calls:
        # The answer is missing (an error, a cancel before the first word, a call without a result):
        # sending the question would break the alternation of speakers.
        return "unanswered"
    if turn.messages[0].role != "user":
        # An answer before the first question, such as the greeting of an imported chat: the same.
        return "unasked"
    if "excluded" in marks:
        return "excluded"
    if "pinned" in marks:
        return "pinned"
    return "summarised" if turn.end <= covered else "sent"


def _overhead(form: PromptFormat, engine: Counter) -> int:
    """Tokens that the format adds to a message, rounded up."""
    question, answer = Message("user", "a"), Message("assistant", "a")
    one = len(engine.encode(form.render((question,))))
    three = len(engine.encode(form.render((question, answer, question))))
    added = three - one - 2 * engine.count("a")
    return max(0, -(-added // 2))


def _ledger(
    conversation: Conversation,
    turns: Sequence[_Turn],
    sent: Sequence[_Turn],
    count: Callable[[str], int],
    tools: tuple[LedgerEntry, ...],
) -> tuple[LedgerEntry, ...]:
    entries = list(tools)
    if conversation.system:
        entries.append(_entry("system", conversation.system, "sent", 0, count))
    if conversation.memory:
        facts = _facts(conversation.memory)
        entries.append(_entry("memory", conversation.memory, "sent", 0, count, facts))
    if conversation.summary:
        entries.append(_entry("summary", conversation.summary.text, "sent", 0, count))
    sent_turns = {turn.first for turn in sent}
    spoken = conversation.spoken
    for turn in turns:
        is_sent = turn.first in sent_turns
        fate: Fate = "dropped" if turn.fate == "sent" and not is_sent else turn.fate
        for number, message in enumerate(turn.messages, turn.first + 1):
            entries += _passages(spoken[number - 1], message, number, fate, count)
            entries += _entries(message, number, fate, "attached" if is_sent else fate, count)
    return tuple(entries)


def _facts(memory: str) -> str:
    """The first facts of the user, as the ledger shows them."""
    return " ".join(memory.splitlines()[1:])[:60]


def _passages(
    message: Message, fitted: Message, number: int, fate: Fate, count: Callable[[str], int]
) -> list[LedgerEntry]:
    """The entries of a message's passages. fitted: the message without those that are not sent."""
    entries = []
    for part, (passage, text) in enumerate(passages_of(message), 1):
        fates: dict[str, Fate] = {"pinned": "pinned", "excluded": "excluded"}
        default: Fate = "attached" if fate in ("sent", "pinned") else fate
        if passage not in fitted.passages:
            default = "dropped"
        entry = _entry(_PASSAGE, text, fates.get(passage.mark, default), number, count)
        score = float(f"{passage.score:.4g}")
        entries.append(replace(entry, start=name_of(passage), part=part, score=score))
    return entries


def _entries(
    message: Message, number: int, fate: Fate, file_fate: Fate, count: Callable[[str], int]
) -> list[LedgerEntry]:
    """The entries of one message: its files, and its text."""
    entries = []
    if message.input and (message.text or message.files):
        others = message.materials[len(passages_of(message)) :]
        entries += [_entry("file", text, file_fate, number, count, name) for name, text in others]
    if message.text or not message.files:
        text = message.text if message.input and message.text else _content(message)
        entries.append(_entry(message.role, text, fate, number, count))
    return entries


def _entry(
    role: str, text: str, fate: Fate, number: int, count: Callable[[str], int], title: str = ""
) -> LedgerEntry:
    first_words = " ".join(text[:200].split())[:60]
    return LedgerEntry(role, count(text), fate, title or first_words, number)
