"""The filters, tests and globals that a chat template may use; there are no others.

Those that can make something large or take long pay from the budget of the run.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import TemplateError, filters, tests  # noqa: TID253 (see sandbox)
from jinja2.utils import Namespace, pass_context, pass_environment  # noqa: TID253
from markupsafe import Markup, escape

from llmchat.chat_template import values
from llmchat.chat_template.budget import text_size

_MAX_MESSAGE = 1000
# Sorting and the like look at each item several times.
_STEPS_PER_ITEM = 20


def _paid(function: Callable[..., Any]) -> Any:
    """A function of `values`, with the budget of the run as its first argument."""

    @pass_environment
    def run(environment: Any, *arguments: Any, **named: Any) -> Any:
        return function(environment.budget, *arguments, **named)

    return run


def _on_text(function: Callable[..., Any], growth: int = 3) -> Any:
    """A filter on the text of a value, which makes it at most `growth` times as long."""

    @pass_environment
    def run(environment: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        text = values.text_of(environment.budget, value)
        environment.budget.spend(growth * text_size(text))
        return function(text, *arguments, **named)

    return run


def _on_list(function: Callable[..., Any]) -> Any:
    """A filter that looks at all items, at some of them more than once."""

    @pass_environment
    def run(environment: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        budget = environment.budget
        items = values.to_list(budget, value)
        budget.step(1 + _STEPS_PER_ITEM * len(items))
        found = function(environment, items, *arguments, **named)
        return values.to_list(budget, found) if isinstance(found, Iterator) else found

    return run


def _lazy(function: Callable[..., Any]) -> Any:
    """A filter that yields its items one by one, each for a step."""

    @pass_context
    def run(context: Any, value: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
        for item in function(context, value, *arguments, **named):
            context.step()
            yield item

    return run


def _on_numbers(test: Callable[..., bool]) -> Callable[..., bool]:
    """A test of numbers. `is odd` is `% 2`, which would format a text."""

    def run(value: Any, *arguments: Any) -> bool:
        if not all(isinstance(one, int | float) for one in (value, *arguments)):
            raise TemplateError("only a number is odd, even or divisible")
        return test(value, *arguments)

    return run


@pass_environment
def _join(environment: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = _attributes(environment, value, attribute)
    return values.join(environment.budget, value, d)


@pass_environment
def _sum(environment: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if attribute is not None:
        value = _attributes(environment, value, attribute)
    return values.total(environment.budget, value, start)


def _attributes(environment: Any, value: Any, attribute: Any) -> list[Any]:
    get = filters.make_attrgetter(environment, attribute)
    return [get(item) for item in values.to_list(environment.budget, value)]


@pass_environment
def _indent(
    environment: Any, value: Any, width: Any = 4, first: bool = False, blank: bool = False
) -> str:
    text = values.text_of(environment.budget, value)
    values.pay_for_indent(environment.budget, text, width)
    return filters.do_indent(text, width, first, blank)


@pass_environment
def _reverse(environment: Any, value: Any) -> Any:
    items = value if isinstance(value, str) else values.to_list(environment.budget, value)
    return filters.do_reverse(items)


@pass_environment
def _dictsort(environment: Any, value: Any, *arguments: Any, **named: Any) -> Any:
    environment.budget.step(1 + _STEPS_PER_ITEM * len(value))
    return environment.budget.pay_for(filters.do_dictsort(value, *arguments, **named))


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message)[:_MAX_MESSAGE])


FILTERS: dict[str, Any] = {
    "abs": abs,
    "capitalize": _on_text(filters.do_capitalize),
    "count": len,
    "d": filters.do_default,
    "default": filters.do_default,
    "dictsort": _dictsort,
    "e": _on_text(escape, 6),
    "escape": _on_text(escape, 6),
    "first": filters.sync_do_first,
    "float": filters.do_float,
    "indent": _indent,
    "int": values.to_int,
    "items": filters.do_items,
    "join": _join,
    "last": filters.do_last,
    "length": len,
    "list": _paid(values.to_list),
    "lower": _on_text(filters.do_lower),
    "map": _lazy(filters.sync_do_map),
    "max": _on_list(filters.do_max),
    "min": _on_list(filters.do_min),
    "reject": _lazy(filters.sync_do_reject),
    "rejectattr": _lazy(filters.sync_do_rejectattr),
    "replace": _paid(values.replace),
    "reverse": _reverse,
    "round": values.rounded,
    "safe": _on_text(Markup, 1),
    "select": _lazy(filters.sync_do_select),
    "selectattr": _lazy(filters.sync_do_selectattr),
    "sort": _on_list(filters.do_sort),
    "string": _paid(values.text_of),
    "sum": _sum,
    "title": _on_text(filters.do_title),
    "tojson": _paid(values.to_json),
    "trim": _paid(values.strip),
    "unique": _on_list(filters.sync_do_unique),
    "upper": _on_text(filters.do_upper),
}
TESTS: dict[str, Any] = {
    **tests.TESTS,
    "odd": _on_numbers(tests.test_odd),
    "even": _on_numbers(tests.test_even),
    "divisibleby": _on_numbers(tests.test_divisibleby),
    "lower": _on_text(str.islower),
    "upper": _on_text(str.isupper),
}
GLOBALS: dict[str, Any] = {
    "range": values.short_range,
    "dict": _paid(values.to_dict),
    "namespace": Namespace,
    "raise_exception": _raise_exception,
    "strftime_now": values.strftime_now,
}
