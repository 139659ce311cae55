"""The tool `python`: runs code in a confined process of its own, in a folder that is removed.

The code has no network, starts no process, writes nowhere else, and sees no variable of the user's
environment. `confinement` and `system_calls` say how; where they cannot work, there is no tool.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

from llmchat.errors import UsageError
from llmchat.tools import Output, Tool, ToolSettings
from llmchat.tools.files.root import Root, is_closed
from llmchat.tools.python.confinement import landlock_version
from llmchat.tools.python.running import Limits, run_confined
from llmchat.tools.python.system_calls import can_confine
from llmchat.tools.python.workspace import workspace

# What the user's environment passes on: nothing that could be a token.
_KEPT = ("TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
# Most entries of the root that are opened to the code.
_MOST_ENTRIES = 2_000
_LIMITS = Limits()
_UNPROTECTED = "[this kernel has no Landlock: the code could read and write the user's files]"


def tools(settings: ToolSettings) -> list[Tool]:
    if not can_confine():
        raise UsageError(
            "the tool `python` needs Linux with seccomp filters, on x86-64 or ARM64",
            "leave it out",
        )
    return [PythonTool(Root(settings.root).path, settings.world.env)]


class PythonTool:
    """Small models cannot run code in their heads, so this does."""

    group = "python"
    name = "python"
    origin = ""
    description = (
        "Run Python code. Returns what it prints and the value of the last line. "
        "The user's files are in the folder `files`, read-only. No network."
    )
    parameters = {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
        "additionalProperties": False,
    }
    read_only = False

    def __init__(self, root: Path, env: Mapping[str, str], limits: Limits = _LIMITS):
        self._root, self._env, self._limits = root, env, limits

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        with workspace() as folder:
            (folder / "files").symlink_to(self._root)
            request = {"code": arguments["code"], **_open_files(self._root)}
            text = run_confined(
                request, folder, _environment(self._env, folder), self._limits, stop
            )
        notice = "" if landlock_version() else f"\n{_UNPROTECTED}"
        return Output(text + notice, untrusted=True)


def _open_files(root: Path) -> dict[str, list[str]]:
    """What the code may see below the root: all but hidden entries and keys."""
    with os.scandir(root) as entries:
        paths = [
            entry.path
            for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)
            if not is_closed(entry.name) and not entry.is_symlink()
        ]
    return {"readable": paths, "listable": [str(root)]}


def _environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    return {
        **{name: env[name] for name in _KEPT if name in env},
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "MPLBACKEND": "Agg",
        # Each thread of a numeric library would reserve memory of its own.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
