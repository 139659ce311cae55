"""pip where the environment has none, as in those of `uv tool install`."""

import subprocess
import venv
from pathlib import Path

import pytest

from llmchat.hub import pip


def test_environment_without_pip_runs_the_one_that_python_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(list(place.glob("pip-*.whl")) for place in pip._places_of_wheels()):
        pytest.skip("this Python brings no pip")
    venv.create(tmp_path / "bare", with_pip=False)
    bare = tmp_path / "bare" / "bin" / "python"
    monkeypatch.setattr(pip, "find_spec", lambda name: None if name == "pip" else _spec(name))
    _, *words = pip._pip()
    done = subprocess.run([bare, *words, "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("pip "), done.stderr


_spec = pip.find_spec
