"""jinja2 with the few names that chat templates use, each within the budget of its run.

What a template may reach is listed, not what it may not: filters, tests, globals, methods and attributes. Each statement pays for its parts
before it runs, by a call that is compiled into the template; what depends on the size of a value pays in template_values.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import BuiltinMethodType, MethodType
from typing import Any

import jinja2.filters as filters  # noqa: TID253 (this module is imported when the first template is compiled)
import jinja2.tests as tests  # noqa: TID253
from jinja2 import TemplateError, Undefined, nodes  # noqa: TID253
from jinja2.compiler import CodeGenerator, CompilerExit, Frame  # noqa: TID253
from jinja2.environment import Template  # noqa: TID253
from jinja2.ext import Extension  # noqa: TID253
from jinja2.runtime import BlockReference, Context, LoopContext, Macro  # noqa: TID253
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: TID253
from jinja2.utils import Namespace, pass_context, pass_environment  # noqa: TID253
from markupsafe import Markup, escape

from llmchat.chat_template import values
from llmchat.chat_template.budget import BeyondLimits, budget, bytes_of, pay_for

# Characters of a template; parts of one statement's expressions; the parts after which a statement pays by itself.
MAX_TEMPLATE, MAX_PARTS, _PARTS_A_STEP = 300_000, 500, 100
_LOOP = frozenset({
    "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0",
})  # fmt: skip
_BODIES = ("body", "else_", "elif_")


def compile_template(source: str) -> Template:
    """Raises BeyondLimits, and whatever jinja2 and Python raise for what is not a template."""
    if len(source) > MAX_TEMPLATE:
        raise BeyondLimits(f"has more than {MAX_TEMPLATE:,} characters")
    return _environment().from_string(source)


@functools.cache
def _environment() -> "Room":
    return Room(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )


def _parts(node: nodes.Node) -> int:
    """How many parts a statement evaluates, without the statements in it. Raises BeyondLimits for a very large one."""
    count, rest = 0, [node]
    while rest:
        one = rest.pop()
        count += 1
        rest += [
            child
            for child in one.iter_child_nodes(exclude=_BODIES)
            if not isinstance(child, nodes.TemplateData)
        ]
        # `elif` is a statement in the tree, and its condition a part of the first one's.
        rest += [other.test for other in getattr(one, "elif_", ())]
    if count > MAX_PARTS:
        raise BeyondLimits(f"has an expression of more than {MAX_PARTS} parts")
    return count


class Paying(CodeGenerator):
    """Statements pay for their parts; operators whose result can be large pay for that."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes)
        counts = [_parts(node) for node in body]
        self.writeline(f"context.step({1 + sum(counts)})")
        since = 0
        try:
            for node, count in zip(body, counts, strict=True):
                since += count
                if since > _PARTS_A_STEP:
                    self.writeline("context.step(1)")
                    since = 0
                self.visit(node, frame)
        except CompilerExit:
            pass

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        """`for … if …` passes over items without entering the body: looking at one is a step too."""
        if node.test:
            node.test = nodes.And(
                nodes.Call(
                    nodes.EnvironmentAttribute("step"),
                    [nodes.Const(_parts(node.test))],
                    [],
                    None,
                    None,
                ),
                node.test,
            )
        super().visit_For(node, frame)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node, frame: Frame) -> None:
        raise BeyondLimits("uses autoescape, which no chat template needs")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._call("environment.joined", node.nodes, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        """`a + b + c` in one call, for a long chat writes hundreds of them a turn."""
        parts: list[nodes.Expr] = [node.right]
        first = node.left
        while isinstance(first, nodes.Add):
            parts.append(first.right)
            first = first.left
        self._call("environment.added", [first, *reversed(parts)], frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            return super().visit_Getitem(node, frame)
        self.write("environment.sliced(")
        self.visit(node.node, frame)
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            self.write("None") if bound is None else self.visit(bound, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._collection(node, node.items, super().visit_List, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        self._collection(node, node.items if node.ctx == "load" else [], super().visit_Tuple, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._collection(node, [pair.value for pair in node.items], super().visit_Dict, frame)

    def _collection(
        self,
        node: Any,
        items: Sequence[nodes.Node],
        visit: Callable[[Any, Frame], None],
        frame: Frame,
    ) -> None:
        """What holds the same list twice is twice as long: kept in one another, lists grow without a step of their own."""
        if all(isinstance(item, nodes.Const) for item in items):
            return visit(node, frame)
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")

    def _call(self, function: str, parts: Sequence[nodes.Node], frame: Frame) -> None:
        self.write(f"{function}((")
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Run(Context):
    """One run of a template, in any thread."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.step = budget().step


class Generation(Extension):
    """`{% generation %}`: marks what the model writes. What stands in it is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        return nodes.Scope(
            parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
        )


def _step(count: int) -> bool:
    return budget().step(count)


class Room(ImmutableSandboxedEnvironment):
    code_generator_class = Paying
    context_class = Run
    concat = staticmethod(values.concat)  # type: ignore[assignment]
    step = staticmethod(_step)
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, **options: Any):
        super().__init__(finalize=values.text_of, **options)
        self.filters = dict(_FILTERS)
        self.tests = dict(_TESTS)
        self.globals = dict(_GLOBALS)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        values.check_operands(operator, left, right)
        return self.binop_table[operator](left, right)

    def added(self, parts: tuple[Any, ...]) -> Any:
        return values.add_all(
            parts, lambda operator, left, right: self.call_binop(None, operator, left, right)
        )

    def joined(self, parts: tuple[Any, ...]) -> str:
        return values.concat([str(values.text_of(part)) for part in parts])

    def made(self, value: Any) -> Any:
        return pay_for(value)

    def sliced(self, value: Any, *bounds: Any) -> Any:
        if not isinstance(value, str | list | tuple | range):
            return self.getitem(value, slice(*bounds))
        budget().spend(bytes_of(value) if isinstance(value, str) else 8 * len(value))
        return value[slice(*bounds)]

    def call(self, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:  # type: ignore[override]
        if type(function) is BuiltinMethodType:
            # What jinja2 hands to functions that ask for its context.
            named.pop("_loop_vars", None)
            named.pop("_block_vars", None)
            owner, name = function.__self__, function.__name__
            if isinstance(owner, str) and name in values.TEXT_METHODS:
                return values.call_text_method(function, arguments, named)
            if (isinstance(owner, dict) and name in values.DICT_METHODS) or (
                isinstance(owner, list | tuple) and name in values.LIST_METHODS
            ):
                budget().step(1 + len(owner) // 100)
                return function(*arguments, **named)
        elif (
            type(function) is MethodType
            and isinstance(function.__self__, Markup)
            and function.__name__ in values.TEXT_METHODS
        ):
            named.pop("_loop_vars", None)
            named.pop("_block_vars", None)
            return values.call_text_method(function, arguments, named)
        return super().call(context, function, *arguments, **named)

    def is_safe_callable(self, function: Any) -> bool:
        if isinstance(function, Macro | LoopContext | BlockReference | Undefined) or any(
            function is known for known in (*_GLOBALS.values(), _step)
        ):
            return True
        return (
            type(function) is MethodType
            and isinstance(function.__self__, LoopContext)
            and function.__name__ in ("cycle", "changed")
        )

    def getattr(self, owner: Any, attribute: str) -> Any:
        """The sandbox's own way takes longer than all else in a short loop: these it would always allow."""
        if type(owner) is dict and attribute in owner and not hasattr(dict, attribute):
            return owner[attribute]
        if type(owner) is LoopContext and attribute in _LOOP:
            return getattr(owner, attribute)
        return super().getattr(owner, attribute)

    def wrap_str_format(self, value: Any) -> Any:
        """Nothing to wrap: no template can reach it."""
        return None

    def is_safe_attribute(self, owner: Any, attribute: str, value: Any) -> bool:
        if isinstance(owner, str):
            return attribute in values.TEXT_METHODS
        if isinstance(owner, dict):
            return attribute in values.DICT_METHODS
        if isinstance(owner, list | tuple):
            return attribute in values.LIST_METHODS
        if isinstance(owner, LoopContext):
            return attribute in _LOOP
        if isinstance(owner, Namespace | Undefined):
            return not attribute.startswith("_")
        return isinstance(owner, Macro) and attribute in ("name", "arguments")


def _raise(message: Any) -> None:
    raise TemplateError(str(message)[:1000])


def _on_text(function: Callable[..., Any], factor: int = 3) -> Callable[..., Any]:
    """A filter on the text of a value, which is at most so many times as long afterwards."""

    def run(value: Any, *arguments: Any, **named: Any) -> Any:
        text = values.text_of(value)
        budget().spend(factor * bytes_of(text))
        return function(text, *arguments, **named)

    return run


def _lazily(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that gives its items one by one, each for a step."""

    @pass_context
    def run(context: Run, value: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
        for item in function(context, value, *arguments, **named):
            context.step()
            yield item

    return run


def _on_list(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at all items, some of them more than once."""

    @pass_environment
    def run(environment: Room, value: Any, *arguments: Any, **named: Any) -> Any:
        items = values.listed(value)
        budget().step(1 + 20 * len(items))
        found = function(environment, items, *arguments, **named)
        return values.listed(found) if isinstance(found, Iterator) else found

    return run


@pass_environment
def _join(environment: Room, value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(filters.make_attrgetter(environment, attribute), values.listed(value))
    return values.join(list(value) if isinstance(value, map) else value, d)


@pass_environment
def _sum(environment: Room, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if attribute is not None:
        value = [
            filters.make_attrgetter(environment, attribute)(item) for item in values.listed(value)
        ]
    return values.total(value, start)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text = values.text_of(value)
    values.check_indented(text, width)
    return filters.do_indent(text, width, first, blank)


def _reverse(value: Any) -> Any:
    return filters.do_reverse(value if isinstance(value, str) else values.listed(value))


def _dictsort(value: Any, *arguments: Any, **named: Any) -> Any:
    budget().step(1 + 20 * len(value))
    return pay_for(filters.do_dictsort(value, *arguments, **named))


def _number(test: Callable[..., bool]) -> Callable[..., bool]:
    """`is odd` is `% 2`, which formats where it is asked of a text."""

    def run(value: Any, *arguments: Any) -> bool:
        if not all(isinstance(one, int | float) for one in (value, *arguments)):
            raise TemplateError("only a number is odd, even or divisible")
        return test(value, *arguments)

    return run


_FILTERS: dict[str, Any] = {
    "abs": abs, "capitalize": _on_text(filters.do_capitalize), "count": len, "d": filters.do_default,
    "default": filters.do_default, "dictsort": _dictsort, "e": _on_text(escape, 6), "escape": _on_text(escape, 6),
    "first": filters.sync_do_first, "float": filters.do_float, "indent": _indent, "int": values.to_int, "items": filters.do_items,
    "join": _join, "last": filters.do_last, "length": len, "list": values.listed, "lower": _on_text(filters.do_lower),
    "map": _lazily(filters.sync_do_map), "max": _on_list(filters.do_max), "min": _on_list(filters.do_min),
    "reject": _lazily(filters.sync_do_reject), "rejectattr": _lazily(filters.sync_do_rejectattr), "replace": values.replace,
    "reverse": _reverse, "round": values.rounded, "safe": _on_text(Markup, 1), "select": _lazily(filters.sync_do_select),
    "selectattr": _lazily(filters.sync_do_selectattr), "sort": _on_list(filters.do_sort), "string": values.text_of, "sum": _sum,
    "title": _on_text(filters.do_title), "tojson": values.to_json, "trim": values.strip, "unique": _on_list(filters.sync_do_unique),
    "upper": _on_text(filters.do_upper),
}  # fmt: skip
_TESTS: dict[str, Any] = {
    **tests.TESTS,
    "odd": _number(tests.test_odd), "even": _number(tests.test_even), "divisibleby": _number(tests.test_divisibleby),
    "lower": _on_text(str.islower), "upper": _on_text(str.isupper),
}  # fmt: skip
_GLOBALS: dict[str, Any] = {
    "range": values.checked_range, "dict": values.checked_dict, "namespace": Namespace,
    "raise_exception": _raise, "strftime_now": values.strftime_now,
}  # fmt: skip
