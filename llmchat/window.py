"""Which part of a conversation the model is given. Nothing is dropped without a line in the ledger.

Trimming works on whole turns (a user message and its answer) and by tokens. A window that overflows is emptied down to a low-water mark,
not by just enough: the start then stays the same for many turns, and with it the KV cache of everything that follows. The function is
pure: it replays the conversation turn by turn, so the same conversation always gives the same window.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from llmchat.conversation import Conversation, Message
from llmchat.engines import Counter
from llmchat.errors import ContextOverflow
from llmchat.presets.types import ContextPolicy, Preset
from llmchat.prompt import PromptFormat, plain_text

# Without a longest answer, this share of the window is kept free for one, but no more than so many tokens.
ANSWER_SHARE = 0.25
ANSWER_TOKENS = 1024
# However long an answer may be, this share of the window stays for the conversation.
PROMPT_SHARE = 0.25

Fate = Literal["sent", "dropped", "unanswered"]


class Entry(Struct, frozen=True):
    """One line of the ledger: a message, what it costs, and what happened to it."""

    role: str
    tokens: int
    fate: Fate
    start: str


class Window(Struct, frozen=True):
    """What is sent: the messages, `tokens` of the rendered prompt, out of `limit`, of which `reserve` are kept for the answer."""

    messages: tuple[Message, ...]
    ledger: tuple[Entry, ...]
    tokens: int
    limit: int
    reserve: int

    @property
    def dropped(self) -> int:
        return sum(entry.fate == "dropped" for entry in self.ledger)

    @property
    def sent(self) -> int:
        return sum(entry.fate == "sent" for entry in self.ledger)


class _Turn(Struct, frozen=True):
    messages: tuple[Message, ...]
    tokens: int

    @property
    def answered(self) -> bool:
        return self.messages[-1].role == "assistant"


# A policy answers which turn is the first to be sent, given every turn, the room for turns in tokens, and its settings.
_Policy = Callable[[Sequence[_Turn], int, ContextPolicy], int]


def fit(conversation: Conversation, preset: Preset, engine: Counter, context: int, max_tokens: int) -> Window:
    """The window for the next answer, in a model that holds `context` tokens.

    Raises ContextOverflow when the policy refuses to drop, and when the last message alone does not fit.
    """
    policy, form = preset.context, preset.format
    limit = min(policy.tokens, context) if policy.tokens else context
    reserve = min(max_tokens, int(limit * (1 - PROMPT_SHARE))) if max_tokens else min(ANSWER_TOKENS, int(limit * ANSWER_SHARE))
    system = (Message("system", conversation.system),) if conversation.system else ()
    asked = _turns(conversation, functools.partial(_cost, engine), _overhead(form, engine))
    # A question whose answer never came (an error, a cancel before the first word) would break the order of speakers.
    turns = [turn for turn in asked[:-1] if turn.answered] + asked[-1:]
    empty = _size(form, engine, (*system, Message("user", "")))
    start = _POLICIES[policy.policy](turns, limit - reserve - empty, policy)

    while True:
        messages = (*system, *(message for turn in turns[start:] for message in turn.messages))
        tokens = _size(form, engine, messages)
        if tokens + reserve <= limit:
            break
        if policy.policy == "refuse":
            raise ContextOverflow(
                f"the conversation is {tokens:,} tokens; a window of {limit:,} holds {limit - reserve:,} beside the answer",
                "`/new` starts afresh; --context or another policy makes room",
            )
        if start == len(turns) - 1:
            raise ContextOverflow(
                f"the last message needs {tokens:,} tokens; a window of {limit:,} holds {limit - reserve:,} beside the answer",
                "shorten it, widen the window with --context, or ask for less with --max-tokens",
            )
        # The sum of the turns was an estimate, for pieces joined can be more tokens than apart; the count of the whole decides.
        start += 1
    return Window(messages, _ledger(system, asked, turns[start:], engine), tokens, limit, reserve)


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


_POLICIES: dict[str, _Policy] = {"drop-oldest": _drop_oldest, "last-n": _last_n, "refuse": _refuse}


def _turns(conversation: Conversation, cost: Callable[[Message], int], overhead: int) -> list[_Turn]:
    turns: list[_Turn] = []
    for message in conversation.spoken:
        tokens = cost(message) + overhead
        if message.role == "user" or not turns:
            turns.append(_Turn((message,), tokens))
        else:
            turns[-1] = _Turn((*turns[-1].messages, message), turns[-1].tokens + tokens)
    return turns


def _cost(engine: Counter, message: Message) -> int:
    return engine.count(plain_text(message))


def _overhead(form: PromptFormat, engine: Counter) -> int:
    """Tokens the format itself adds to a message, rounded up."""
    question, answer = Message("user", "a"), Message("assistant", "a")
    more = _size(form, engine, (question, answer, question)) - _size(form, engine, (question,))
    return max(0, -(-(more - 2 * engine.count("a")) // 2))


def _size(form: PromptFormat, engine: Counter, messages: tuple[Message, ...]) -> int:
    return len(engine.encode(form.render(messages)))


def _ledger(system: tuple[Message, ...], asked: Sequence[_Turn], sent: Sequence[_Turn], engine: Counter) -> tuple[Entry, ...]:
    lines = [Entry("system", _cost(engine, message), "sent", _first_words(message)) for message in system]
    kept = {id(turn) for turn in sent}
    for turn in asked:
        fate: Fate = "sent" if id(turn) in kept else "dropped" if turn.answered else "unanswered"
        lines.extend(Entry(message.role, _cost(engine, message), fate, _first_words(message)) for message in turn.messages)
    return tuple(lines)


def _first_words(message: Message) -> str:
    return " ".join(plain_text(message)[:200].split())[:60]
