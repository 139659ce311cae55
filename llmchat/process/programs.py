"""Starts programs without running anything from the current folder.

`python -m` and `python -c` look for modules in the current folder first, and an empty entry of PATH
means that folder.
"""

import os
import shutil
import sys
from collections.abc import Mapping

# Keeps a Python, and those it starts, from looking for modules in the current folder.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def python(*arguments: str) -> tuple[str, ...]:
    """The command that runs this Python without importing from the current folder."""
    return (sys.executable, "-P", *arguments)


def isolated_python(*arguments: str) -> tuple[str, ...]:
    """The command that runs this Python without the current folder, the user's packages and the
    variables of Python.
    """
    return (sys.executable, "-I", *arguments)


def which(name: str, env: Mapping[str, str]) -> str | None:
    """The program `name` on the PATH of `env`, without entries relative to the current folder.

    A name with a `/` is a path, and is used as it is.
    """
    if "/" in name:
        return shutil.which(name)
    entries = env.get("PATH", os.defpath).split(os.pathsep)
    absolute = os.pathsep.join(entry for entry in entries if os.path.isabs(entry))
    return shutil.which(name, path=absolute) if absolute else None
