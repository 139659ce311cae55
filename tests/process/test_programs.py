"""llmchat runs nothing from the current folder, which may hold a `torch.py` or a `cc`."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmchat
from llmchat.process.programs import python, which

PACKAGE = Path(llmchat.__file__).parent
TRAP = "import os, pathlib\npathlib.Path(os.environ['HOME'], 'trapped').touch()\n"


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of modules that leave a mark when they are imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in (
        "llmchat",
        "fastapi",
        "uvicorn",
        "pip",
        "torch",
        "typer",
        "msgspec",
        "socket",
        "sitecustomize",
    ):
        (folder / f"{name}.py").write_text(TRAP)
    return folder


def program(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_server_in_the_background_imports_nothing_from_the_current_folder(
    trap: Path, tmp_path: Path
) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "llmchat", "serve"]
    started = subprocess.run(
        [*command, "--background", "--port", "0"],
        cwd=trap,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    stopped = subprocess.run(
        [*command, "--stop"], cwd=trap, env=env, capture_output=True, text=True, timeout=60
    )
    assert (started.returncode, stopped.returncode) == (0, 0), started.stderr + stopped.stderr
    assert not (tmp_path / "trapped").exists()


def test_our_python_imports_nothing_from_the_current_folder(trap: Path, tmp_path: Path) -> None:
    for arguments in (("-c", "import socket"), ("-m", "pip", "--version")):
        subprocess.run(
            python(*arguments),
            cwd=trap,
            env={"HOME": str(tmp_path)},
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert not (tmp_path / "trapped").exists()


def test_every_module_starts_programs_this_way() -> None:
    """`sys.executable` and `shutil.which` would use the current folder again.

    bench/peers runs a file of ours by its path.
    """
    found = {
        (str(path.relative_to(PACKAGE)), node.attr)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("executable", "which")
        and isinstance(node.value, ast.Name)
    }
    assert found <= {
        ("process/programs.py", "executable"),
        ("process/programs.py", "which"),
        ("bench/peers.py", "executable"),
    }


def test_relative_entries_of_the_path_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program(tmp_path / "cc")
    program(tmp_path / "bin" / "cc")
    for path in ("", ".", ":", "bin", "./bin:", "bin::."):
        assert which("cc", {"PATH": path}) is None, path
    assert which("cc", {"PATH": f".:{tmp_path / 'bin'}"}) == str(tmp_path / "bin" / "cc")
    assert which("bin/cc", {"PATH": ""}) == "bin/cc", "a path that somebody gave"
