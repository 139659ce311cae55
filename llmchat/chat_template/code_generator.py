"""Compile templates so that they pay for what they do.

Each statement pays steps for its parts before it runs; operators and literals whose result can
be large call the environment, which pays for the result.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2 import nodes  # noqa: TID253 (this module is imported when a template is compiled)
from jinja2.compiler import CodeGenerator, CompilerExit, Frame  # noqa: TID253

from llmchat.chat_template.budget import BeyondLimits

# The most parts in the expressions of one statement.
MAX_PARTS = 500
# After so many parts in a block a statement pays a step of its own.
_PARTS_PER_STEP = 100
_BODIES = ("body", "else_", "elif_")


class PayingCodeGenerator(CodeGenerator):
    """jinja2's code generator, with calls that pay."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        statements = list(nodes)
        counts = [_count_parts(statement) for statement in statements]
        self.writeline(f"context.step({1 + sum(counts)})")
        since = 0
        try:
            for statement, count in zip(statements, counts, strict=True):
                since += count
                if since > _PARTS_PER_STEP:
                    self.writeline("context.step(1)")
                    since = 0
                self.visit(statement, frame)
        except CompilerExit:
            pass

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        """Let `for … if …` pay for each item it tests: it skips items without entering the body."""
        if node.test:
            step = nodes.EnvironmentAttribute("step")
            count = nodes.Const(_count_parts(node.test))
            node.test = nodes.And(nodes.Call(step, [count], [], None, None), node.test)
        super().visit_For(node, frame)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node, frame: Frame) -> None:
        raise BeyondLimits("uses autoescape, which no chat template needs")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._write_call("environment.join_texts", node.nodes, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        """`a + b + c` in one call, because long chats have hundreds of them a turn."""
        parts: list[nodes.Expr] = [node.right]
        first = node.left
        while isinstance(first, nodes.Add):
            parts.append(first.right)
            first = first.left
        self._write_call("environment.add", [first, *reversed(parts)], frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            return super().visit_Getitem(node, frame)
        self.write("environment.slice(")
        self.visit(node.node, frame)
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            self.write("None") if bound is None else self.visit(bound, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._write_collection(node, node.items, super().visit_List, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        items = node.items if node.ctx == "load" else []
        self._write_collection(node, items, super().visit_Tuple, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        values = [pair.value for pair in node.items]
        self._write_collection(node, values, super().visit_Dict, frame)

    def _write_collection(
        self,
        node: Any,
        items: Sequence[nodes.Node],
        visit: Callable[[Any, Frame], None],
        frame: Frame,
    ) -> None:
        """Pay for nested literals: a list that holds another one twice is twice as long."""
        if all(isinstance(item, nodes.Const) for item in items):
            return visit(node, frame)
        self.write("environment.pay_for(")
        visit(node, frame)
        self.write(")")

    def _write_call(self, function: str, parts: Sequence[nodes.Node], frame: Frame) -> None:
        self.write(f"{function}((")
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


def _count_parts(node: nodes.Node) -> int:
    """How many parts a statement evaluates, without the statements inside it.

    Raises BeyondLimits for a statement with too many.
    """
    count, waiting = 0, [node]
    while waiting:
        part = waiting.pop()
        count += 1
        waiting += [
            child
            for child in part.iter_child_nodes(exclude=_BODIES)
            if not isinstance(child, nodes.TemplateData)
        ]
        # In the tree `elif` is a statement of its own; its condition belongs to the first `if`.
        waiting += [branch.test for branch in getattr(part, "elif_", ())]
    if count > MAX_PARTS:
        raise BeyondLimits(f"has an expression of more than {MAX_PARTS} parts")
    return count
