"""The signatures of commands, from which Typer takes their flags."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

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
