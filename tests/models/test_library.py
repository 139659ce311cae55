"""The commands for models with a Hub on loopback: output, and files on disk."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.loopback_hub import Hub

from llmchat.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run a command as a user whose Hub is the loopback's: exit code, stdout, stderr."""
    monkeypatch.setattr("llmchat.hub.retry.WAITS", (0.0,) * 4)
    env = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url}
    for name, value in (
        env
        | {
            f"XDG_{name}_HOME": str(tmp_path / name)
            for name in ("CACHE", "CONFIG", "DATA", "STATE")
        }
    ).items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(arguments))
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def own_preset(tmp_path: Path) -> None:
    """A preset of the user's own: the base with the adapter."""
    folder = tmp_path / "CONFIG" / "llmchat" / "presets"
    folder.mkdir(parents=True)
    (folder / "tuned.toml").write_text(
        'format = "alpaca"\nlicence = "Apache-2.0"\n[base]\nkind = "hub"\nrepo = "org/base"\n'
        '[[adapters]]\nkind = "hub"\nrepo = "org/adapter"\n'
    )


def files(tmp_path: Path) -> set[str]:
    return {
        str(path.relative_to(tmp_path / "hf"))
        for path in (tmp_path / "hf").rglob("*")
        if path.is_file() or path.is_symlink()
    }


def test_a_dry_run_prints_the_plan_and_leaves_nothing(run: Run, hub: Hub, tmp_path: Path) -> None:
    code, out, err = run("pull", "org/base", "--adapter", "org/adapter", "--dry-run")
    assert code == 0 and err == "" and not (tmp_path / "hf").exists()
    lines = out.splitlines()
    assert lines[:4] == [
        "model      org/base, 0.103 million parameters",
        f"base       org/base @ aaaaaaaa: {lines[1].split(': ')[1]}",
        f"adapter    org/adapter @ aaaaaaaa: {lines[2].split(': ')[1]}",
        "           rank 4, alpha 8, q_proj v_proj, 8 tensors",
    ]
    assert lines[-1] == "verdict    yes: it fits" and "licence    apache-2.0" in lines
    plan = json.loads(run("pull", "org/base", "--dry-run", "--json")[1])
    assert (plan["model"], plan["verdict"], plan["licence"], plan["memory"]["context"]) == (
        "org/base",
        "yes",
        "apache-2.0",
        256,
    )
    assert (
        plan["download"] == sum(map(len, hub.repos["org/base"].files.values()))
        and plan["parts"][0]["revision"] == "a" * 40
    )


def test_a_no_is_a_no_unless_it_is_forced(
    run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.hub.machine.available_ram", lambda: 10_000_000)
    reason = "it needs 600.2 MB as int8; 10.0 MB are free in this machine's memory"
    for more in ((), ("--dry-run",), ("-q",), ("--json",)):
        code, _, err = run("pull", "org/base", *more)
        assert code == 6 and f"error: {reason}\nhint: " in err
        assert not any(request.range is None for request in hub.downloads())
    assert run("pull", "org/base", "--force")[0] == 0
    assert run("pull", "org/base")[0] == 0, "what is here is not refused"
    assert run("pull", "org/base", "--dry-run")[0] == 6


def test_a_pull_says_what_it_means_and_what_it_did(run: Run) -> None:
    code, out, err = run("pull", "org/base")
    assert (code, out) == (0, "")
    first, *steps, last, ready = err.splitlines()
    assert re.fullmatch(
        r"org/base: 423\.\d kB to download; 600\.2 MB of memory as int8, [\d.]+ GB free;"
        r" licence: apache-2\.0",
        first,
    )
    assert "model.safetensors (413.0 kB)" in steps
    downloaded, preparing = steps[6:]
    assert re.fullmatch(r"org/base: 423\.\d kB downloaded \(413 kB\)", downloaded)
    assert re.fullmatch(r"preparing org/base \(17\d\.\d kB\)", preparing)
    assert re.fullmatch(r"org/base: prepared as int8 \(18\d\.\d kB\)", last)
    assert ready == "ready: llmchat chat -m org/base"
    assert run("pull", "org/base") == (0, "", f"org/base: already here (413 kB)\n{ready}\n")
    assert run("pull", "-q", "org/base") == (0, "", "")


def test_presets_and_repos_are_listed(run: Run, own_preset: None) -> None:
    run("pull", "tuned")
    run("pull", "org/base")
    assert run("ls")[1] == "tuned\t421 kB\t187 kB\tint8\tnever used\tApache-2.0\n"
    run("pull", "org/base", "--revision", "a" * 40)
    listed = run("ls")[1].splitlines()
    assert listed[1] == f"org/base@{'a' * 40}\t413 kB\t186 kB\tint8\tnever used\tapache-2.0"
    assert run("ls", "-q")[1].splitlines() == ["tuned", f"org/base@{'a' * 40}"]
    rows = json.loads(run("ls", "--json")[1])
    assert [(row["name"], row["kind"], row["used"]) for row in rows] == [
        ("tuned", "preset", None),
        (f"org/base@{'a' * 40}", "repo", None),
    ]


def test_files_of_the_users_own_are_listed_and_removed_with_what_was_made_of_them(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in hub.repos["org/base"].files.items():
        (folder / name).write_bytes(content)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    code, _, err = run("pull", str(folder))
    assert code == 0 and err.splitlines()[-1] == f"ready: llmchat chat -m {folder}"
    (row,) = json.loads(run("ls", "--json")[1])
    assert (
        (row["name"], row["kind"]) == (str(folder), "folder")
        and row["size"] > 400_000
        and row["prepared"] > 100_000
    )
    (folder / "pytorch_model.bin").rename(tmp_path / "elsewhere")
    code, _, said = run("rm", "-y", str(folder))
    assert code == 0 and re.fullmatch(r"mine: \d{3} kB freed\n", said)
    assert (
        run("ls")[1] == ""
        and not list((tmp_path / "CACHE").rglob("*.safetensors"))
        and (folder / "config.json").exists()
    )


def test_when_a_model_was_used_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    run("pull", "org/base")
    code, _, err = run("chat", "-m", "org/base", "-n", "--max-tokens", "1", "x")
    assert code == 0, err
    assert (
        re.search(r"\t\d{4}-\d\d-\d\d \d\d:\d\d\t", run("ls")[1])
        and "\nused " in run("show", "org/base")[1]
    )
    used = json.loads(run("ls", "--json")[1])[0]["used"]
    assert used > 1.5e9
    (used_folder,) = tmp_path.rglob("used")
    for path in used_folder.iterdir():
        path.unlink()
    used_folder.rmdir()
    used_folder.write_text("in the way")
    assert run("chat", "-m", "org/base", "-n", "--max-tokens", "1", "x")[0] == 0, (
        "a note that cannot be kept ends no chat"
    )


def test_show_says_what_is_known(run: Run, own_preset: None) -> None:
    before = json.loads(run("show", "tuned", "--json")[1])
    assert (before["pulled"], before["files"], before["adapters"]) == (False, {}, ["org/adapter"])
    run("pull", "tuned")
    facts = json.loads(run("show", "tuned", "--json")[1])
    assert (
        facts["pulled"]
        and facts["parameters"] == 102_720
        and facts["trained_context"] == 256
        and facts["format"] == "alpaca"
    )
    assert (
        facts["files"]["org/base/model.safetensors"] > 400_000
        and "org/adapter/adapter_model.safetensors" in facts["files"]
    )
    shown = run("show", "tuned")[1]
    assert "org/base/model.safetensors (413 kB)" in shown and "0.103 million" in shown
    run("pull", "org/base")
    assert json.loads(run("show", "org/base", "--json")[1])["licence"] == "apache-2.0"


def test_rm_frees_all_of_a_model(run: Run, own_preset: None, tmp_path: Path) -> None:
    run("pull", "tuned")
    here = files(tmp_path)
    code, _, said = run("rm", "tuned", "--dry-run")
    assert code == 0 and said == "tuned: 620 kB would be freed\n" and files(tmp_path) == here
    assert run("rm", "-y", "tuned") == (0, "", "tuned: 620 kB freed\n")
    assert files(tmp_path) == set() and run("ls")[1] == ""
    assert run("rm", "-y", "tuned") == (0, "", "tuned: 0 bytes freed\n")


def test_rm_keeps_what_another_model_needs(run: Run, own_preset: None, tmp_path: Path) -> None:
    folder = tmp_path / "CONFIG" / "llmchat" / "presets"
    (folder / "plain.toml").write_text(
        'format = "alpaca"\n[base]\nkind = "hub"\nrepo = "org/base"\n'
    )
    run("pull", "tuned")
    assert run("ls", "-q")[1] == "plain\ntuned\n"
    assert run("rm", "tuned", "-y")[0] == 0
    assert run("ls", "-q")[1] == "plain\n" and not any(
        "adapter" in name for name in files(tmp_path)
    )
    assert run("verify")[1] == "plain: org/base OK (checksums match)\n"


def test_rm_keeps_the_blobs_of_another_revision(run: Run, hub: Hub, tmp_path: Path) -> None:
    run("pull", "org/base", "--revision", "a" * 40)
    repo = hub.repos["org/base"]
    repo.commit, repo.files = (
        "b" * 40,
        repo.files | {"generation_config.json": b'{"eos_token_id": 9}'},
    )
    run("pull", "org/base")
    assert len(list((tmp_path / "hf").rglob("blobs/*"))) == len(repo.files) + 1
    assert run("rm", "-y", "org/base")[2] == "org/base: 186 kB freed\n", (
        "one small file, a ref and a prepared copy"
    )
    name = f"org/base@{'a' * 40}"
    assert (
        run("verify")[1]
        == f"{name}: {name} OK (checksums match)\n{name}: prepared copy OK (checksums match)\n"
    )
    assert len(list((tmp_path / "hf").rglob("blobs/*"))) == len(repo.files) and not any(
        "b" * 40 in name for name in files(tmp_path)
    )


def test_rm_takes_what_an_interrupted_pull_left(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = [100_000, *[0] * 50]
    assert run("pull", "org/base")[0] == 5
    assert any(name.endswith(".llmchat.incomplete") for name in files(tmp_path))
    code, _, said = run("rm", "-y", "org/base")
    assert (
        code == 0 and re.fullmatch(r"org/base: 1\d\d kB freed\n", said) and files(tmp_path) == set()
    )


def test_verify_names_the_file_that_is_not_as_it_was(run: Run, tmp_path: Path) -> None:
    run("pull", "org/base")
    small = next(path for path in (tmp_path / "hf").rglob("config.json")).resolve()
    content = small.read_bytes()
    small.write_bytes(content.replace(b"64", b"65"))
    assert run("verify")[0] == 9 and "config.json is damaged" in run("verify", "org/base")[2]
    small.write_bytes(content[:-1])
    code, _, said = run("verify", "org/base")
    assert code == 9 and "config.json is" in said and "it must be" in said
    assert run("verify", "org/other")[0] == 3


def test_the_tab_key_knows_the_names(run: Run, own_preset: None, tmp_path: Path) -> None:
    run("pull", "org/base")

    def complete(words: str) -> list[str]:
        code = (
            "import sys\nfrom llmchat.cli import main\nmain([])\n"
            "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules"
        )
        env = dict(os.environ) | {
            "_LLMCHAT_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        ends = (
            "import atexit\natexit.register(lambda: [print(name, file=sys.stderr)"
            " for name in ('torch', 'huggingface_hub') if name in sys.modules])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", "import sys\n" + ends + code],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("llmchat pull tun") == ["tuned"]
    assert "smollm2" in complete("llmchat chat -m smol")
    assert "org/base" in complete("llmchat rm ") and "tuned" in complete("llmchat show ")
