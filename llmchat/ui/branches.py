"""A session's branches as text."""

from collections.abc import Sequence

from llmchat.history import Record
from llmchat.ui.status import cut

_WIDTH = 72


def branches(records: Sequence[Record], tip: int | None) -> list[str]:
    """One line a message, indented where a branch begins; `*` marks the branch ending at `tip`."""
    children: dict[int | None, list[Record]] = {}
    parents = {record.id: record.parent for record in records}
    for record in records:
        children.setdefault(record.parent, []).append(record)
    in_branch, node = set(), tip
    while node is not None:
        in_branch.add(node)
        node = parents[node]
    lines: list[str] = []
    # A stack instead of recursion: a long chat would exceed Python's recursion limit.
    waiting = [(record, "") for record in reversed(children.get(None, []))]
    while waiting:
        record, indent = waiting.pop()
        text = " ".join((record.message.text or record.message.input).split())
        mark = "*" if record.id in in_branch else " "
        lines.append(cut(f"{mark} {indent}{record.message.role}: {text}", _WIDTH))
        answers = children.get(record.id, [])
        deeper = indent + ("  " if len(answers) > 1 else "")
        waiting += [(answer, deeper) for answer in reversed(answers)]
    return lines
