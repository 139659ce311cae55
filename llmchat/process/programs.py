"""Programs that llmchat starts, so that none of them is taken from the folder the user happens to be in.

`python -m` and `python -c` look for modules in the current folder first, and an empty entry of PATH stands for that folder.
"""

import os
import shutil
import sys
from collections.abc import Mapping

# Tells every Python, and those it starts in turn, not to look for modules in the current folder.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def python(*arguments: str) -> tuple[str, ...]:
    """The command that runs this Python with `arguments`; it imports nothing from the current folder."""
    return (sys.executable, "-P", *arguments)


def which(name: str, env: Mapping[str, str]) -> str | None:
    """The program `name` on the PATH of `env`, without the entries that depend on the current folder.

    A name with a `/` is a path that somebody gave, and stands as it is.
    """
    if "/" in name:
        return shutil.which(name)
    entries = env.get("PATH", os.defpath).split(os.pathsep)
    absolute = os.pathsep.join(entry for entry in entries if os.path.isabs(entry))
    return shutil.which(name, path=absolute) if absolute else None
