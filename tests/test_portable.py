"""Nothing that only POSIX has lies on the way of a pull, a chat and the saved sessions."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.without_posix import MODULES, NAMES
from test_structure import PACKAGE, modules, name_of

from llmchat import memory_estimate

# Modules that ask first whether the system has what they use, and go on without it.
GUARDED = {
    "background.client": "no background server without Unix sockets",
    "batches.results": "no lock of a file that another run writes",
    "bench.peer_protocol": "counts the processors otherwise",
    "engines.transformers.mapped_safetensors": "maps, and takes room on the disk, otherwise",
    "history.in_progress": "no locks of questions",
    "hub.locks": "filelock's own locks",
    "hub.pip": "no limit for pip's memory",
    "hub.unfinished": "no locks of unfinished files",
    "output.plots.terminal_query": "terminals are not asked",
    "process.users": "files have no user number",
    "ui.shell": "ends the shell alone",
    "ui.terminal_modes": "terminals have no modes",
}
# Features of Linux, which neither a pull, a chat nor the sessions import.
ONLY_LINUX = {
    "engines.gguf.llama": "sockets that llama.cpp leaves",
    "engines.gguf.probe": "a process of its own with limits",
    "engines.transformers.compiled.huge_pages": "the compiled step is for Linux",
    "memory.readers.worker": "a process of its own with limits",
    "process.keeper": "ends what a process has left",
    "server.graceful_server": "limits of open files",
    "server.keys": "locks of the file of keys",
    "server.local_peer": "owners of connections in /proc",
    "server.sockets": "Unix sockets",
    "tools.files.root": "opens files without following links",
    "tools.python.confinement": "a sandbox of Linux",
    "tools.python.running": "reads from a sandbox",
    "tools.web.worker": "a process of its own with limits",
}


def only_posix(path: Path) -> set[str]:
    """What a file takes that Python lacks on Windows."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                found |= {one.name for one in names if one.name in MODULES}
            case ast.ImportFrom(module=str(module), names=names):
                hidden = {one.name for one in names} & NAMES.get(module, set())
                found |= {module} & MODULES | {f"{module}.{name}" for name in hidden}
            case ast.Attribute(value=ast.Name(module), attr=name):
                found |= {f"{module}.{name}"} if name in NAMES.get(module, ()) else set()
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_known_modules_use_what_only_posix_has(path: Path) -> None:
    name, found = name_of(path).removeprefix("llmchat."), only_posix(path)
    if name in GUARDED or name in ONLY_LINUX:
        assert found, f"{name} is portable: take it off the list"
    else:
        assert not found, f"{name} uses {found}; ask first whether the system has it"


def test_the_search_finds_each_kind_of_use(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        "import os, termios\nfrom fcntl import flock\nfrom signal import SIGHUP, SIGINT\n"
        "def f():\n    return os.geteuid(), os.getpid()\n"
    )
    assert only_posix(source) == {"termios", "fcntl", "signal.SIGHUP", "os.geteuid"}


def without_posix(*arguments: str, env: dict[str, str], stdin: str = "") -> str:
    script = Path(__file__).parent / "support" / "without_posix.py"
    done = subprocess.run(
        [sys.executable, script, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=env | {"LLMCHAT_NATIVE": "0", "LLMCHAT_TRACEBACK": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chats_and_sessions_work_without_posix(env: dict[str, str]) -> None:
    chat = ("chat", "--engine", "scripted", "--quiet")
    assert without_posix(*chat, env=env, stdin="Hello")
    assert without_posix(*chat, "--continue", "And now?", env=env)
    (session,) = without_posix("sessions", "list", "--quiet", env=env).split()
    shown = without_posix("sessions", "show", session, env=env)
    assert "Hello" in shown and "And now?" in shown


@pytest.mark.slow
def test_default_model_is_pulled_and_answers_without_posix(env: dict[str, str]) -> None:
    without_posix("pull", "--quiet", "smollm2", env=env)
    question = "What is the capital of France? One word."
    options = ("chat", "--quiet", "--temperature", "0", "--max-tokens", "12")
    assert "Paris" in without_posix(*options, env=env, stdin=question)
    assert "smollm2" in without_posix("ls", env=env)


def test_memory_is_known_without_proc(tmp_path: Path) -> None:
    """psutil's numbers are those of /proc/meminfo."""
    of_table = memory_estimate._memory("MemTotal", "total")
    of_psutil = memory_estimate._memory("MemTotal", "total", tmp_path / "none")
    assert of_psutil == of_table > 0
