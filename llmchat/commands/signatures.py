"""The signatures of commands, from which Typer takes their flags."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from msgspec import Struct

Command = Callable[..., None]


def with_flags(
    command: Command,
    flags: Mapping[str, Any],
    before: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> Command:
    """Insert flags, by name, into the signature that Typer reads; their default is None."""
    given = defaults or {}
    signature = inspect.signature(command, eval_str=True).parameters.values()
    own = [one for one in signature if one.kind is not one.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=given.get(name), annotation=flag
        )
        for name, flag in flags.items()
    ]
    place = [one.name for one in own].index(before) if before else len(own)
    # Typer passes all arguments by name; keyword-only parameters may be in any order.
    ordered = [*own[:place], *added, *own[place:]]
    keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in ordered]
    command.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return command


def with_flags_of(flags: type[Struct]) -> Callable[[Command], Command]:
    """Add the fields of a struct to a command, each as the flag of its annotation."""

    def decorate(command: Command) -> Command:
        kinds = get_type_hints(flags, include_extras=True)
        defaults = dict(zip(flags.__struct_fields__, flags.__struct_defaults__, strict=True))
        return with_flags(command, {name: kinds[name] for name in defaults}, defaults=defaults)

    return decorate
