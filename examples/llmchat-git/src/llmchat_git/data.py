"""Training data `git:REPO`: a record for each commit, its diff as the input, its message as the
output.
"""

from collections.abc import Iterator
from pathlib import Path

from llmchat.plugins.hooks import hookimpl
from llmchat_git.commit import INSTRUCTION
from llmchat_git.git import PLAIN, git

# A diff above it teaches little about its message, and does not fit a window.
_MOST = 8_000


@hookimpl
def data(argument: str) -> Iterator[dict[str, str]]:
    """Commits with one parent, newest first; those with long or empty diffs are left out."""
    folder = Path(argument or ".").expanduser()
    for commit in git(folder, "rev-list", "--no-merges", "HEAD").split():
        diff = git(folder, "show", *PLAIN, "--format=", commit).strip("\n")
        if 0 < len(diff) <= _MOST:
            message = git(folder, "show", "--no-patch", "--format=%B", commit).strip()
            yield {"instruction": INSTRUCTION, "input": diff, "output": message}
