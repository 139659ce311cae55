"""Programs of others for slow tests: each in an environment of its own, installed once and kept.

REAL_CLIENTS names the folder that keeps them; by default it is one of this user in the folder for
temporary files. A test is skipped where a client cannot be installed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

_TRIES_S = 600.0


def python_client(package: str) -> Path:
    """The folder with the programs of a package, in a virtual environment of its own."""
    folder = _folder(package)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _install(folder, [sys.executable, "-m", "venv", str(folder)], [*pip, package])
    return folder / "bin"


def npm_client(package: str) -> Path:
    """The folder with the programs of a package of npm, below a prefix of its own."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    folder = _folder(package)
    _install(
        folder, ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), package]
    )
    return folder / "node_modules/.bin"


def _folder(package: str) -> Path:
    default = Path(tempfile.gettempdir()) / f"llmchat-clients-{os.getuid()}"
    kept = Path(os.environ.get("REAL_CLIENTS", default))
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert kept.stat().st_uid == os.getuid(), f"{kept} belongs to another user"
    return kept / package.replace("/", "+")


def _install(folder: Path, *commands: Sequence[str]) -> None:
    """Run the commands, unless they succeeded before."""
    done = folder / "installed"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TRIES_S)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
            pytest.skip(f"{folder.name} cannot be installed: {' '.join(said)}")
    done.touch()
