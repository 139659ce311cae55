"""OpenAssistant's message trees: one conversation per tree, along the best-ranked replies.

Deleted and rejected messages are left out with everything below them. Source: Open-Assistant's
`oasst-data`.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.finetune.data.rows import Row
from llmchat.finetune.records import Record

ROW_NEEDS = "message_id text role"
ROW_KNOWS = (
    "parent_id user_id created_date lang review_count review_result deleted rank synthetic "
    "model_name detoxify message_tree_id tree_state emojis labels events"
)


class _Node(Struct):
    """A message. rank: 0 is the best of its siblings, None: not ranked."""

    message_id: str
    text: str
    role: str
    parent_id: str | None = None
    lang: str | None = None
    deleted: bool | None = False
    review_result: bool | None = None
    rank: float | None = None
    replies: list["_Node"] | None = None


class _Tree(Struct):
    prompt: _Node | None


def from_rows(rows: Iterable[Row], language: str) -> Iterator[Record]:
    """Rows in any order; a reply whose parent is not among them is an error."""
    nodes: dict[str, tuple[_Node, str]] = {}
    for row in rows:
        node = row.to(_Node)
        if node.message_id in nodes:
            earlier = nodes[node.message_id][1]
            raise UsageError(f"{row.place}: message {node.message_id} occurs at {earlier} already")
        nodes[node.message_id] = (node, row.place)
    for node, place in nodes.values():
        if node.parent_id:
            if node.parent_id not in nodes:
                raise UsageError(f"{place}: its parent {node.parent_id} is not in the file")
            parent = nodes[node.parent_id][0]
            parent.replies = [*(parent.replies or ()), node]
    for node, place in nodes.values():
        if not node.parent_id:
            yield from _best_path(node, place, language)


def from_trees(rows: Iterable[Row], language: str) -> Iterator[Record]:
    for row in rows:
        prompt = row.to(_Tree).prompt
        if prompt:
            yield from _best_path(prompt, row.place, language)


def _best_path(root: _Node, place: str, language: str) -> Iterator[Record]:
    """The record of one tree; nothing if it is in another language or has no answer.

    A reply in another language ends the path.
    """
    messages: list[Message] = []
    level = [root]
    while True:
        level = [
            node
            for node in level
            if not node.deleted and node.review_result is not False and language in ("", node.lang)
        ]
        if not level:
            break
        # Replies without a rank come last, in the order of the file.
        best = min(level, key=lambda node: (node.rank is None, node.rank or 0))
        if best.role not in ("prompter", "assistant"):
            raise UsageError(
                f"{place}: the message {best.message_id} has the role `{best.role}`",
                "OASST has prompter and assistant",
            )
        messages.append(Message("user" if best.role == "prompter" else "assistant", best.text))
        level = best.replies or []
    while messages and messages[-1].role == "user":
        messages.pop()
    if messages:
        yield Record(tuple(messages), place)
