"""The tools `files_list`, `files_read` and `files_search`, on a folder with hostile contents."""

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from llmchat.errors import UsageError
from llmchat.tools import ToolSettings
from llmchat.tools.files import tools
from llmchat.tools.files.reading import MOST_LINE, MOST_TEXT
from llmchat.tools.files.root import Root
from llmchat.tools.files.searching import MOST_MATCHES
from llmchat.tools.running import Finished, run


@pytest.fixture
def root(settings: ToolSettings) -> Path:
    """`root` with a few files, and a secret beside it."""
    (settings.root.parent / "secret.txt").write_text("the secret")
    (settings.root / "notes.txt").write_text("one\ntwo\nThree\n")
    (settings.root / "src" / "deep").mkdir(parents=True)
    (settings.root / "src" / "main.py").write_text("import os\n\nprint('three')\n")
    (settings.root / "src" / "deep" / "util.py").write_text("x = 3\n")
    return settings.root


def ask(root: Path, name: str, **arguments: Any) -> Finished:
    (tool,) = [tool for tool in tools(ToolSettings(world=None, root=root)) if tool.name == name]  # type: ignore[arg-type]
    finished = run(tool, arguments, timeout_s=60)
    assert not finished.details, finished.details
    assert finished.untrusted == (not finished.error) and "\n" not in finished.error
    return finished


def read(root: Path, path: str, **more: Any) -> Finished:
    return ask(root, "files_read", path=path, **more)


def test_a_folder_is_listed_with_folders_first(root: Path) -> None:
    assert ask(root, "files_list").text == "src/\nnotes.txt 14 bytes"
    assert ask(root, "files_list", path="src").text == "deep/\nmain.py 26 bytes"


def test_a_file_is_read_with_the_numbers_of_its_lines(root: Path) -> None:
    assert read(root, "notes.txt").text == "notes.txt, lines 1-3 of 3:\none\ntwo\nThree"
    some = read(root, "notes.txt", start=2, lines=1)
    assert some.text == "notes.txt, lines 2-2 of 3:\ntwo\n[continue with start=3]"


@pytest.mark.parametrize("path", ["./src//main.py", "src/../src/main.py", "src/deep/../main.py"])
def test_a_path_is_normalised(root: Path, path: str) -> None:
    assert "import os" in read(root, path).text


def test_an_absolute_path_below_the_root_is_accepted(root: Path) -> None:
    assert "import os" in read(root, str(root / "src" / "main.py")).text
    assert "main.py" in ask(root, "files_list", path=str(root / "src")).text


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "src/../../secret.txt",
        "..",
        "/etc/passwd",
        "/",
        "~/x",
        "src/../.././secret.txt",
    ],
)
def test_a_path_out_of_the_root_is_refused(root: Path, path: str) -> None:
    for finished in (read(root, path), ask(root, "files_list", path=path)):
        assert finished.error.endswith("is outside the folder that may be read")


def test_the_absolute_path_of_a_file_beside_the_root_is_refused(root: Path) -> None:
    (root.parent / "root-2").mkdir()
    (root.parent / "root-2" / "x").write_text("x")
    for path in (
        root.parent / "secret.txt",
        root.parent / "root-2" / "x",
        root / ".." / "secret.txt",
    ):
        assert read(root, str(path)).error.endswith("is outside the folder that may be read")


@pytest.mark.parametrize(
    "target", ["../secret.txt", "{outside}/secret.txt", "src/../../secret.txt", "/etc/passwd"]
)
def test_a_link_out_of_the_root_is_refused(root: Path, target: str) -> None:
    (root / "link").symlink_to(target.format(outside=root.parent))
    (root / "folder").symlink_to(root.parent)
    (root / "second").symlink_to("link")
    for path in ("link", "folder/secret.txt", "second"):
        assert read(root, path).error.endswith("is outside the folder that may be read")
    assert "secret" not in ask(root, "files_search", text="the secret").text.replace(
        "`the secret`", ""
    )
    assert ask(root, "files_list", path="folder").error


def test_a_link_inside_the_root_is_followed(root: Path) -> None:
    (root / "relative").symlink_to("src/deep/../main.py")
    (root / "src" / "absolute").symlink_to(root / "notes.txt")
    assert "import os" in read(root, "relative").text
    assert "Three" in read(root, "src/absolute").text
    assert "relative (link)" in ask(root, "files_list").text


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    assert read(root, "a").error == "`a` is nested too deeply"
    assert read(root, "src/" * 200 + "x").error
    assert "no line contains" in ask(root, "files_search", text="nowhere").text


CLOSED = [
    ".env", ".git/config", ".ssh/id_ed25519", ".netrc", "server.pem", "ID_RSA", "src/.env.local",
    "deploy/credentials.json", ".config/gh/hosts.yml",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_hidden_files_and_keys_are_closed(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("TOKEN=abc")
    (root / "harmless").symlink_to(path)
    for name in (path, "harmless", str(root / path), f"./{path}"):
        assert "is closed to models" in read(root, name).error
    assert "TOKEN" not in ask(root, "files_search", text="TOKEN=").text.replace("`TOKEN=`", "")
    listed = ask(root, "files_list", path=os.path.dirname(path) or ".")
    assert os.path.basename(path) not in listed.text
    assert Path(path).name not in ask(root, "files_list", pattern="**/*").text


def test_hidden_files_of_a_project_are_open(root: Path) -> None:
    (root / ".github" / "workflows").mkdir(parents=True)
    (root / ".github" / "workflows" / "ci.yml").write_text("on: push")
    assert "on: push" in read(root, ".github/workflows/ci.yml").text


def test_special_files_are_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        (root / "zero").symlink_to("/dev/zero")
        assert read(root, "pipe").error == "`pipe` is not a plain file"
        assert read(root, "socket").error == "`socket` is not a plain file"
        assert read(root, "zero").error.endswith("is outside the folder that may be read")
        assert "pipe (not a plain file)" in ask(root, "files_list").text
        assert "no line contains" in ask(root, "files_search", text="nowhere").text


def test_folders_missing_files_and_files_without_permission_are_one_line(root: Path) -> None:
    assert read(root, "src").error == "`src` is a folder; files_list lists it"
    assert read(root, "note.txt").error == "there is no `note.txt`; did you mean `notes.txt`?"
    assert read(root, "notes.txt/x").error == "`notes.txt/x` cannot be opened: Not a directory"
    assert read(root, "a\0b").error.startswith("`a\ufffdb` cannot be opened")
    assert read(root, "x" * 5000).error.endswith("cannot be opened: File name too long")
    assert ask(root, "files_list", path="nowhere").error.startswith("there is no `nowhere`")
    assert read(root, "notes.txt", start=9).error == "notes.txt has only 3 lines"
    assert "not valid" not in read(root, "notes.txt", start=0).error


def test_the_root_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        Root(tmp_path / "nowhere")


def test_a_root_that_is_removed_is_one_line(root: Path, tmp_path: Path) -> None:
    (tool,) = [t for t in tools(ToolSettings(world=None, root=root)) if t.name == "files_list"]  # type: ignore[arg-type]
    root.rename(tmp_path / "elsewhere")
    assert run(tool, {}, timeout_s=20).error.startswith("there is no")


def test_binary_files_and_invalid_utf8(root: Path) -> None:
    (root / "image.png").write_bytes(b"\x89PNG\0\0\0three")
    (root / "latin1.txt").write_bytes("three \xfcber".encode("latin-1"))
    (root / "bom.txt").write_bytes(b"\xef\xbb\xbfthree\r\nfour\r\n")
    (root / "empty.txt").touch()
    assert read(root, "image.png").error == "`image.png` is a binary file"
    assert read(root, "latin1.txt").text.endswith("three \ufffdber")
    assert read(root, "bom.txt").text.endswith(":\nthree\nfour")
    assert read(root, "empty.txt").text == "empty.txt is empty"
    found = ask(root, "files_search", text="three").text
    assert "latin1.txt:1" in found and "image.png" not in found


def test_a_huge_file_is_read_in_part(root: Path) -> None:
    with (root / "huge.txt").open("wb") as file:
        file.write(b"first line\n" + b"y" * 100_000 + b"\nthird\n")
        file.truncate(3_000_000_000)
    text = read(root, "huge.txt", lines=3).text
    assert "first line" in text and "more in this line]" in text and "\nthird\n" in text
    # It was not read to its end.
    assert len(text) < MOST_LINE + 300 and "of many" in text


def test_long_answers_are_paged(root: Path) -> None:
    lines = [f"{number} {'x' * 400}" for number in range(1, 101)]
    (root / "long.txt").write_text("\n".join(lines))
    seen: list[str] = []
    while len(seen) < 100:
        text = read(root, "long.txt", start=len(seen) + 1).text
        page = [line for line in text.splitlines()[1:] if not line.startswith("[")]
        assert page and len(text) < MOST_TEXT + 200
        seen += page
    assert seen == lines


def test_a_name_cannot_forge_a_line_or_control_the_terminal(root: Path) -> None:
    (root / "a\nb\x1b[31m.txt").write_text("needle")
    (root / os.fsdecode(b"\xff.txt")).write_text("needle")
    listed = ask(root, "files_list").text
    assert (
        "a\ufffdb\ufffd[31m.txt 6 bytes" in listed.splitlines() and "\ufffd.txt 6 bytes" in listed
    )
    assert len(ask(root, "files_search", text="needle").text.splitlines()) == 2


def test_files_are_found_by_name(root: Path) -> None:
    assert ask(root, "files_list", pattern="*.py").text == "src/main.py\nsrc/deep/util.py"
    assert ask(root, "files_list", pattern="**/*.py").text == "src/main.py\nsrc/deep/util.py"
    assert ask(root, "files_list", pattern="src/deep/*").text == "src/deep/util.py"
    assert ask(root, "files_list", path="src/deep", pattern="*.py").text == "src/deep/util.py"
    assert ask(root, "files_list", pattern="*.c").text == "no file fits `*.c`"
    assert ask(root, "files_list", pattern="*").text == ask(root, "files_list").text


def test_lines_are_found_with_their_numbers(root: Path) -> None:
    assert ask(root, "files_search", text="THREE").text == (
        "notes.txt:3: Three\nsrc/main.py:3: print('three')"
    )
    assert ask(root, "files_search", text="three", pattern="*.py").text.startswith("src/main.py:3")
    assert ask(root, "files_search", text=r"^t\w+$", regex=True).text == (
        "notes.txt:2: two\nnotes.txt:3: Three"
    )
    assert ask(root, "files_search", text="o", path="notes.txt").text.count("notes.txt:") == 2


def test_an_answer_without_lines_names_what_was_searched(root: Path) -> None:
    assert ask(root, "files_search", text="nowhere").text == "no line contains `nowhere`"
    assert ask(root, "files_search", text="Three", pattern="*.c").text == (
        "no line contains `Three` in files named `*.c`"
    )


def test_many_matches_are_cut(root: Path) -> None:
    (root / "many.txt").write_text("needle\n" * 1000)
    lines = ask(root, "files_search", text="needle").text.splitlines()
    assert len(lines) == MOST_MATCHES + 1 and lines[-1].startswith("[only the first 50 lines")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", r"(\w+\s?)*$", "(x+x+)+y"])
def test_a_catastrophic_pattern_is_searched_to_the_end(root: Path, pattern: str) -> None:
    (root / "a.txt").write_text(("a" * 900 + "!\n") * 50)
    found = ask(root, "files_search", text=pattern, regex=True)
    assert not found.error and "[stopped" not in found.text


@pytest.mark.parametrize("pattern", ["(", "a{100000000}", r"(a)\1", "\ud800", "(" * 50_000])
def test_a_pattern_that_cannot_be_searched_is_one_line(root: Path, pattern: str) -> None:
    error = ask(root, "files_search", text=pattern, regex=True).error
    assert ("cannot be searched for: " in error or "are not JSON" in error) and len(error) < 200


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_entries_are_listed_in_part_and_searched(root: Path, count: int) -> None:
    (root / "many").mkdir()
    for number in range(count):
        os.mknod(root / "many" / f"f{number:06}")
    listed = ask(root, "files_list", path="many")
    assert listed.text.startswith("f000000 0 bytes\n") and len(listed.text) < 5000
    end = f"[{count - 200:,} more entries; use `pattern` to find files by name]"
    assert listed.text.endswith(end)
    assert ask(root, "files_list", pattern="f00099*").text.count("\n") == 9
    searched = ask(root, "files_search", text="needle")
    assert searched.text.startswith(("no line contains", "[stopped"))
    stop = threading.Event()
    stop.set()
    (search,) = [t for t in tools(ToolSettings(world=None, root=root)) if t.name == "files_search"]  # type: ignore[arg-type]
    assert "[stopped" in search.run({"text": "x"}, stop).text


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("notes.txt", "src", "nowhere", "../x", "src/deep/util.py"):
        read(root, path)
    ask(root, "files_search", text="three")
    ask(root, "files_list", pattern="**/*")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_is_swapped_for_a_link_does_not_lead_out(root: Path) -> None:
    """While one thread swaps a folder for a link that leads out, nothing outside is read."""
    inner = root / "swap"
    inner.mkdir()
    (inner / "secret.txt").write_text("mine")
    (root / "away").symlink_to(root.parent)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, two in (
                ("swap", "aside"),
                ("away", "swap"),
                ("swap", "away"),
                ("aside", "swap"),
            ):
                os.rename(root / one, root / two)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        texts = [read(root, "swap/secret.txt") for _ in range(300)]
    finally:
        done.set()
        thread.join()
    assert not any("the secret" in one.text for one in texts)
    assert any("mine" in one.text for one in texts)


PARTS = st.sampled_from(
    ["..", ".", "", "src", "deep", "link", "out", "main.py", "notes.txt", "nowhere"]
)


@with_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(PARTS, max_size=8).map("/".join))
def test_no_path_leads_out_of_the_root(root: Path, path: str) -> None:
    for name, target in (("link", "src/deep"), ("out", "..")):
        if not (root / name).is_symlink():
            (root / name).symlink_to(target)
    finished = read(root, path)
    real = Path(os.path.realpath(root / path))
    inside = real == root or root in real.parents
    assert "the secret" not in finished.text
    if finished.text:
        assert inside and real.is_file()


@given(st.text(max_size=20))
@with_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_argument_ends_in_a_text_or_in_one_line(root: Path, text: str) -> None:
    read(root, text)
    ask(root, "files_list", path=text, pattern=text)
    ask(root, "files_search", text=text or "x", pattern=text, regex=True)
