"""A session's branches as text."""

from collections.abc import Sequence

from llmchat.history import Record
from llmchat.ui.status import cut

_WIDTH = 72


def branches(records: Sequence[Record], tip: int | None) -> list[str]:
    """A line a message, indented where a branch begins; `*` marks those of the branch that ends at `tip`."""
    children: dict[int | None, list[Record]] = {}
    parents = {record.id: record.parent for record in records}
    for record in records:
        children.setdefault(record.parent, []).append(record)
    present, node = set(), tip
    while node is not None:
        present.add(node)
        node = parents[node]
    lines: list[str] = []
    # A stack, not recursion: a chat may be longer than Python's.
    waiting = [(record, "") for record in reversed(children.get(None, []))]
    while waiting:
        record, indent = waiting.pop()
        text = " ".join((record.message.text or record.message.input).split())
        mark = "*" if record.id in present else " "
        lines.append(cut(f"{mark} {indent}{record.message.role}: {text}", _WIDTH))
        answers = children.get(record.id, [])
        deeper = indent + ("  " if len(answers) > 1 else "")
        waiting += [(answer, deeper) for answer in reversed(answers)]
    return lines
