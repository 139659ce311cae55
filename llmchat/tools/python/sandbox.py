"""Run code in this process after confining it: a script, started by the tool `python`.

Reads a JSON object from stdin: code, limits, and the folders and files it may use. Prints what the
code prints and, as a notebook does, the value of its last expression. Imports the standard library
only, and `confinement` and `system_calls` beside it.
"""

import ast
import json
import linecache
import os
import sys
import traceback
import types
from errno import EACCES, EPERM
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

# Exit codes of our own: an exception was printed; the process could not be confined.
FAILED = 120
NOT_CONFINED = 121
_NAME = "<code>"
_MOST_FRAMES = 5
_HEAD = "Traceback (most recent call last):\n"
_CLOSED = "[here is no network and no other program; only the current folder can be written to]\n"
# What Python and its libraries read of the system.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/lib32", "/nix/store",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/mime.types", "/etc/ssl/certs",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu",
    "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip


def main() -> int:
    request = json.loads(os.fdopen(os.dup(0), "rb").read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        _confine(request)
    except Exception as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return NOT_CONFINED
    return _run(request["code"])


def _confine(request: dict[str, Any]) -> None:
    # Afterwards this folder may be closed.
    confinement, system_calls = _sibling("confinement"), _sibling("system_calls")
    confinement.die_with_parent()
    confinement.limit(request["memory"], request["seconds"], request["file_size"])
    confinement.drop_privileges()
    readable = {
        *_SYSTEM,
        sys.prefix,
        sys.base_prefix,
        *filter(None, sys.path),
        *request["readable"],
    }
    confinement.confine_files(readable, request["listable"], [os.getcwd(), os.devnull])
    system_calls.confine_calls()


def _sibling(name: str) -> Any:
    """A module of this folder, which is not on the path: as part of a package it loads llmchat."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(code: str) -> int:
    """Run the code as `__main__`; the exit code."""
    linecache.cache[_NAME] = (len(code), None, code.splitlines(keepends=True), _NAME)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        statements, last = _split(code)
        exec(statements, module.__dict__)
        value = eval(last, module.__dict__) if last else None
        if value is not None:
            sys.stdout.write(f"{value!r}\n")
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        _report(error)
        return FAILED
    return 0


def _split(code: str) -> tuple[types.CodeType, types.CodeType | None]:
    """All statements but a last expression, and that expression."""
    tree = ast.parse(code, _NAME)
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return compile(tree, _NAME, "exec"), None
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    value = compile(ast.Expression(last.value), _NAME, "eval")
    return compile(tree, _NAME, "exec"), value


def _report(error: BaseException) -> None:
    """The error and where in the code it happened, without the frames of libraries."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    frames = [frame for frame in told.stack if frame.filename == _NAME]
    told.stack[:] = frames[-_MOST_FRAMES:]
    text = "".join(told.format(chain=False))
    sys.stdout.flush()
    sys.stderr.write(text if frames else text.removeprefix(_HEAD))
    if any(f"[Errno {number}]" in text for number in (EPERM, EACCES)):
        sys.stderr.write(_CLOSED)


if __name__ == "__main__":
    sys.exit(main())
