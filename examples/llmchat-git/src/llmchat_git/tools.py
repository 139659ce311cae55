"""The tools of the group `git`: log, diff and show, for what is below the root of the chat."""

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from llmchat.plugins.hooks import hookimpl
from llmchat.tools import Output, Tool, ToolError, ToolSettings
from llmchat_git.git import PLAIN, git, shortened

_MOST = 12_000
_REVISION = {"type": "string", "description": "A branch, tag or commit, or a range a..b."}
_PATH = {"type": "string", "description": "A file or folder."}

Arguments = dict[str, Any]


class GitTool:
    """A git command that only reads. command: its arguments, from those of the call."""

    group = "git"
    origin = "llmchat-git"
    read_only = True

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Arguments,
        required: list[str],
        root: Path,
        command: Callable[[Arguments], list[str]],
    ):
        self.name, self.description = name, description
        self.parameters = {
            "type": "object",
            "properties": parameters,
            "required": required,
            "additionalProperties": False,
        }
        self._root, self._command = root, command

    def run(self, arguments: Arguments, stop: Event) -> Output:
        path = _below(self._root, arguments.get("path") or ".")
        text = git(self._root, *self._command(arguments), "--", path, stop=stop)
        # Authors of commits write what they like.
        return Output(shortened(text, _MOST) or "nothing", untrusted=True)


def _below(root: Path, path: str) -> str:
    """The path, if it is below the root."""
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise ToolError(f"{path} is outside of the root")
    return path


def _log(arguments: Arguments) -> list[str]:
    count = min(int(arguments.get("count", 20)), 100)
    search = arguments.get("search")
    found = [f"--grep={search}", "--regexp-ignore-case"] if search else []
    form = "--format=%h %as %an: %s"
    return ["log", f"--max-count={count}", form, *found, *_revision(arguments)]


def _diff(arguments: Arguments) -> list[str]:
    return ["diff", *PLAIN, "--stat", "--patch", *_revision(arguments)]


def _show(arguments: Arguments) -> list[str]:
    return ["show", *PLAIN, "--stat", "--patch", *_revision(arguments)]


def _revision(arguments: Arguments) -> list[str]:
    revision = arguments.get("revision")
    return ["--end-of-options", revision] if revision else []


@hookimpl
def tools(settings: ToolSettings) -> list[Tool]:
    made = (
        ("git_log", "List commits, newest first.", _LOG, [], _log),
        ("git_diff", "Show uncommitted changes, or those of a range.", _CHANGES, [], _diff),
        ("git_show", "Show a commit with its changes.", _CHANGES, ["revision"], _show),
    )
    return [
        GitTool(name, about, parameters, required, settings.root, command)
        for name, about, parameters, required, command in made
    ]


_CHANGES = {"revision": _REVISION, "path": _PATH}
_LOG = {
    "search": {"type": "string", "description": "Words of the message."},
    "count": {"type": "integer", "minimum": 1, "maximum": 100},
    **_CHANGES,
}
