"""The tool `python`: what code returns, and what it cannot do to the machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Event

import psutil
import pytest
from support.worlds import make_world

from llmchat.tools import ToolSettings
from llmchat.tools.python import PythonTool, sandbox, tools
from llmchat.tools.python.confinement import landlock_version
from llmchat.tools.python.running import Limits
from llmchat.tools.python.system_calls import can_confine
from llmchat.tools.python.workspace import remove, size, workspace
from llmchat.tools.running import Finished, run

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs seccomp filters")
needs_landlock = pytest.mark.skipif(not landlock_version(), reason="needs Landlock")
LIMITS = Limits(seconds=20)


@pytest.fixture
def root(settings: ToolSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder, with a secret, and a folder for temporary files that can be looked at."""
    (settings.root / "data.csv").write_text("1,2\n3,4\n")
    (settings.root / ".env").write_text("TOKEN=abc")
    (tmp_path / "beside.txt").write_text("private")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "began").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return settings.root


def ask(root: Path, code: str, limits: Limits = LIMITS, **env: str) -> Finished:
    """Run code, and check that neither a process nor a file is left."""
    finished = run(PythonTool(root, env, limits), {"code": code}, timeout_s=60)
    assert not finished.error and finished.untrusted, finished
    assert_nothing_is_left(root)
    return finished


def assert_nothing_is_left(root: Path) -> None:
    # A browser of other tests may run. Start times are only known to a second or so.
    began = (root.parent / "began").stat().st_mtime - 2
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if child.create_time() > began]
    assert not list((root.parent / "temporary").iterdir())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1 + 1", "2"),
        ("x = 20\nprint('a')\nx * 2", "a\n40"),
        ("'text'", "'text'"),
        ("None", "[no output; print the result]"),
        ("x = 3", "[no output; print the result]"),
        ("", "[no output; print the result]"),
        ("print('ü 漢')", "ü 漢"),
        ("import sys; print('to stderr', file=sys.stderr)", "to stderr"),
        ("import sys; sys.exit(3)", "[exit code 3]"),
        ("import sys; sys.exit('bye')", "bye\n[exit code 1]"),
        ("import os; os.abort()", "[killed by SIGABRT]"),
        ("import ctypes; ctypes.string_at(0)", "[killed by SIGSEGV]"),
        ("import asyncio\nasync def f(): return 5\nasyncio.run(f())", "5"),
        ("from dataclasses import dataclass\n@dataclass\nclass A: x: int\nA(3)", "A(x=3)"),
        ("__name__", "'__main__'"),
        ("input()", "Traceback (most recent call last):\n  File \"<code>\", line 1, in <module>\n"
         "    input()\nEOFError: EOF when reading a line"),
        ("x = 1\nx = = 3",
         '  File "<code>", line 2\n    x = = 3\n        ^\nSyntaxError: invalid syntax'),
    ],
)  # fmt: skip
def test_code_returns_what_it_prints_and_its_last_value(root: Path, code: str, text: str) -> None:
    assert ask(root, code).text == text


def test_a_traceback_has_the_frames_of_the_code_only(root: Path) -> None:
    text = ask(root, "import json\ndef f(s):\n    return json.loads(s)\nf('{')").text
    assert "line 4, in <module>" in text and "line 3, in f" in text and "decoder.py" not in text
    assert text.splitlines()[-1].startswith("json.decoder.JSONDecodeError: ")


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socketpair(type=socket.SOCK_DGRAM)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true') and os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.execv('/bin/true', ['true'])",
        "import multiprocessing as m; m.Process(target=print).start()",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(-1, 9)",
        "import os; os.killpg(0, 9)",
        "import os; os.pidfd_open(os.getppid())",
        "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os; os.memfd_create('x')",
        "import os; os.truncate('files/data.csv', 0)",
        "import os; os.setuid(65534)",
        "import os; os.chroot('.')",
        "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "import fcntl; fcntl.fcntl(0, fcntl.F_SETSIG, 9)",
        "import fcntl, struct, os; fcntl.fcntl(0, 15, struct.pack('ii', 1, os.getppid()))",
        "import fcntl, struct, os; fcntl.ioctl(1, 0x8901, struct.pack('i', os.getppid()))",
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.prctl(1, 0): raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))",
    ],
)
def test_the_world_outside_of_the_process_is_closed(root: Path, code: str) -> None:
    text = ask(root, code).text
    assert "[Errno 1] Operation not permitted" in text
    assert text.endswith(
        "here is no network and no other program; only the current folder can be written to]"
    )


RAW = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    return result, ctypes.get_errno()
x32 = 0x40000000
[call(57), call(58), call(56, 17, 0, 0, 0, 0), call(435, 0, 0), call(x32 + 57), call(41, 2, 1, 0),
 call(425, 1, 0), call(29, 0, 4096, 0o1600), call(272, 0x10000000), call(59, 0, 0, 0)]
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
def test_raw_system_calls_are_refused(root: Path) -> None:
    """fork, vfork, clone, clone3, fork of x32, socket, io_uring, shmget, unshare, execve."""
    assert ask(root, RAW).text == str([(-1, 38) if n == 3 else (-1, 1) for n in range(10)])


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass",
        "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    ],
    ids=["fork bomb", "daemon", "session"],
)
def test_no_child_process_is_left_behind(root: Path, code: str) -> None:
    assert "Operation not permitted" in ask(root, code).text


def test_threads_work_and_their_number_is_bounded(root: Path) -> None:
    threads = (
        "import threading\nt = threading.Thread(target=print, args=('in a thread',))\nt.start()"
    )
    assert ask(root, threads).text == "in a thread"
    bomb = (
        "import threading, time\n"
        "def f(): time.sleep(60)\n"
        "for n in range(100_000):\n"
        "    threading.Thread(target=f, daemon=True).start()"
    )
    assert "can't start new thread" in ask(root, bomb).text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{beside}", "files/.env", "{root}/.env", "/proc/1/environ", "/dev/tty",
             "/proc/{parent}/mem", "/root/.bashrc", "/dev/pts/0", "/dev/shm/x"]
)  # fmt: skip
@pytest.mark.parametrize("mode", ["r", "r+"])
@needs_landlock
def test_files_of_the_user_are_closed(root: Path, path: str, mode: str) -> None:
    path = path.format(beside=root.parent / "beside.txt", root=root, parent=os.getpid())
    text = ask(root, f"open({path!r}, {mode!r}).read()").text
    assert "PermissionError: [Errno 13]" in text or "FileNotFoundError" in text
    assert "private" not in text and "abc" not in text


@needs_landlock
def test_files_below_the_root_can_be_read_and_not_changed(root: Path) -> None:
    assert ask(root, "open('files/data.csv').read()").text == "'1,2\\n3,4\\n'"
    assert "data.csv" in ask(root, "import os; os.listdir('files')").text
    for change in (
        "open('files/data.csv', 'w')",
        "open('files/new', 'w')",
        "import os; os.remove('files/data.csv')",
        f"import os; os.rename({str(root / 'data.csv')!r}, 'mine')",
        "import os; os.mkdir('files/x')",
        "import os; os.link('files/data.csv', 'mine')",
    ):
        assert "[Errno 13]" in ask(root, change).text or "[Errno 18]" in ask(root, change).text
    assert (root / "data.csv").read_text() == "1,2\n3,4\n" and len(list(root.iterdir())) == 2


@needs_landlock
def test_modes_times_and_attributes_of_files_cannot_be_changed(root: Path) -> None:
    before = (root / "data.csv").stat()
    changes = """
import os
for path in ("files/data.csv", PATH):
    os.chmod(path, 0o777)
    os.chown(path, -1, -1)
    os.utime(path, (1, 1))
    with open("files/data.csv") as file:
        os.fchmod(file.fileno(), 0)
    try:
        os.setxattr(path, "user.note", b"x")
    except OSError as error:
        print(error.errno)
"""
    assert (
        ask(root, changes.replace("PATH", repr(str(root.parent / "beside.txt")))).text == "95\n95"
    )
    assert (root / "data.csv").stat()[:9] == before[:9]
    assert not os.listxattr(root / "data.csv") and not os.listxattr(root.parent / "beside.txt")
    assert (root.parent / "beside.txt").stat().st_mtime > 1


def test_files_can_be_copied_in_the_folder(root: Path) -> None:
    code = "import shutil\nopen('a', 'w').write('x')\nshutil.copy2('a', 'b')\nopen('b').read()"
    assert ask(root, code).text == "'x'"


def test_there_is_no_terminal(root: Path) -> None:
    code = (
        "import os\n"
        "try:\n    os.open('/dev/tty', os.O_RDWR)\n"
        "except OSError:\n    print('no terminal')\n"
        "os.isatty(0)"
    )
    assert ask(root, code).text == "no terminal\nFalse"


def test_the_environment_holds_no_token(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "real-secret")
    text = ask(
        root, "import os; dict(os.environ)", OPENAI_API_KEY="given-secret", TZ="Asia/Tokyo"
    ).text
    assert "secret" not in text and "'TZ': 'Asia/Tokyo'" in text and str(Path.home()) not in text


def test_memory_is_bounded(root: Path) -> None:
    assert ask(root, "x = bytearray(3 << 30)").text.endswith("MemoryError")
    assert ask(root, "x = []\nwhile True: x.append(bytearray(1 << 20))").text.endswith(
        "MemoryError"
    )


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import os\nos.close(1)\nos.close(2)\nwhile True: pass",
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
    ],
)
def test_code_that_does_not_end_is_stopped(root: Path, code: str) -> None:
    finished = ask(root, f"print('begun', flush=True)\n{code}", Limits(seconds=1))
    assert finished.text == "begun\n[stopped after 1 s]" and finished.seconds < 10


def test_stop_ends_the_code_at_once(root: Path) -> None:
    stop = Event()
    threading.Timer(0.5, stop.set).start()
    tool = PythonTool(root, {}, LIMITS)
    finished = run(tool, {"code": "while True: pass"}, timeout_s=60, stop=stop)
    assert finished.text == "[stopped]" and finished.error == "python was interrupted"
    assert_nothing_is_left(root)


@pytest.mark.parametrize(
    "code",
    [
        "while True: print('x' * 1000)",
        "import os\nwhile True: os.write(2, b'x' * 100_000)",
        pytest.param("print('x' * 1_000_000_000)", marks=pytest.mark.slow),
    ],
)
def test_a_gigabyte_of_output_is_cut(root: Path, code: str) -> None:
    finished = ask(root, code, Limits(seconds=20, memory=4 << 30))
    assert finished.text.endswith("x\n[stopped: it printed more than 100 kB]")
    assert len(finished.text) < 101_000


def test_the_size_of_files_is_bounded(root: Path) -> None:
    limits = Limits(seconds=20, disk=2_000_000)
    assert "File too large" in ask(root, "open('big', 'wb').write(b'x' * 3_000_000)", limits).text
    several = "n = 0\nwhile True:\n    open(f'{n}', 'wb').write(b'x' * 500_000); n += 1"
    assert "[stopped: it wrote more than 2 MB" in ask(root, several, limits).text


@pytest.mark.slow
def test_too_many_files_are_stopped(root: Path) -> None:
    text = ask(root, "n = 0\nwhile True:\n    open(f'{n}', 'w').close(); n += 1").text
    assert "or too many files]" in text


DEEP = """
import os
for n in range(300):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
open("x", "w").close()
"""


def test_the_folder_is_removed_whatever_is_in_it(root: Path) -> None:
    ask(root, DEEP)
    ask(root, "import os\nos.mkdir('closed', 0)")
    ask(root, "import os\nos.symlink('/', 'root')\nos.symlink('.', 'self')\nos.mkfifo('pipe')")
    assert (root / "data.csv").exists()


def test_a_folder_too_deep_to_measure_is_too_large() -> None:
    with workspace() as folder:
        (folder / "x").write_bytes(b"x" * 10_000)
        assert 10_000 <= size(folder) < 50_000
        here = os.open(folder, os.O_RDONLY)
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=here)
            inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        assert size(folder) > 1 << 60
    assert not folder.exists()


def test_a_folder_is_removed_whatever_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    for name in ("a/b/c", "a/b", "a"):
        (tmp_path / name).chmod(0)
    remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_links_in_a_removed_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "gone" / "inner").mkdir(parents=True)
    (tmp_path / "gone" / "inner" / "link").symlink_to(tmp_path / "kept")
    remove(tmp_path / "gone")
    assert (tmp_path / "kept" / "file").exists() and not (tmp_path / "gone").exists()


def test_the_script_needs_nothing_but_its_folder(root: Path, tmp_path: Path) -> None:
    """As installed elsewhere than on the path: its own folder is closed to the code, too."""
    shutil.copytree(Path(sandbox.__file__).parent, tmp_path / "copy")
    request = {"code": "6 * 7", "memory": 1 << 30, "seconds": 20, "file_size": 1000}
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "copy" / "sandbox.py")],
        input=json.dumps({**request, "readable": [], "listable": []}).encode(),
        cwd=root,
        capture_output=True,
    )
    assert done.stdout == b"42\n" and not done.stderr


WITHOUT_LANDLOCK = """
import ctypes, errno, struct, sys
from pathlib import Path
from threading import Event
from llmchat.tools.python import PythonTool
from llmchat.tools.python import system_calls as calls
from llmchat.tools.python.confinement import drop_privileges
make = calls._instruction
program = make(calls._LOAD, 0) + make(calls._EQUAL, 444, 0, 1) + calls._error(errno.ENOSYS)
program += make(calls._RETURN, calls._ALLOW)
buffer = ctypes.create_string_buffer(program)
drop_privileges()
assert not calls._LIBC.prctl(22, 2, struct.pack("HP", 4, ctypes.addressof(buffer)), 0, 0)
code = "import os\\ntry: os.fork()\\nexcept OSError as e: print(e.errno)\\n6 * 7"
print(PythonTool(Path(sys.argv[1]), {}).run({"code": code}, Event()).text)
"""


def test_a_kernel_without_landlock_is_named_in_the_output(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LANDLOCK, str(root)], capture_output=True, text=True
    )
    notice = "[this kernel has no Landlock: the code could read and write the user's files]"
    assert done.stdout.splitlines() == ["1", "42", notice], done.stderr


OWNER = """
import sys
from pathlib import Path
from llmchat.tools.python import PythonTool
from llmchat.tools.python.running import Limits
from threading import Event
PythonTool(Path(sys.argv[1]), {}, Limits()).run({"code": "while True: pass"}, Event())
"""


def test_the_code_dies_with_its_owner(root: Path) -> None:
    env = {**os.environ, "TMPDIR": str(root.parent / "temporary")}
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(root)], env=env)
    try:
        code = wait_for(lambda: psutil.Process(owner.pid).children())[0]
        wait_for(lambda: code.cpu_times().user > 0.3)
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    wait_for(lambda: not code.is_running() or code.status() == psutil.STATUS_ZOMBIE)


def wait_for(condition):  # type: ignore[no-untyped-def]
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_the_group_is_asked_about_each_time(settings: ToolSettings) -> None:
    (tool,) = tools(settings)
    assert not tool.read_only and tool.name == "python"
    assert run(tool, {"code": "6 * 7"}, timeout_s=60).text.startswith("42")


def test_a_root_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tool,) = tools(ToolSettings(make_world(tmp_path), tmp_path / "root"))
    (tmp_path / "root").rmdir()
    assert "root" in run(tool, {"code": "1"}, timeout_s=60).error
