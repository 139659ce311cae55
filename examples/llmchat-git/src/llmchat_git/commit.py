"""`llmchat commit`: a model writes the subject of the commit message, you edit it.

The subject is bound by a regular expression, so it is one line of at most 72 characters whatever
the model would rather write.
"""

import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

import llmchat
from llmchat.errors import ContextOverflow, UsageError
from llmchat.plugins.hooks import hookimpl
from llmchat.settings import World
from llmchat_git.git import PLAIN, git, shortened

INSTRUCTION = (
    "Write the subject line of the commit message for this change: imperative mood, at most 72"
    " characters, no full stop."
)
# A diff that is not shortened any more.
_SHORTEST = 500
_SUBJECT = r"regex [A-Z][^\n]{2,70}[^\n.\s]"

_Model = Annotated[
    str | None, typer.Option("-m", "--model", help="The model that writes the message.")
]
_All = Annotated[
    bool, typer.Option("-a", "--all", help="Take all changed files, as `git commit -a` does.")
]
_Print = Annotated[bool, typer.Option("--print", help="Print the message, and commit nothing.")]
_Yes = Annotated[bool, typer.Option("-y", "--yes", help="Commit without opening the editor.")]


@hookimpl
def command() -> Any:
    return commit


def commit(
    ctx: typer.Context,
    model: _Model = None,
    all: _All = False,
    print_only: _Print = False,
    yes: _Yes = False,
) -> None:
    """Write a commit message for the staged changes, and open it in your editor."""
    world: World = ctx.obj
    diff = git(Path(), "diff", *PLAIN, "HEAD" if all else "--staged")
    if not diff:
        raise UsageError("nothing is staged", "`git add` stages changes; -a takes all of them")
    message = _written(world, model, diff)
    if print_only or not (yes or world.interactive):
        print(message, file=world.stdout)
    else:
        _commit(message, all=all, edit=not yes)


def _written(world: World, model: str | None, diff: str) -> str:
    """The message that a model writes for a diff; of a long one it reads the beginning."""
    with llmchat.open(model, schema=_SUBJECT, world=world) as chat:
        while True:
            try:
                return chat.new().ask(INSTRUCTION, input=diff).text
            except ContextOverflow:
                if len(diff) < _SHORTEST:
                    raise
                diff = shortened(diff, len(diff) // 2)


def _commit(message: str, *, all: bool, edit: bool) -> None:
    """git itself commits, with the user's hooks and editor; its exit code becomes ours."""
    flags = [flag for flag, given in (("--all", all), ("--edit", edit)) if given]
    command = ["git", "commit", *flags, "--message", message]
    if code := subprocess.run(command).returncode:
        raise typer.Exit(code)
