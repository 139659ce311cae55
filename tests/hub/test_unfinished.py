"""Files and folders that are whole when they appear, and what killed processes leave."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmchat.hub import unfinished
from llmchat.hub.local_store import fresh_folder

_WRITER = """
import sys
from pathlib import Path
from llmchat.hub import unfinished
with getattr(unfinished, sys.argv[1])(Path(sys.argv[2])) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def writer(kind: str, target: Path) -> "tuple[subprocess.Popen[str], Path]":
    """A process that is writing, and what it writes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, kind, str(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    with unfinished.file(target) as path:
        path.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new" and names(tmp_path) == {"a.gguf"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_fault_leaves_the_earlier_file_alone(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    target.write_text("old")
    with pytest.raises(error), unfinished.file(target) as path:
        path.write_text("half")
        raise error
    assert target.read_text() == "old" and names(tmp_path) == {"a.gguf"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of POSIX")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left(kind: str, tmp_path: Path) -> None:
    target, other = tmp_path / "model", tmp_path / "model-2"
    process, left = writer(kind, target)
    with getattr(unfinished, kind)(target):
        assert left.exists(), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with getattr(unfinished, kind)(other):
        assert left.exists(), "it belongs to another target"
    with getattr(unfinished, kind)(target):
        assert not left.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_request_to_end_leaves_nothing(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    process, left = writer(kind, tmp_path / "model")
    assert left.exists()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number and names(tmp_path) == set()


def test_a_file_of_the_user_with_a_similar_name_stays(tmp_path: Path) -> None:
    mine = tmp_path / ".model-notes12.unfinished"
    mine.write_text("mine")
    with unfinished.file(tmp_path / "model") as path:
        path.write_text("x")
    assert mine.read_text() == "mine"


def test_an_earlier_folder_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    for text in ("old", "new"):
        with fresh_folder(target) as folder:
            assert text == "old" or (target / "a").read_text() == "old"
            (folder / "a").write_text(text)
    assert (target / "a").read_text() == "new" and names(tmp_path) == {"copy"}
