"""Chat templates: Jinja programs that come with a checkpoint, so nothing they do is trusted.

They run in jinja2's sandbox, and within limits: of steps, which are compiled into the template, so that no loop runs for ever; of output; of what
one operation may make; and of the memory all of it takes.
"""

import contextlib
import datetime
import functools
import json
import re
import resource
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from llmchat.errors import Mismatch

# Blocks of a template that may be entered (bodies of loops, conditions and macros) and assignments that may be made. The longest conversations of real templates need some thousands.
MAX_STEPS = 500_000
MAX_OUTPUT = 50_000_000
# Growth of the process while a template runs, in KiB, beyond which it is stopped.
MAX_GROWTH = 400_000
# The largest number that may be given to a function, and the longest text or list that one operation may make.
MAX_SIZE = 10_000_000

# To ask the system for the memory in use takes as long as some steps. It is asked every few of them, and once something this large was made.
_LOOK_EVERY = 8
_LARGE = 100_000

# How many `memory_grows` are under way, and how many have ended; how many large things templates have made.
_growing = _grown = _made = 0

# What templates use to tell speakers apart: <|im_start|>, <start_of_turn>, </s>, [INST], <<SYS>>.
_LABEL = re.compile(r"<[|｜][\w ▁]+[|｜]>|<</?\w+>>|</?[a-z]\w*>|\[/?[A-Z][A-Z_]*\]")
# Filters and methods that pad or repeat: no chat template needs them, and one call can fill the memory.
_FILTERS = ("center", "indent", "format", "wordwrap", "batch", "slice", "xmlattr", "pprint", "filesizeformat", "urlize")
_METHODS = ("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map")
# What a template may ask of its loop without the sandbox looking at it.
_LOOP = ("first", "last", "index", "index0")


def run(template: str, variables: Mapping[str, Any], name: str) -> str:
    """The text a template makes of these variables. Raises Mismatch when it refuses them, is no template, or goes beyond its limits."""
    import jinja2

    try:
        return _written(_compile(template), variables)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise Mismatch(f"the chat template of `{name}` refuses this conversation: {error}") from error


@contextlib.contextmanager
def memory_grows() -> Iterator[None]:
    """While this lasts the process takes memory for something else (a server loads a model), which no template is blamed for."""
    global _growing, _grown
    _growing += 1
    try:
        yield
    finally:
        _growing -= 1
        _grown += 1


def labels(template: str) -> frozenset[str]:
    """The marks in a template that could pose as its own, were they written into a message."""
    return frozenset(_LABEL.findall(template))


def _written(program: Any, variables: Mapping[str, Any]) -> str:
    import jinja2

    pieces, size = [], 0
    for piece in program.generate(**variables):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_OUTPUT:
            raise jinja2.TemplateError(f"it writes more than {MAX_OUTPUT:,} characters")
    return "".join(pieces)


def _peak() -> int:
    """The most memory this process has held, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> Any:
    """A template with the few names that templates on the Hub rely on."""
    from jinja2 import TemplateError, nodes
    from jinja2.compiler import CodeGenerator, Frame
    from jinja2.ext import Extension
    from jinja2.runtime import Context, LoopContext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Counted(CodeGenerator):
        """Each block of a template begins with a step, and so does each assignment: what is kept grows by them. Joining by ~ knows its size."""

        def blockvisit(self, nodes: Any, frame: Frame) -> None:
            self.writeline("context.step()")
            super().blockvisit(nodes, frame)

        def visit_Assign(self, node: nodes.Assign, frame: Frame) -> None:
            self.writeline("context.step()")
            super().visit_Assign(node, frame)

        def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:
            self.writeline("context.step()")
            super().visit_AssignBlock(node, frame)

        def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
            self.write("context.joined((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
            """`a + b + c` in one call, for a long chat writes hundreds of them a turn."""
            parts: list[nodes.Expr] = [node.right]
            first = node.left
            while isinstance(first, nodes.Add):
                parts.append(first.right)
                first = first.left
            self.write("context.added((")
            for part in (first, *reversed(parts)):
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_For(self, node: nodes.For, frame: Frame) -> None:
            """`for … if …` passes over items without entering the body: looking at one is a step too."""
            if node.test:
                step = nodes.Getattr(nodes.ContextReference(), "step", "load")
                node.test = nodes.And(nodes.Call(step, [], [], None, None), node.test)
            super().visit_For(node, frame)

    class Run(Context):
        """One run of a template, in any thread."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._steps, self._most, self._grown, self._made = count(1), _peak() + MAX_GROWTH, _grown, _made

        def derived(self, locals: dict[str, Any] | None = None) -> "Run":
            run: Run = super().derived(locals)  # type: ignore[assignment]
            run._steps, run._most, run._grown, run._made = self._steps, self._most, self._grown, self._made
            return run

        def step(self) -> bool:
            steps = next(self._steps)
            if steps > MAX_STEPS:
                raise TemplateError(f"it takes more than {MAX_STEPS:,} steps")
            if steps % _LOOK_EVERY == 0 or self._made != _made:
                self._made = _made
                if _peak() > self._most and not _growing and self._grown == _grown:
                    raise TemplateError("it takes too much memory")
            return True

        def added(self, parts: tuple[Any, ...]) -> Any:
            if all(type(part) is str for part in parts):
                check(sum(map(len, parts)))
                return "".join(parts)
            total = parts[0]
            for part in parts[1:]:
                total = self.environment.call_binop(self, "+", total, part)  # type: ignore[attr-defined]
            return total

        def joined(self, parts: tuple[Any, ...]) -> str:
            pieces = [str(part) for part in parts]
            check(_joined(pieces, ""))
            return "".join(pieces)

    class Room(ImmutableSandboxedEnvironment):
        code_generator_class = Counted
        context_class = Run
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            if not numbers and operator in ("**", "%"):
                raise TemplateError(f"it uses {operator} in a way that no chat template needs")
            check((_length(left) + _length(right)) if operator == "+" else _length(left) * _length(right))
            if operator == "**":
                check(int(abs(right) * 10))
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:
            for value in (*arguments, *named.values()):
                check(abs(value) if isinstance(value, int) else 0)
            owner = getattr(function, "__self__", None)
            if isinstance(owner, str) and function.__name__ == "replace":
                check(_replaced(owner, *arguments[:2]))
            if isinstance(owner, str) and function.__name__ == "join":
                check(_joined(arguments[0], owner))
            return super().call(context, function, *arguments, **named)

        def getattr(self, owner: Any, attribute: str) -> Any:
            """The sandbox's own way takes longer than all else in a short loop: these it would always allow."""
            if type(owner) is LoopContext and attribute in _LOOP:
                return getattr(owner, attribute)
            if type(owner) is dict and attribute in owner and not hasattr(dict, attribute):
                return owner[attribute]
            return super().getattr(owner, attribute)

        def wrap_str_format(self, value: Any) -> Any:
            if isinstance(getattr(value, "__self__", None), str) and value.__name__ in _METHODS:
                return lambda *arguments, **named: refuse("it uses format, which no chat template needs")
            return None

        def is_safe_attribute(self, owner: Any, attribute: str, value: Any) -> bool:
            return attribute not in _METHODS and super().is_safe_attribute(owner, attribute, value)

    class Generation(Extension):
        """`{% generation %}`: marks what the model writes. What stands in it is rendered as it is."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def check(size: int) -> None:
        global _made
        if size > MAX_SIZE:
            raise TemplateError(f"it makes or asks for something larger than {MAX_SIZE:,}")
        _made += size > _LARGE

    def replace(text: Any, old: str, new: str, count: int | None = None) -> str:
        check(_replaced(str(text), old, new))
        return str(text).replace(old, new, -1 if count is None else count)

    def join(values: Any, between: str = "", attribute: str | None = None) -> str:
        pieces = [str(value[attribute]) if attribute else str(value) for value in values]
        check(_joined(pieces, between))
        return between.join(pieces)

    room = Room(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    for name in _FILTERS:
        room.filters.pop(name, None)
    room.filters |= {"tojson": _to_json, "replace": replace, "join": join}
    room.globals["raise_exception"] = refuse
    room.globals["strftime_now"] = lambda pattern: datetime.datetime.now().strftime(pattern)
    return room.from_string(template)


def _length(value: Any) -> int:
    """How long a repetition gets by this factor, or this text or list is; 1 for everything else."""
    return abs(value) if isinstance(value, int) else len(value) if isinstance(value, str | list | tuple) else 1


def _replaced(text: str, old: str, new: str) -> int:
    return len(text) + text.count(old) * len(new)


def _joined(pieces: Any, between: str) -> int:
    return sum(len(str(piece)) + len(between) for piece in pieces)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Without HTML's escapes, unlike jinja2's own; the arguments are those that transformers gives it."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=min(indent, 16) if indent else None, separators=separators, sort_keys=sort_keys
    )
