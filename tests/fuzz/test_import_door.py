"""Fuzz chat imports: any file is imported whole or refused in one line that names it, in time."""

import json
import random
import time
from typing import Any

import pytest

from llmchat.errors import UsageError
from llmchat.history import BranchWriter, History
from llmchat.history.export import EXPORTS
from llmchat.history.imports import read

_SECONDS = 2.0
_CHATGPT: dict[str, Any] = {
    "title": "A chat", "create_time": 1.7e9, "current_node": "2",
    "mapping": {
        "0": {"message": None, "parent": None, "children": ["1"]},
        "1": {
            "message": {
                "author": {"role": "user"}, "content": {"parts": ["Hello"]}, "create_time": 1.7e9,
            },
            "parent": "0", "children": ["2"],
        },
        "2": {
            "message": {"author": {"role": "assistant"}, "content": {"parts": ["Hi"]}},
            "parent": "1", "children": [],
        },
    },
}  # fmt: skip
_OWN: dict[str, Any] = {
    "id": "3k9f0abc", "title": "t", "model": "smollm2", "created": 1.7e9, "tags": ["a"],
    "messages": [
        {"role": "user", "content": "q", "input": "m", "mark": "pinned", "created": 1.7e9},
        {
            "role": "assistant", "content": [{"type": "text", "text": "a"}],
            "state": "cancelled", "created": 1.7e9,
        },
        {"role": "system", "name": "summary", "content": "s", "covers": 2},
    ],
}  # fmt: skip
_SHAREGPT: dict[str, Any] = {
    "title": "t",
    "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
}
_ALPACA: dict[str, Any] = {"instruction": "q", "input": "m", "output": "a"}
_SEEDS = (_CHATGPT, _OWN, _SHAREGPT, _ALPACA)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e18, -1e300, 2**63, 2**70, "1700000000", "", "x" * 1000,
    "\x1b]52;c;eA==\a", "\u0000", [], ["a"], [None], {}, {"a": 1},
    "0", "1", "2", "summary", "assistant", "user", "nobody", 0.5, "cancelled", "é𝔘‮",
)  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """A copy with one place changed: a value replaced, a field removed, or two swapped."""
    copy = json.loads(json.dumps(value))
    holders: list[Any] = []
    waiting = [copy]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list) and one:
            holders.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    holder = chance.choice(holders)
    key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if chance.random() < 0.2:
        del holder[key]
    else:
        holder[key] = chance.choice(_VALUES)
    return copy


def damaged(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return (
        text[:at]
        + chance.choice(
            ("", "1e999", "NaN", "\\ud800", "[", "}", '"', "99999999999999999999999", "\x00")
        )
        + text[at + 1 :]
    )


def take(text: str) -> None:
    """Import, list, search, export and go on; what the door lets in must be good for all of it."""
    with History(None) as history:
        try:
            sessions = [
                session for chat in read(text, "odd.json") if (session := history.import_chat(chat))
            ]
        except UsageError as refused:
            assert (
                "odd.json" in refused.message
                and "\n" not in refused.message
                and len(refused.message) < 300
            )
            return
        for session in sessions:
            found, records = history.find(session), history.messages(session)
            assert all(export(found, records) is not None for export in EXPORTS.values())
            assert history.sessions() and history.tree(session)
            BranchWriter(history, session).mark(0, "pinned")
        assert [history.import_chat(chat) for chat in read(text, "odd.json")] == [None] * len(
            read(text, "odd.json")
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_record_is_taken_whole_or_refused_in_a_line(seed: int) -> None:
    chance, until = random.Random(seed), time.monotonic() + _SECONDS
    for _ in range(400):
        value = chance.choice(_SEEDS)
        for _ in range(chance.randrange(1, 4)):
            value = mutated(value, chance) if value else value
        text = json.dumps(chance.choice((value, [value], [_ALPACA, value])))
        take(damaged(text, chance) if chance.random() < 0.3 else text)
        if time.monotonic() > until:
            break
