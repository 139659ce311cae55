"""The jinja2 environment of chat templates.

A template can reach only what is listed here and in `filters`: filters, tests, globals, methods
and attributes. Every run has an environment of its own, which holds the budget of the run.
"""

import functools
from types import BuiltinMethodType, CodeType, MethodType
from typing import Any

from jinja2 import Undefined, nodes  # noqa: TID253 (imported when a template is compiled)
from jinja2.environment import Template  # noqa: TID253
from jinja2.ext import Extension  # noqa: TID253
from jinja2.runtime import BlockReference, Context, LoopContext, Macro  # noqa: TID253
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: TID253
from jinja2.utils import Namespace, pass_environment  # noqa: TID253
from markupsafe import Markup

from llmchat.chat_template import values
from llmchat.chat_template.budget import BeyondLimits, Budget, text_size
from llmchat.chat_template.code_generator import PayingCodeGenerator
from llmchat.chat_template.filters import FILTERS, GLOBALS, TESTS

# The most characters of a template.
MAX_TEMPLATE = 300_000
_LOOP_ATTRIBUTES = frozenset({
    "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length",
    "nextitem", "previtem", "revindex", "revindex0",
})  # fmt: skip
_LOOP_METHODS = ("cycle", "changed")


def compile_template(source: str) -> CodeType:
    """The compiled program. Raises BeyondLimits, and what jinja2 raises for an invalid template."""
    if len(source) > MAX_TEMPLATE:
        raise BeyondLimits(f"has more than {MAX_TEMPLATE:,} characters")
    return _base().with_budget(Budget()).compile(source)


def template_of(code: CodeType, budget: Budget) -> Template:
    """A template that pays from this budget."""
    sandbox = _base().with_budget(budget)
    return Template.from_code(sandbox, code, sandbox.make_globals(None))


class RunContext(Context):
    """The variables of one run."""

    environment: "Sandbox"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.step = self.environment.step


class GenerationBlock(Extension):
    """`{% generation %}` marks what the model writes. Its content is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@pass_environment
def _finalize(environment: "Sandbox", value: Any) -> str:
    return value if type(value) is str else values.text_of(environment.budget, value)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one run. Compiled templates call its methods."""

    code_generator_class = PayingCodeGenerator
    context_class = RunContext
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationBlock],
        )
        self.filters = dict(FILTERS)
        self.tests = dict(TESTS)
        self.globals = dict(GLOBALS)
        self.budget = Budget()
        self.step = self.budget.step

    def with_budget(self, budget: Budget) -> "Sandbox":
        """The same environment for a run with this budget."""
        sandbox = self.overlay()
        sandbox.budget = budget
        sandbox.step = budget.step
        return sandbox

    def concat(self, pieces: Any) -> str:  # type: ignore[override]
        """The text of a macro, a call block or a set block."""
        return values.concat(self.budget, pieces)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        values.pay_for_operator(self.budget, operator, left, right)
        return self.binop_table[operator](left, right)

    def add(self, parts: tuple[Any, ...]) -> Any:
        """`a + b + …`"""
        return values.add_all(
            self.budget, parts, lambda left, right: self.call_binop(None, "+", left, right)
        )

    def join_texts(self, parts: tuple[Any, ...]) -> str:
        """`a ~ b ~ …`"""
        budget = self.budget
        return values.concat(budget, [str(values.text_of(budget, part)) for part in parts])

    def pay_for(self, value: Any) -> Any:
        """A list, tuple or dict that the template writes out."""
        return self.budget.pay_for(value)

    def slice(self, value: Any, *bounds: Any) -> Any:
        """`value[start:stop:step]`"""
        if not isinstance(value, str | list | tuple | range):
            return self.getitem(value, slice(*bounds))
        self.budget.spend(text_size(value) if isinstance(value, str) else 8 * len(value))
        return value[slice(*bounds)]

    def call(  # type: ignore[override]
        self, context: Any, function: Any, *arguments: Any, **named: Any
    ) -> Any:
        if _is_text_method(function):
            return values.call_text_method(self.budget, function, arguments, _own(named))
        if _is_collection_method(function):
            self.step(1 + len(function.__self__) // 100)
            return function(*arguments, **_own(named))
        return super().call(context, function, *arguments, **named)

    def is_safe_callable(self, function: Any) -> bool:
        if isinstance(function, Macro | LoopContext | BlockReference | Undefined):
            return True
        if function is self.step or any(function is known for known in GLOBALS.values()):
            return True
        return (
            type(function) is MethodType
            and isinstance(function.__self__, LoopContext)
            and function.__name__ in _LOOP_METHODS
        )

    def getattr(self, owner: Any, attribute: str) -> Any:
        """A short cut for what is always allowed: the check dominates the time of a short loop."""
        if type(owner) is dict and attribute in owner and not hasattr(dict, attribute):
            return owner[attribute]
        if type(owner) is LoopContext and attribute in _LOOP_ATTRIBUTES:
            return getattr(owner, attribute)
        return super().getattr(owner, attribute)

    def wrap_str_format(self, value: Any) -> Any:
        """No template can reach str.format itself, so there is nothing to wrap."""
        return None

    def is_safe_attribute(self, owner: Any, attribute: str, value: Any) -> bool:
        if isinstance(owner, str):
            return attribute in values.TEXT_METHODS
        if isinstance(owner, dict):
            return attribute in values.DICT_METHODS
        if isinstance(owner, list | tuple):
            return attribute in values.LIST_METHODS
        if isinstance(owner, LoopContext):
            return attribute in _LOOP_ATTRIBUTES
        if isinstance(owner, Namespace | Undefined):
            return not attribute.startswith("_")
        return isinstance(owner, Macro) and attribute in ("name", "arguments")


@functools.cache
def _base() -> Sandbox:
    return Sandbox()


def _is_text_method(function: Any) -> bool:
    if type(function) is BuiltinMethodType:
        return isinstance(function.__self__, str) and function.__name__ in values.TEXT_METHODS
    return (
        type(function) is MethodType
        and isinstance(function.__self__, Markup)
        and function.__name__ in values.TEXT_METHODS
    )


def _is_collection_method(function: Any) -> bool:
    if type(function) is not BuiltinMethodType:
        return False
    owner, name = function.__self__, function.__name__
    if isinstance(owner, dict):
        return name in values.DICT_METHODS
    return isinstance(owner, list | tuple) and name in values.LIST_METHODS


def _own(named: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that jinja2 adds for functions that ask for its context."""
    named.pop("_loop_vars", None)
    named.pop("_block_vars", None)
    return named
