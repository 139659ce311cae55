"""A chat of twenty turns reads as much in the last one as in the second, whatever the model keeps
of a text: keys and values, a window of them, states, or some of each.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from support.family_engines import TinyModel
from support.family_lists import PLANNED, cases

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine

GREEDY = Sampling(temperature=0, max_tokens=6, logprobs=1)
END = 2  # closes a message
KINDS = ["llama", "gemma3", "lfm2", "qwen3.5", "falcon-h1", "kimi-linear", "rwkv", "rwkv7"]
CASES = [name for name in KINDS if name in PLANNED]


class Turn(NamedTuple):
    prompt: list[int]
    answer: list[int]
    read: int


def ask(engine: TransformersEngine, prompt: Sequence[int]) -> Turn:
    *chunks, finish = engine.stream(engine.prompt_of(prompt), GREEDY)
    assert isinstance(finish, Finish)
    tokens = [one for chunk in chunks if isinstance(chunk, Chunk) for one in chunk.tokens]
    answer = [token.id for token in tokens if token.id != END]
    return Turn(list(prompt), answer, finish.prompt_tokens - finish.cached_tokens)


class Chat:
    """Questions of one length. stripped: tokens of each answer that are not sent back."""

    def __init__(self, tiny: TinyModel, engine: TransformersEngine, stripped: int = 0):
        self._ids, self._stripped = tiny.ids(40 * 12, seed=3), stripped
        self.engine, self.turns = engine, [Turn([*self._ids[:40], END], [], 0)]

    def question(self, number: int) -> list[int]:
        return [*self._ids[8 * number + 40 : 8 * number + 48], END, 7, 8]

    def prompt(self, turn: Turn, number: int) -> list[int]:
        """What follows a turn: the model's answer ends, a question, and the answer's opening."""
        return [*turn.prompt, *turn.answer[self._stripped :], END, *self.question(number)]

    def go_on(self, count: int) -> None:
        for _ in range(count):
            self.turns.append(ask(self.engine, self.prompt(self.turns[-1], len(self.turns))))


def cold(tiny: TinyModel, prompt: list[int]) -> list[int]:
    return ask(tiny.open(weights="int8"), prompt).answer


@cases(CASES)
def test_the_last_turn_reads_as_much_as_the_second(tiny: TinyModel) -> None:
    chat = Chat(tiny, tiny.open(weights="int8"))
    chat.go_on(20)
    first, *later = chat.turns[1:]
    assert first.read == len(first.prompt)
    # The end of the answer before, a question, and a token that was chosen and not read yet.
    assert max(turn.read for turn in later) <= len(chat.question(0)) + 2
    assert chat.turns[-1].answer == cold(tiny, chat.turns[-1].prompt)


@cases(CASES)
def test_stripped_thoughts_are_all_that_is_read_again(tiny: TinyModel) -> None:
    chat = Chat(tiny, tiny.open(weights="int8"), stripped=3)
    chat.go_on(20)
    assert max(turn.read for turn in chat.turns[2:]) <= len(chat.question(0)) + 7
    assert chat.turns[-1].answer == cold(tiny, chat.turns[-1].prompt)


@cases(CASES)
@pytest.mark.parametrize("slots", [1, 2])
def test_undo_regen_and_forks_read_what_is_new(tiny: TinyModel, slots: int) -> None:
    chat = Chat(tiny, tiny.open(weights="int8", slots=slots))
    chat.go_on(8)
    engine, last = chat.engine, chat.turns[-1]
    regenerated = ask(engine, last.prompt)
    assert regenerated.read <= 3 and regenerated.answer == last.answer
    for back in (2, 3):
        undone = ask(engine, chat.prompt(chat.turns[-back], 11 + back))
        assert undone.read <= len(chat.question(0)) + 2
        assert undone.answer == cold(tiny, undone.prompt)


@cases(["lfm2"])
def test_two_chats_in_turns_read_what_is_new(tiny: TinyModel) -> None:
    """Of a text that waits, only the copies of its last turn are kept."""
    engine = tiny.open(weights="int8", slots=2)
    chats = [Chat(tiny, engine), Chat(tiny, engine, stripped=3)]
    chats[1].turns[0] = Turn([*tiny.ids(40, seed=4), END], [], 0)
    for _ in range(6):
        for chat in chats:
            chat.go_on(1)
    for chat in chats:
        assert max(turn.read for turn in chat.turns[2:]) <= len(chat.question(0)) + 7
    assert max(len(list(slot.cache.state_copies)) for slot in engine._slots._slots[:1]) <= 2
