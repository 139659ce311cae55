"""`.gitignore` files leave files out of a folder, as git does."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llmchat.memory.index import Index
from llmchat.memory.walk import files_below

TREE = {
    ".gitignore": "build/\n*.log\n!keep.log\n/top.txt\n\n# a comment\n!\n",
    "a.txt": "", "top.txt": "", "x.log": "", "keep.log": "", "build/made.txt": "",
    "src/top.txt": "", "src/.gitignore": "keep.log\n!x.log\nsecret*\n", "src/keep.log": "",
    "src/x.log": "", "src/secret.txt": "", "src/deep/secrets.txt": "", "src/deep/build/b.txt": "",
    "src/deep/ok.txt": "", "docs/naïve [1].txt": "",
}  # fmt: skip
SEEN = ["a.txt", "docs/naïve [1].txt", "keep.log", "src/deep/ok.txt", "src/top.txt", "src/x.log"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


def below(root: Path, **options: bool) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in files_below(root, **options))


def test_what_gitignore_names_is_left_out(tree: Path) -> None:
    assert below(tree) == SEEN
    everything = sorted(name for name in TREE if not name.endswith(".gitignore"))
    assert below(tree, gitignore=False) == everything


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_git_reads_the_same_files(tree: Path) -> None:
    subprocess.run(["git", "init", "-q", tree], check=True)
    listed = subprocess.run(
        ["git", "-C", tree, "ls-files", "-coz", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    assert below(tree) == sorted(one for one in listed if one and not one.endswith(".gitignore"))


def test_the_files_above_a_folder_count_within_a_repository(tree: Path) -> None:
    assert below(tree / "src") == ["deep/build/b.txt", "deep/ok.txt", "top.txt", "x.log"]
    (tree / ".git").mkdir()
    assert below(tree / "src" / "deep") == ["ok.txt"]


def test_an_ignored_folder_that_is_named_is_read(tree: Path) -> None:
    (tree / ".git").mkdir()
    assert below(tree / "build") == ["made.txt"]


def test_a_link_to_a_folder_reads_its_rules(tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    assert below(tree.parent / "link") == SEEN


@pytest.mark.parametrize("text", [b"\xff\xfe\0", b"!\n[\n***\n", b"*.txt\n" * 400_000])
def test_an_odd_file_stops_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".gitignore").write_bytes(text)
    (tmp_path / "a.md").write_text("a")
    assert below(tmp_path) in (["a.md"], [])


def test_an_index_remembers_how_a_folder_was_added(tree: Path, tmp_path: Path) -> None:
    def names() -> set[str]:
        return {Path(one.source).name for one in index.documents()}

    (tree / "a.txt").write_text("text")
    (tree / "build" / "made.txt").write_text("text")
    with Index.open(tmp_path / "i.sqlite", create=True) as index:
        index.add([tree], gitignore=False)
        assert "made.txt" in names()
        (tree / "build" / "new.txt").write_text("text")
        index.update()
        assert "new.txt" in names()
        index.add([tree])
        (tree / "build" / "newer.txt").write_text("text")
        index.update()
        assert "newer.txt" not in names()
