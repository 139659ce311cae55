"""/diff: attach the changes of the working tree to the next message."""

from pathlib import Path

from llmchat.errors import UsageError
from llmchat.plugins.hooks import hookimpl
from llmchat.ui.slash import Answer, Command
from llmchat.ui.state import ReplState
from llmchat_git.git import PLAIN, git


@hookimpl
def slash() -> Command:
    about = (
        "Attach the changes of the working tree, or of a revision or range, to your next message."
    )
    return Command("diff", "[revision]", about, attach_diff)


def attach_diff(state: ReplState, rest: str) -> Answer:
    revision = ["--end-of-options", rest] if rest else ["HEAD"]
    text = git(Path(), "diff", *PLAIN, *revision, "--")
    if not text:
        raise UsageError("there are no changes", "`/diff main` compares with a branch")
    state.attached["git diff"] = text
    tokens = state.count(text)
    state.print(f"the diff is attached{'' if tokens is None else f': {tokens:,} tokens'}")
    return None
