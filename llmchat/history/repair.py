"""Repair histories in which two processes wrote to one session: answers after the wrong question.

Releases before forks existed could do that. The moment at which an answer was begun is known: when
it was stored, less the time it took. The answer belongs to the last question asked before that
moment which has none. Questions keep their order, and each answer moves after its own. A surplus
answer becomes an alternative of the question before it. No message is removed, and a history in
order stays as it is.
"""

import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

# Clocks are read at slightly different moments: a smaller difference proves nothing.
_TOLERANCE_S = 0.5
# How many questions may have been unanswered at once.
_MAX_OPEN = 64


class Node(Struct, frozen=True):
    """A message. began: when the model began it, in seconds since 1970; None for other messages."""

    id: int
    parent: int | None
    role: str
    created: float
    began: float | None = None


def untangle(database: sqlite3.Connection) -> None:
    """Repair every session, within the open transaction."""
    query = "SELECT id, parent, role, created, details FROM messages"
    nodes = {
        row[0]: Node(row[0], row[1], row[2], _number(row[3]), _began(*row[2:]))
        for row in database.execute(query)
    }
    for session, tip in database.execute(
        "SELECT id, tip FROM sessions WHERE tip IS NOT NULL"
    ).fetchall():
        path = _path(nodes, tip)
        if not _tangled(path):
            continue
        chain, spare = straighten(path)
        parents = dict(zip(chain[1:], chain, strict=False)) | spare
        for child, parent in parents.items():
            database.execute("UPDATE messages SET parent = ? WHERE id = ?", (parent, child))
            nodes[child] = msgspec.structs.replace(nodes[child], parent=parent)
        database.execute("UPDATE sessions SET tip = ? WHERE id = ?", (chain[-1], session))


def straighten(path: Sequence[Node]) -> tuple[list[int], dict[int, int]]:
    """The ids of the path with each answer after its question, and surplus answer → question."""
    answers = _matched(path)
    placed = set(answers.values())
    chain: list[int] = []
    spare: dict[int, int] = {}
    question: Node | None = None
    for node in path:
        if node.role == "user":
            chain += _pending(question, answers, chain)
            question = node
            chain.append(node.id)
        elif node.role != "assistant" or question is None:
            chain.append(node.id)
        elif node.id not in placed:
            spare[node.id] = question.id
        else:
            chain += _pending(question, answers, chain)
    return chain + _pending(question, answers, chain), spare


def _pending(question: Node | None, answers: dict[int, int], chain: Sequence[int]) -> list[int]:
    """The answer of a question, unless the chain holds it already."""
    answer = answers.get(question.id) if question else None
    return [] if answer is None or answer in chain else [answer]


def _matched(path: Sequence[Node]) -> dict[int, int]:
    """Question → answer: pairs nearest in time first, each message once."""
    answers: dict[int, int] = {}
    asked: list[Node] = []
    pairs: list[tuple[float, int, int]] = []
    for node in path:
        if node.role == "user":
            asked.append(node)
        elif node.role == "assistant" and asked and node.began is None:
            # An imported answer stays where its own program put it.
            answers.setdefault(asked[-1].id, node.id)
        elif node.role == "assistant":
            near = asked[-_MAX_OPEN:]
            pairs += [
                (_distance(one, node), one.id, node.id)
                for one in near
                if one.created <= (node.began or 0.0) + _TOLERANCE_S
            ]
    taken = set(answers.values())
    for _, question, answer in sorted(pairs):
        if question not in answers and answer not in taken:
            answers[question] = answer
            taken.add(answer)
    return answers


def _distance(question: Node, answer: Node) -> float:
    return abs((answer.began or 0.0) - question.created)


def _tangled(path: Sequence[Node]) -> bool:
    """Whether one writer cannot have written a path.

    Signs are two answers in a row, and an answer begun before its question was asked.
    """
    spoken = [node for node in path if node.role in ("user", "assistant")]
    for last, node in pairwise(spoken):
        if node.role == "assistant" and node.began is not None:
            twice = last.role == "assistant" and last.began is not None
            if twice or (
                last.role == "user"
                and node.began < last.created - _TOLERANCE_S
                and _open_before(spoken, last)
            ):
                return True
    return False


def _open_before(spoken: Sequence[Node], question: Node) -> bool:
    """Whether an earlier question has no answer."""
    return any(
        one.role == next_one.role == "user" and next_one.created <= question.created
        for one, next_one in pairwise(spoken)
    )


def _path(nodes: dict[int, Node], tip: int) -> list[Node]:
    """The messages from the first to `tip`; where parents form a loop, each message once."""
    backwards: list[Node] = []
    seen: set[int] = set()
    current: int | None = tip
    while current is not None and current in nodes and current not in seen:
        seen.add(current)
        backwards.append(nodes[current])
        current = nodes[current].parent
    return backwards[::-1]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _began(role: str, created: Any, details: Any) -> float | None:
    if role != "assistant":
        return None
    try:
        known = msgspec.json.decode(details)
        return float(created) - float(known["prefill_s"]) - float(known["decode_s"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError):
        return None
