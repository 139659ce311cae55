"""Turns aliases, `llmchat "text"` and `llmchat help` into ordinary command lines."""

import difflib
from collections.abc import Collection, Sequence

# Names of other tools that people try first → ours.
_ALIASES = {"list": "ls", "models": "ls", "run": "chat"}
# How similar to a command a single word must be to count as a typo.
_TYPO_SIMILARITY = 0.75
_OF_TYPER = ("-h", "--help", "--install-completion", "--show-completion")


def resolve_aliases(argv: Sequence[str], commands: Collection[str]) -> list[str]:
    """The arguments with a command in front. commands: the names of all commands.

    No arguments, or an option, open a chat; a first word that is not a command is a question.
    """
    if not argv:
        return ["chat"]
    first, *rest = argv
    if first in ("-V", "--version"):
        return ["--version"]
    if first.startswith("-"):
        return list(argv) if first in _OF_TYPER else ["chat", *argv]
    if first in commands:
        return list(argv)
    if first == "help":
        return [*resolve_aliases(rest, commands), "--help"] if rest else ["--help"]
    if first == "run":
        return ["chat", *_run(rest)]
    if first in _ALIASES:
        return [_ALIASES[first], *rest]
    return list(argv) if _is_typo(first, commands) else ["chat", *argv]


def _run(rest: list[str]) -> list[str]:
    """`run MODEL [PROMPT]` as ollama has it."""
    return ["--model", *rest] if rest and not rest[0].startswith("-") else rest


def _is_typo(word: str, commands: Collection[str]) -> bool:
    known = (*commands, *_ALIASES, "help")
    return (
        word.isascii()
        and word.isalpha()
        and bool(difflib.get_close_matches(word, known, 1, _TYPO_SIMILARITY))
    )
