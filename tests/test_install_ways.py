"""The ways of installing: uv and pipx with the commands of the README, and what the image needs."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmchat.engines.transformers.compiled import carried

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
INSTALL = (ROOT / "docs/install.md").read_text("utf-8")
SOURCES = ("llmchat", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
# A machine that has torch in a folder of its own (PIP_FIND_LINKS) takes the CPU build from there.
TORCH_FOLDER = os.environ.get("PIP_FIND_LINKS", "")
PIPX_PYTHON = '"$(pipx environment --value PIPX_LOCAL_VENVS)/llmchat/bin/python"'
LOAD_KERNELS = """from pathlib import Path
from llmchat.engines.transformers.compiled.build import load_kernels
load_kernels(Path("built"))"""


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def three_minutes() -> tuple[str, str]:
    """The commands and the Python program of the README's section."""
    section = README.split("## A three-minute tour\n")[1].split("\n## ")[0]
    commands, program = re.findall(
        r"^```(?:python)?\n(.*?)^```$", section, re.DOTALL | re.MULTILINE
    )
    return commands, program


def test_ci_runs_each_python_of_the_classifiers() -> None:
    listed = [
        one.rpartition(" ")[2]
        for one in pyproject()["classifiers"]
        if one.startswith("Programming Language :: Python :: 3.")
    ]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == listed
    assert pyproject()["requires-python"] == f">={listed[0]}"


def test_the_image_gets_what_the_build_of_the_wheel_reads_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(SOURCES)
    assert f"**/{carried.FOLDER.name}" in rules


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with uv and pipx."""
    folder = tmp_path_factory.mktemp("tools")
    venv.create(folder, with_pip=True)
    command = [folder / "bin/python", "-m", "pip", "install", "--quiet", "uv", "pipx"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("uv and pipx cannot be installed")
    return folder / "bin"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, without what was built in the tree."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    shutil.rmtree(folder / carried.FOLDER.relative_to(ROOT), ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: pipx installs with uv too, and the wheel is built once."""
    return tmp_path_factory.mktemp("uv-cache")


def fresh_user(tmp_path: Path, tools: Path, uv_cache: Path) -> dict[str, str]:
    """The environment of a user with an empty home, who has no C compiler."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "bash", "env", "printf", "uname", "ldd", "cat"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.endswith(("_proxy", "_PROXY", "_CERT_FILE"))
    }
    home = tmp_path / "home"
    home.mkdir()
    tested = str(ROOT / "constraints.txt")
    return kept | {
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:{tools}:{programs}",
        "TERM": "dumb",
        "PIP_CONSTRAINT": tested,
        "UV_CONSTRAINT": tested,
        "UV_CACHE_DIR": str(uv_cache),
        "UV_FIND_LINKS": TORCH_FOLDER,
        "UV_PYTHON": sys.executable,
    }


def answers(host: str) -> bool:
    """Whether a server can be reached over HTTPS."""
    try:
        socket.create_connection((host, 443), timeout=10).close()
    except OSError:
        return False
    return True


def run(line: str, folder: Path, env: Mapping[str, str], timeout: float = 1200) -> str:
    """What a line of a shell prints on stdout."""
    done = subprocess.run(
        ["bash", "-ec", line], cwd=folder, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_minutes_of_the_readme_with_uv(
    tools: Path, checkout: Path, uv_cache: Path, tmp_path: Path
) -> None:
    commands, program = three_minutes()
    env = fresh_user(tmp_path, tools, uv_cache)
    if not TORCH_FOLDER and not answers("download.pytorch.org"):
        pytest.skip("the index of torch's CPU builds cannot be reached")
    if TORCH_FOLDER:
        assert "--torch-backend cpu" in commands
        commands = commands.replace("--torch-backend cpu ", "")
    (checkout / "countries.py").write_text(program)
    run(commands, checkout, env)
    rows = [json.loads(line) for line in (checkout / "answers.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(range(1, 11))
    assert all(set(row["value"]) == {"capital", "continent"} for row in rows)

    (python,) = re.findall(r"`(\S*uv tool dir.* countries\.py)`", README)
    printed = run(python, checkout, env).splitlines()
    assert len(printed) == 11
    assert all(re.fullmatch(r"capital=.+ continent=.+", line) for line in printed[:10])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pipx_install_answers_without_a_compiler(
    tools: Path, checkout: Path, uv_cache: Path, tmp_path: Path
) -> None:
    assert "`pipx install .`" in README and PIPX_PYTHON in INSTALL
    env = fresh_user(tmp_path, tools, uv_cache) | {"PIPX_DEFAULT_PYTHON": sys.executable}
    run("pipx install .", checkout, env)
    run("llmchat pull --quiet smollm2", checkout, env)
    answer = run("llmchat --quiet --temperature 0 'What is the capital of France?'", tmp_path, env)
    assert "Paris" in answer
    # Raises Unavailable where the wheel has no library: nothing can be compiled here.
    run(f"{PIPX_PYTHON} -P -c {shlex.quote(LOAD_KERNELS)}", tmp_path, env)
