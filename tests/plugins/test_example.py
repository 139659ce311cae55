"""The example package: built, installed in an environment of its own, and tested there."""

import json
import site
import subprocess
import sys
from pathlib import Path

import pytest
from support.worlds import make_world

import llmchat

pytestmark = pytest.mark.slow

REPOSITORY = Path(llmchat.__file__).parents[1]
EXAMPLE = REPOSITORY / "examples/llmchat-git"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel of the example, and the packages of this one."""
    folder = tmp_path_factory.mktemp("example")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", str(folder), str(EXAMPLE))
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
    python = folder / "venv/bin/python"
    run(*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    shared = [str(REPOSITORY), *site.getsitepackages(), *filter(_is_packages, sys.path)]
    (packages / "shared.pth").write_text("\n".join(dict.fromkeys(shared)))
    return python


def _is_packages(folder: str) -> bool:
    return folder.endswith("site-packages")


def run(*command: str, **options: object) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done  # type: ignore[no-any-return]


def test_installed_example_passes_its_own_tests(python: Path, tmp_path: Path) -> None:
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLE / "tests")]
    done = run(*command, cwd=tmp_path)
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_a_real_model_writes_a_commit(python: Path, smol_home: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    env = {
        **make_world(tmp_path).env,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        **{
            f"GIT_{who}_{what}": "me"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/llmchat").symlink_to(smol_home / "cache")
    run("git", "init", "-q", str(repo), env=env)
    (repo / "parser.py").write_text("def parse_date(text):\n    return text.split('-')\n")
    run("git", "add", ".", cwd=repo, env=env)
    run(str(python), "-m", "llmchat", "commit", "--yes", cwd=repo, env=env)
    subject = run("git", "log", "--format=%B", cwd=repo, env=env).stdout.strip()
    assert subject[0].isupper() and 4 <= len(subject) <= 72 and "\n" not in subject
    listed = run(str(python), "-m", "llmchat", "plugins", "--json", env=env).stdout
    assert {row["state"] for row in json.loads(listed)} == {"on"}
