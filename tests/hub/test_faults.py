"""Every fault of a pull ends in the line and the exit code of its row in docs/faults.md.

None leaves files behind that open as a model.
"""

import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import hub_attacks
from support.checkpoints import save_adapter, save_tiny, tiny_config
from support.loopback_hub import Hub, Repo, serving
from support.random_gguf import tiny_bytes
from support.worlds import make_world

from llmchat.cli import main
from llmchat.presets import Source

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
TOKEN = "hf_a_token_that_must_not_be_seen"
PULL = ["pull", "org/base"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = save_tiny(tmp_path_factory.mktemp("base"))
    other = save_tiny(tmp_path_factory.mktemp("other"), tiny_config(hidden_size=128))
    return {
        "base": base,
        "adapter": save_adapter(tmp_path_factory.mktemp("adapter"), base),
        "foreign": save_adapter(tmp_path_factory.mktemp("foreign"), other),
    }


@pytest.fixture
def hub(folders: dict[str, Path]) -> Iterator[Hub]:
    repos = {
        "org/base": Repo.of_folder(folders["base"]),
        "org/adapter": Repo.of_folder(folders["adapter"]),
    }
    with serving(Hub(repos, token=TOKEN)) as hub:
        yield hub


@pytest.fixture
def env(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A user's environment whose Hub is the loopback's; no try waits."""
    monkeypatch.setattr("llmchat.hub.retry.WAITS", (0.0,) * 4)
    env = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url}
    env |= {
        f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA", "STATE")
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return env | {"PATH": os.environ["PATH"]}


class Case:
    """What a fault may change: the Hub, the environment, the command."""

    def __init__(
        self, hub: Hub, folders: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch
    ):
        self.hub, self.folders, self.tmp_path, self.patch = hub, folders, tmp_path, patch
        self.base, self.adapter = hub.repos["org/base"], hub.repos["org/adapter"]
        self.arguments = list(PULL)

    def fail(self, part: str, status: int, times: int | None = None) -> None:
        self.hub.fail_with[part] = status
        if times:
            self.hub.times[part] = times

    def attack(self, **answers: hub_attacks.Attack) -> None:
        """Answer these paths with attacks, with a read timeout of 0.5 s and one retry."""
        self.hub.cdn = True
        paths = {"list": "/api/", "weights": "a/model.safetensors"}
        self.hub.attacks |= {paths.get(part, part): answer for part, answer in answers.items()}
        if hub_attacks.SLOW & set(answers.values()):
            self.patch.setenv("LLMCHAT_PULL_WINDOW", "0.5")
            self.patch.setattr("llmchat.hub.retry.WAITS", (0.0,))

    def files(self, **changes: bytes) -> None:
        self.base.files |= changes

    def adapt(self) -> None:
        self.arguments += ["--adapter", "org/adapter"]


def gated(case: Case) -> None:
    case.base.gated = True


def gated_but_listed(case: Case) -> None:
    case.base.gated = case.base.listed = True


def private(case: Case) -> None:
    case.base.private = True


def unknown(case: Case) -> None:
    del case.hub.repos["org/base"]
    case.patch.setenv("HF_TOKEN", TOKEN)


def a_part(case: Case) -> None:
    case.base.files["model-00001-of-00002.safetensors"] = case.base.files.pop("model.safetensors")


def of_gguf(case: Case, asked: str, name: str, content: bytes) -> None:
    """Ask for a GGUF file of a repo that has one file alone."""
    case.base.files = {name: content}
    case.arguments[-1] = f"org/base:{asked}"


def clip(case: Case) -> None:
    content = tiny_bytes(case.tmp_path, architecture="clip", vocabulary=False)
    of_gguf(case, "Q8_0", "a-Q8_0.gguf", content)


def an_hour(case: Case) -> None:
    case.fail("/api/", 429)
    case.hub.retry_after = "3600"


def silent(case: Case) -> None:
    case.hub.stall_after = 0
    case.patch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")


def evil(case: Case) -> None:
    del case.base.files["model.safetensors"]
    case.base.files["pytorch_model.bin"] = pickle.dumps({"weight": Evil()})


def marvel(case: Case) -> None:
    config = json.loads(case.base.files["config.json"]) | {
        "model_type": "marvel",
        "auto_map": {"AutoModel": "modeling.Marvel"},
    }
    case.base.files["config.json"] = json.dumps(config).encode()


def empty(case: Case) -> None:
    del case.adapter.files["adapter_model.safetensors"]
    case.adapter.files["adapter_model.bin"] = bytes(443)
    case.adapt()


def foreign(case: Case) -> None:
    case.hub.repos["org/adapter"] = Repo.of_folder(case.folders["foreign"])
    case.adapt()


def no_disk(case: Case) -> None:
    usage = shutil.disk_usage("/")
    case.patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))


def here_then_offline(case: Case) -> None:
    assert main(PULL) == 0
    case.patch.setenv("HF_HUB_OFFLINE", "1")


def here_then_silent(case: Case) -> None:
    assert main(PULL) == 0
    case.attack(list=hub_attacks.silence)


def rot(case: Case) -> None:
    """The model is here, and a bit of its weights turns."""
    assert main(PULL) == 0
    (path,) = (case.tmp_path / "hf").rglob("snapshots/*/model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.resolve().write_bytes(content)
    os.utime(path, ns=(1, 1))


def rotten(case: Case, *arguments: str) -> None:
    rot(case)
    case.patch.setattr("sys.stdin", io.StringIO())
    case.arguments[:] = arguments


def repaired(case: Case) -> None:
    rot(case)
    assert main(["verify", "org/base"]) == 9


def no_symlinks(case: Case) -> None:
    def symlink(*arguments: Any, **more: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    case.patch.setattr(os, "symlink", symlink)


LIST = {"sha": "a" * 40, "siblings": []}
# Parts of a path → what answers there; `list` and `weights` stand for theirs.
ATTACKS: dict[str, dict[str, hub_attacks.Attack]] = {
    "no answer to the list": {"list": hub_attacks.silence},
    "headers of the list trickle": {"list": hub_attacks.dripping_headers},
    "the list trickles": {"list": hub_attacks.dripping_body},
    "config.json trickles": {"config.json": hub_attacks.dripping_body},
    "the weights trickle": {"weights": hub_attacks.dripping_weights},
    "a list without an end": {"list": hub_attacks.endless_list},
    "a web page in place of the list": {"list": hub_attacks.web_page},
    "a web page in place of a file": {"weights": hub_attacks.web_page},
    "a web page that does not say that it is one": {"config.json": hub_attacks.web_page_as_bytes},
    "the wrong part of a file": {"weights": hub_attacks.part("bytes 7-1006/1007")},
    "a part without its range": {"weights": hub_attacks.part(None)},
    "a body that ends early in good form": {"weights": hub_attacks.chunked_and_short},
    "another file than the list names": {"weights": hub_attacks.another_file},
    "a redirect without a target": {"weights": hub_attacks.no_target},
    "a redirect to no address": {"weights": hub_attacks.redirect("http://[")},
    "a redirect to itself": {"list": hub_attacks.itself},
    "the CDN refuses a link": {"/cdn/": lambda handler: handler.error(403, "", "AccessDenied")},
    "the CDN fails and stays so": {"/cdn/": lambda handler: handler.error(503, "", "slow down")},
    "a list of another type": {"list": hub_attacks.says([1, 2])},
    "a list that is not JSON": {"list": hub_attacks.says(b"\xff{")},
    "a list with a wrong checksum": {
        "list": hub_attacks.says(
            LIST | {"siblings": [{"rfilename": "a", "size": 1, "blobId": "x"}]}
        ),
    },
    "a list without a commit": {"list": hub_attacks.says(LIST | {"sha": None})},
    "a list that names a file twice": {
        "list": hub_attacks.says(
            LIST | {"siblings": [{"rfilename": "a", "size": 1, "blobId": "0" * 40}] * 2}
        ),
    },
}  # fmt: skip


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/tmp/llmchat-evil").touch, ())


FAULTS: dict[str, Callable[[Case], Any]] = {
    "a gated repo, no access": gated,
    "a gated repo whose list is public": gated_but_listed,
    "a private or unknown repo, without a token": private,
    "an unknown repo, with a token": unknown,
    "HTTP 401 on a file": lambda case: case.fail("/resolve/", 401),
    "HTTP 403 on a file": lambda case: case.fail("/resolve/", 403),
    "HTTP 404 on a file": lambda case: case.fail("/resolve/", 404),
    "a part of the weights is not in the repo": a_part,
    "a GGUF file that the repo does not have": lambda case: of_gguf(
        case, "Q4_0", "a-Q8_0.gguf", b""
    ),
    "a part of a GGUF file is not in the repo": lambda case: of_gguf(
        case, "Q8_0", "a-Q8_0-00001-of-00002.gguf", b""
    ),
    "a wrong header of GGUF": lambda case: of_gguf(case, "Q8_0", "a-Q8_0.gguf", b"GGML" * 9),
    "a GGUF file that is no language model": clip,
    "a token that cannot be one": lambda case: case.patch.setenv("HF_TOKEN", f"{TOKEN}\nX-Evil: 1"),
    "an unknown revision": lambda case: case.arguments.extend(["--revision", "v9"]),
    "HTTP 429 that stays": lambda case: case.fail("/api/", 429),
    "HTTP 429 that asks for an hour": an_hour,
    "HTTP 429 that passes": lambda case: (
        case.fail("/api/", 429, 2), case.fail("model.safetensors", 429, 3),
    ),
    "HTTP 500 that stays": lambda case: case.fail("/api/", 500),
    "HTTP 503 on a file that stays": lambda case: case.fail("/resolve/", 503),
    "HTTP 500 that passes": lambda case: (
        case.fail("/api/", 500, 2), case.fail("tokenizer", 502, 3),
    ),
    "the connection is cut once": lambda case: case.hub.cut_after.append(70_000),
    "the connection is cut at every try":
        lambda case: case.hub.cut_after.extend([10_000, *[0] * 50]),
    "the server falls silent": silent,
    "wrong bytes": lambda case: setattr(case.hub, "wrong_bytes", True),
    "a wrong header of safetensors": lambda case: case.base.files.update(
        {"model.safetensors": b"\xff" * 7 + bytes(1000)}
    ),
    "a damaged config.json": lambda case: case.base.files.update({"config.json": b"{"}),
    "a file name that leads outside":
        lambda case: case.base.files.update({"../../evil.json": b"{}"}),
    "two names that differ in case": lambda case: (
        case.patch.setattr("fnmatch.fnmatchcase", folding),
        case.base.files.update({"Config.json": b"{}"}),
    ),
    "a pickle that would run code": evil,
    "no weights in the repo": lambda case: case.base.files.pop("model.safetensors"),
    "code of its own, not allowed": marvel,
    "an empty adapter": empty,
    "an adapter of another base": foreign,
    "not enough memory": lambda case: case.patch.setattr(
        "llmchat.hub.machine.available_ram", lambda: 10_000_000
    ),
    "not enough disk": no_disk,
    "the Hub is not reachable": lambda case: case.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9"),
    "the Hub's name is unknown":
        lambda case: case.patch.setenv("HF_ENDPOINT", "http://no-such-host.invalid"),
    "offline, and pulled": here_then_offline,
    "a damaged file, when the model is opened":
        lambda case: rotten(case, "chat", "-m", "org/base", "--format", "alpaca", "hello"),
    "a damaged file, when it is verified": lambda case: rotten(case, "verify", "org/base"),
    "a damaged file, offline": lambda case: rotten(case, *PULL, "--offline"),
    "a damaged file, then pulled again": repaired,
    "a disk without symbolic links": no_symlinks,
    "a disk without file locks": lambda case: case.patch.setattr(
        "llmchat.hub.locks._has_locks", lambda folder: False
    ),
    **{
        name: lambda case, attacks=attacks: case.attack(**attacks)
        for name, attacks in ATTACKS.items()
    },
    "an address that is none": lambda case: case.patch.setenv("HF_ENDPOINT", "foo"),
    "a revision that cannot be one": lambda case: case.arguments.extend(["--revision", "../main"]),
    "no answer, and the model is here": here_then_silent,
    "offline, and not pulled": lambda case: case.arguments.append("--offline"),
}  # fmt: skip
# Rows that need processes of their own; the tests below drive them.
BY_PROCESS = ("the disk fills up on the way", "killed, then pulled again", "two pulls at once")


def folding(name: str, pattern: str) -> bool:
    """Every file is one of the checkpoint's: then two of them may meet."""
    return name.lower() in ("config.json", "model.safetensors")


def rows() -> dict[str, tuple[str, int]]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TABLE.read_text().splitlines()
        if line.startswith("| ")
    ]
    return {fault: (line, int(code)) for fault, line, code in cells[1:]}


def said(line: str, env: dict[str, str]) -> str:
    """A line of the table as a pattern."""
    pattern = (
        re.escape(line)
        .replace("HUB", re.escape(env["HF_ENDPOINT"]))
        .replace("CACHE", re.escape(str(Path(env["HF_HOME"]) / "hub")))
    )
    pattern = pattern.replace("SIZE", r"[\d.,]+ (?:bytes|[kMGT]B)")
    return re.sub(r"\bN\b", lambda match: r"[\d.,]+", pattern)


def test_the_table_has_every_fault_and_no_other() -> None:
    assert set(rows()) == {*FAULTS, *BY_PROCESS}


CASES = [
    (name, token) for name in FAULTS for token in (False, True) if token or name not in ATTACKS
]


@pytest.mark.parametrize(
    ("name", "with_token"), CASES, ids=[f"{name}{' with a token' * token}" for name, token in CASES]
)
def test_a_fault_is_one_line_and_a_code(
    name: str,
    with_token: bool,
    hub: Hub,
    env: dict[str, str],
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    line, code = rows()[name]
    if with_token:
        # This Hub does not know the token. Only the fault of a missing repo changes with it, and
        # no output contains it.
        monkeypatch.setenv("HF_TOKEN", f"{TOKEN}_wrong")
        monkeypatch.setenv("LLMCHAT_TRACEBACK", "1")
    FAULTS[name](case := Case(hub, folders, tmp_path, monkeypatch))
    ended = main(case.arguments)
    output = "".join(capfd.readouterr())
    errors = [text for text in output.splitlines() if text.startswith(("error:", "hint:"))]
    assert TOKEN not in output and ("Traceback" in output) <= with_token
    assert not any(
        TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
    if with_token and name == "a private or unknown repo, without a token":
        line, code = rows()["an unknown repo, with a token"]
    assert ended == code, output
    if code:
        assert re.fullmatch(
            f"error: {said(line, env | {'HF_ENDPOINT': os.environ['HF_ENDPOINT']})}", errors[0]
        ), output
        assert len(errors) <= 2 and all(len(text.splitlines()) == 1 for text in errors)
    opens = main(["verify", "org/base"])
    assert opens == 0 if code == 0 else opens != 0, "what was not pulled must not open"
    assert not (tmp_path / "evil.json").exists() and not Path("/tmp/llmchat-evil").exists()


@pytest.mark.parametrize("tenth", range(10))
def test_a_connection_cut_at_any_place_is_resumed_there(
    tenth: int, hub: Hub, env: dict[str, str], folders: dict[str, Path]
) -> None:
    size = len(hub.repos["org/base"].files["model.safetensors"])
    cut = size * tenth // 10 + tenth % 3
    hub.cut_after = [cut]
    assert main(["pull", "-q", *PULL[1:]]) == 0 and main(["verify", "org/base"]) == 0
    requests = [one.range for one in hub.downloads() if "model.safetensors" in one.path]
    # The first two read the header; a file of which nothing has arrived is fetched without a range.
    assert requests[2:] == [None, f"bytes={cut}-" if cut else None]


def pulling(env: dict[str, str], *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "llmchat", *PULL, *more]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def partials(env: dict[str, str]) -> list[int]:
    """Bytes of each partly loaded file."""
    sizes = []
    for path in Path(env["HF_HOME"]).rglob("*.llmchat.incomplete"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_killed_in_the_middle_only_what_is_missing_is_fetched_again(
    hub: Hub, env: dict[str, str], folders: dict[str, Path]
) -> None:
    hub.stall_after = 200_000
    process = pulling(env)
    wait_until(lambda: partials(env) == [200_000])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert main(["verify", "org/base"]) == 3
    hub.released.set()
    hub.stall_after = None
    hub.requests.clear()
    again = pulling(env)
    _, errors = again.communicate()
    assert (
        again.returncode == rows()["killed, then pulled again"][1]
        and "(200.0 kB are here from an earlier attempt)" in errors
    )
    ranges = [request.range for request in hub.downloads() if "model.safetensors" in request.path]
    assert "bytes=200000-" in ranges and None not in ranges
    assert main(["verify", "org/base"]) == 0 and not partials(env)


def test_interrupted_with_ctrl_c_it_ends_at_once(hub: Hub, env: dict[str, str]) -> None:
    hub.stall_after = 200_000
    # Nothing but the signal ends the wait for the silent server.
    process = pulling(env | {"HF_HUB_DOWNLOAD_TIMEOUT": "3600", "LLMCHAT_PULL_WINDOW": "3600"})
    wait_until(lambda: partials(env) == [200_000])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors


def test_interrupted_before_all_files_have_begun_it_ends_at_once(
    hub: Hub, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ThreadPoolExecutor):
        begun = False

        def submit(self, *task: Any, **more: Any) -> Any:
            if self.begun:
                wait_until(lambda: partials(env) == [200_000])
                raise KeyboardInterrupt
            self.begun = True
            return super().submit(*task, **more)

    hub.stall_after = 200_000
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")
    monkeypatch.setenv("LLMCHAT_PULL_WINDOW", "3600")
    monkeypatch.setattr("llmchat.hub.download.ThreadPoolExecutor", Interrupted)
    assert main(PULL) == 130


def test_two_pulls_at_once_the_second_waits_and_says_so(hub: Hub, env: dict[str, str]) -> None:
    hub.stall_after = 200_000
    first = pulling(env)
    wait_until(lambda: bool(partials(env)))
    second = pulling(env)
    assert second.stderr and first.stderr
    lines = iter(second.stderr.readline, "")
    assert "another llmchat is busy with org/base; waiting for it\n" in lines
    hub.released.set()
    first.communicate()
    second.communicate()
    assert (first.returncode, second.returncode) == (0, rows()["two pulls at once"][1])
    whole = [
        request
        for request in hub.downloads()
        if "model.safetensors" in request.path and request.range is None
    ]
    assert len(whole) == 1 and main(["verify", "org/base"]) == 0


def test_a_disk_that_fills_up_on_the_way(hub: Hub, env: dict[str, str]) -> None:
    line, code = rows()["the disk fills up on the way"]
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "drive_pull.py"),
        "100000",
        *PULL,
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == code and re.search(
        f"^error: {said(line, env)}$", done.stderr, re.M
    ), done.stderr
    assert "continues where it stopped" in done.stderr and "Traceback" not in done.stderr
    hub.requests.clear()
    assert main(PULL) == 0 and main(["verify", "org/base"]) == 0
    assert "bytes=100000-" in [request.range for request in hub.downloads()], (
        "what was there was used"
    )


def test_a_small_disk(
    hub: Hub, env: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "hf"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        assert main(PULL) == 6 and main([*PULL, "--force"]) == 6
        assert "of disk are needed" in capfd.readouterr().err and not partials(env)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_server_is_given_the_time_it_asks_for(
    hub: Hub, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    from llmchat.hub import remote, retry

    monkeypatch.setattr(retry, "pause", lambda seconds, stop: bool(waits.append(seconds)))
    hub.fail_with, hub.times, hub.retry_after = {"/api/": 429}, {"/api/": 2}, "7"
    monkeypatch.setattr(retry, "WAITS", (1.0, 2.0, 4.0, 8.0))
    remote.list_files(Source("hub", "org/base"), make_world(Path(env["HOME"]), HF_ENDPOINT=hub.url))
    assert [wait for wait in waits if wait] == [7.0, 7.0]


def test_the_address_of_a_hub_with_a_password_is_not_said(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://user:{TOKEN}@127.0.0.1:9")
    assert main(PULL) == 5
    assert TOKEN not in "".join(capfd.readouterr())


NAMES = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a\\..\\x",
    "C:\\x",
    "C:x",
    "a\0b",
    "a\nb",
    "",
    "a//b",
    "./x",
    "~/x",
    "~root",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_repo_leaves_the_cache(
    name: str, hub: Hub, env: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.repos["org/base"].files[name] = b"{}"
    assert main(PULL) == 9 and not hub.downloads()
    assert "outside its folder; nothing was downloaded" in capfd.readouterr().err


def test_a_folder_in_the_cache_that_leads_out_is_not_followed(
    hub: Hub, env: dict[str, str], tmp_path: Path
) -> None:
    from llmchat.errors import IntegrityError
    from llmchat.hub import cache

    outside, repo = tmp_path / "outside", tmp_path / "repo"
    outside.mkdir()
    snapshot = repo / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot / "sub").symlink_to(outside)
    with pytest.raises(IntegrityError, match="outside the cache"):
        cache.link(repo, snapshot, cache.RemoteFile("sub/x.json", 2, "0" * 40, False))
    assert not list(outside.iterdir())
