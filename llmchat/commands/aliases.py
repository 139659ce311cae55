"""What people type, as the command line that it means: aliases, `llmchat "text"`, `llmchat help`."""

import difflib
from collections.abc import Collection, Sequence

# Names of other tools that people try first → ours.
_ALIASES = {"list": "ls", "models": "ls", "run": "chat"}
# How like a command's name a lone word must be to be taken for a slip of the finger.
_NEARLY = 0.75
_OF_TYPER = ("-h", "--help", "--install-completion", "--show-completion")


def meant(argv: Sequence[str], commands: Collection[str]) -> list[str]:
    """The arguments with a command in front. commands: the names that llmchat has.

    Nothing, or an option, opens a chat; a first word that is no command is a question.
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
        return [*meant(rest, commands), "--help"] if rest else ["--help"]
    if first == "run":
        return ["chat", *_run(rest)]
    if first in _ALIASES:
        return [_ALIASES[first], *rest]
    return list(argv) if _slip(first, commands) else ["chat", *argv]


def _run(rest: list[str]) -> list[str]:
    """`run MODEL [PROMPT]` as ollama has it."""
    return ["--model", *rest] if rest and not rest[0].startswith("-") else rest


def _slip(word: str, commands: Collection[str]) -> bool:
    known = (*commands, *_ALIASES, "help")
    return (
        word.isascii()
        and word.isalpha()
        and bool(difflib.get_close_matches(word, known, 1, _NEARLY))
    )
