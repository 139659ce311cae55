"""Prepared copies: made by pull or the first chat, interrupted, shared, damaged, stale, removed."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from support.checkpoints import save_adapter, save_tiny
from support.command_line import in_process
from support.worlds import make_world

from llmchat import hub
from llmchat.engines import Chunk, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers.modules import self_test
from llmchat.engines.transformers.prepared_checkpoint import Preparation
from llmchat.errors import OutOfResources
from llmchat.models import loading, locate, prepared_copy
from llmchat.models.opener import ModelOpener
from llmchat.output.progress import NoProgress
from llmchat.presets import Source, preset_for
from llmchat.prompt import Prompt
from llmchat.settings import Options, World

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def adapter(folders: tuple[Path, Path]) -> Path:
    return folders[1]


@pytest.fixture
def base(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """A base of the test's own, to change and to remove."""
    return Path(shutil.copytree(folders[0], tmp_path / "base"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command: exit code, stdout, stderr."""
    return in_process(tmp_path, monkeypatch, capfd)


def ask(run: Run, *model: str) -> tuple[int, str, str]:
    return run(
        "chat",
        *model,
        "-n",
        "--max-tokens",
        "4",
        "--temperature",
        "0",
        "--seed",
        "1",
        "the quick brown fox",
    )


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "CACHE" / "llmchat" / "prepared").glob("[!.]*"))


def test_the_first_chat_prepares_and_the_next_ones_map(
    run: Run, base: Path, tmp_path: Path
) -> None:
    code, first, err = ask(run, "-m", str(base))
    assert (code, err) == (0, "") and len(copies(tmp_path)) == 1
    made = (copies(tmp_path)[0] / "model.safetensors").stat().st_mtime_ns
    assert {path.name for path in copies(tmp_path)[0].iterdir()} == {
        "config.json", "generation_config.json", "head.safetensors", "model.safetensors",
        "prepared.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    }  # fmt: skip
    assert ask(run, "-m", str(base)) == (0, first, "")
    assert (copies(tmp_path)[0] / "model.safetensors").stat().st_mtime_ns == made


def test_other_weights_and_adapters_that_were_asked_for_once_are_not_prepared(
    run: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    for model in (
        ["--weights", "bf16"],
        ["--adapter", str(adapter)],
        ["--adapter", f"{adapter}:0.5"],
        ["--adapter", "none"],
    ):
        code, _, err = ask(run, "-m", str(base), *model)
        assert (code, err, copies(tmp_path)) == (0, "", [])


def test_pull_prepares_what_it_was_told_of(
    run: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    assert run("pull", str(base), "--no-prepare")[0] == 0 and copies(tmp_path) == []
    code, _, err = run("pull", str(base), "--adapter", str(adapter))
    prepared, ready = err.splitlines()[-2:]
    assert code == 0 and re.fullmatch(r"base: prepared as int8 \(186\.\d kB\)", prepared)
    assert ready == f"ready: llmchat chat -m {base} --adapter {adapter}"
    assert len(copies(tmp_path)) == 1
    before = copies(tmp_path)[0].stat().st_mtime_ns
    with_adapter = ask(run, "-m", str(base), "--adapter", str(adapter))
    assert with_adapter[0] == 0 and copies(tmp_path)[0].stat().st_mtime_ns == before
    run("pull", str(base), "--weights", "bf16")
    assert len(copies(tmp_path)) == 1


def test_a_prepared_llama_loads_neither_peft_nor_bitsandbytes_nor_transformers(
    run: Run, base: Path, tmp_path: Path
) -> None:
    run("pull", str(base))
    code = (
        "import sys\nfrom llmchat.cli import main\n"
        f"code = main(['chat', '-m', {str(base)!r}, '-n',"
        " '--max-tokens', '4', 'the quick brown fox'])\n"
        "print([name for name in ('peft', 'bitsandbytes', 'transformers', 'accelerate')"
        " if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "[]", done.stderr


def test_a_changed_base_is_prepared_again_and_the_old_copy_goes(
    run: Run, base: Path, tmp_path: Path
) -> None:
    first = ask(run, "-m", str(base))[1]
    old = copies(tmp_path)
    other = save_tiny(tmp_path / "other", seed=5)
    shutil.copyfile(other / "model.safetensors", base / "model.safetensors")
    second = ask(run, "-m", str(base))[1]
    assert second != first and len(copies(tmp_path)) == 1 and copies(tmp_path) != old


@pytest.mark.parametrize("name", ["model.safetensors", "prepared.json", "tokenizer.json"])
def test_a_copy_that_is_not_whole_is_made_again(
    name: str, run: Run, base: Path, tmp_path: Path
) -> None:
    expected = ask(run, "-m", str(base))
    path = copies(tmp_path)[0] / name
    size = path.stat().st_size
    os.truncate(path, size // 2)
    assert ask(run, "-m", str(base)) == expected
    assert path.stat().st_size == size


def test_a_copy_with_a_broken_header_is_made_again(run: Run, base: Path, tmp_path: Path) -> None:
    expected = ask(run, "-m", str(base))
    with (copies(tmp_path)[0] / "model.safetensors").open("r+b") as file:
        file.write(b"\xff" * 16)
    assert ask(run, "-m", str(base)) == expected


def test_verify_finds_a_changed_byte_and_removes_the_copy(
    run: Run, base: Path, tmp_path: Path
) -> None:
    run("pull", str(base))
    assert (
        run("verify", str(base))[1].splitlines()[-1]
        == f"{base}: prepared copy OK (checksums match)"
    )
    with (copies(tmp_path)[0] / "model.safetensors").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\x55")
    code, _, err = run("verify", str(base))
    assert (
        code == 9
        and "model.safetensors is damaged" in err
        and "the copy was removed; the next use makes it again" in err
    )
    assert copies(tmp_path) == [] and run("verify", str(base))[0] == 0


def test_a_chat_goes_on_where_no_copy_can_be_written(
    run: Run, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(run, "-m", str(base))[1]
    shutil.rmtree(tmp_path / "CACHE")
    (tmp_path / "CACHE" / "llmchat").mkdir(parents=True)
    (tmp_path / "CACHE" / "llmchat" / "prepared").write_text("in the way")
    code, answer, err = ask(run, "-m", str(base))
    assert (code, answer) == (0, expected)
    assert (
        err.startswith("note: no prepared copy was written, each start takes longer: ")
        and len(err.splitlines()) == 1
    )
    (tmp_path / "CACHE" / "llmchat" / "prepared").unlink()
    monkeypatch.setattr(
        "llmchat.hub.local_store.shutil.disk_usage",
        lambda folder: shutil._ntuple_diskusage(10, 10, 0),
    )  # type: ignore[attr-defined]
    code, answer, err = ask(run, "-m", str(base))
    assert (code, answer) == (0, expected) and "bytes are free" in err
    code, _, err = run("pull", str(base))
    assert code == 6 and "bytes are free" in err and copies(tmp_path) == []


def test_the_plan_says_where_the_copy_has_no_room(
    run: Run, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "int8 copy" not in run("pull", str(base), "--dry-run")[1]
    monkeypatch.setattr(
        "llmchat.hub.machine.shutil.disk_usage",
        lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 1000),
    )  # type: ignore[attr-defined]
    code, out, _ = run("pull", str(base), "--dry-run")
    assert code == 0 and "note       the disk has no room for the int8 copy of 144.0 kB" in out


def test_a_model_larger_than_the_memory_is_prepared_by_pull_alone(
    run: Run, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.models.prepared_copy.available_ram", lambda: 100_000)
    assert ask(run, "-m", str(base))[0] == 0 and copies(tmp_path) == []
    run("pull", str(base), "--force")
    code, _, err = ask(run, "-m", str(base))
    assert code == 0 and "parts of it are read from the disk for every token" in err


def test_models_of_a_kind_that_is_not_prepared_say_so_once(run: Run, tmp_path: Path) -> None:
    config = transformers.PhimoeConfig(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    experts = save_tiny(tmp_path / "experts", config)
    code, _, err = run("pull", str(experts))
    assert (
        code == 0
        and "not prepared, each start takes longer: transformers assembles the tensors of Phimoe"
        in err
    )
    assert ask(run, "-m", str(experts))[::2] == (0, "")


def test_rm_takes_the_copies_with_the_model(
    run: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    run("pull", str(base))
    run("pull", str(base), "--adapter", str(adapter))
    assert len(copies(tmp_path)) == 2
    assert (
        run("rm", "-y", str(base), "--dry-run")[2] == "base: 373 kB would be freed\n"
        and len(copies(tmp_path)) == 2
    )
    assert run("rm", "-y", str(base))[2] == "base: 373 kB freed\n" and copies(tmp_path) == []
    assert (base / "model.safetensors").exists(), "a user's own folder stays"


def test_show_tells_of_the_copy(run: Run, base: Path, tmp_path: Path) -> None:
    assert "\nprepared" not in run("show", str(base))[1]
    run("pull", str(base))
    assert f"{copies(tmp_path)[0]} (187 kB)" in run("show", str(base))[1]


def test_a_person_who_waits_is_told_once(base: Path, tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True)
    flags = {"model": str(base), "format": "chatml", "device": "cpu"}
    ModelOpener(world, flags).open(waiting=True)
    said = world.stderr.getvalue()  # type: ignore[attr-defined]
    assert f"preparing {base} once … 9" in said and said.endswith("\r\x1b[K")
    again = make_world(tmp_path, tty=True)
    ModelOpener(again, flags).open(waiting=True)
    assert again.stderr.getvalue() == "loading base …\r\x1b[K"  # type: ignore[attr-defined]


def test_the_status_line_says_what_goes_on_behind_the_typing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def load(model: locate.Model, options: Options, progress: hub.Progress) -> ScriptedEngine:
        said.append(opened.engine.describe())
        progress.start("preparing", 10)
        said.append(opened.engine.describe())
        progress.done()
        said.append(opened.engine.describe())
        engine = ScriptedEngine()
        engine.load_s = 1.25
        return engine

    monkeypatch.setattr("llmchat.models.opener.load", load)
    opened = ModelOpener(
        make_world(tmp_path), {"model": str(base), "format": "chatml"}
    ).open_later()
    assert opened.engine.load_s == 1.25
    assert said == ["base (loading …)", "base (preparing, once …)", "base (loading …)"]


def test_an_adapter_on_an_8_bit_base_is_noted_and_not_merged_into_a_checkpoint(
    run: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    eight_bit = tmp_path / "8bit"
    shutil.copytree(base, eight_bit)
    Preparation(base).write(eight_bit)
    note = (
        "note: the base is 8-bit already;"
        " where the adapter changes it, its weights are rounded a second time\n"
    )
    assert ask(run, "-m", str(eight_bit)) == (0, ask(run, "-m", str(base))[1], "")
    assert ask(run, "-m", str(eight_bit), "--adapter", str(adapter))[::2] == (0, note)
    run("rm", "-y", str(base))
    assert copies(tmp_path) == [], "an 8-bit base is mapped where it lies"
    assert note in run("pull", str(eight_bit), "--adapter", str(adapter))[2]
    assert (
        ask(run, "-m", str(eight_bit), "--adapter", str(adapter))[::2] == (0, "")
        and len(copies(tmp_path)) == 1
    )
    code, _, err = run(
        "merge", str(eight_bit), "--adapter", str(adapter), "--output", str(tmp_path / "merged")
    )
    assert code == 8 and "are quantised, so merging would round them twice" in err


def test_an_architecture_that_cannot_be_relied_on_is_refused_at_pull_and_at_chat(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(
        tmp_path / "mamba",
        transformers.MambaConfig(vocab_size=320, hidden_size=64, num_hidden_layers=2),
        seed=3,
    )
    monkeypatch.setattr(self_test, "_LIMIT_16", -1.0)
    for command in (
        ("pull", str(base)),
        ("chat", "-m", str(base), "--format", "chatml", "-n", "hi"),
    ):
        code, out, err = run(*command)
        last = err.splitlines()[-2:]
        assert (code, out) == (8, "")
        assert last[0] == (
            "error: the architecture `mamba` is not supported:"
            " a prompt read in pieces gives other answers than one read at once"
        )
        assert last[1].startswith("hint: ")
    monkeypatch.undo()


def test_an_architecture_is_tested_once_and_not_in_every_process(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(
        tmp_path / "mamba",
        transformers.MambaConfig(vocab_size=320, hidden_size=64, num_hidden_layers=2),
        seed=3,
    )
    monkeypatch.setattr(self_test, "_LIMIT_16", 2.0)  # a random model exaggerates every rounding
    assert run("pull", str(base))[0] == 0
    monkeypatch.setattr(self_test, "difference", lambda *_: pytest.fail("tested again"))
    assert ask(run, "-m", str(base), "--format", "chatml")[0] == 0


@pytest.mark.parametrize(
    ("repo", "weights", "noted"),
    [("a.gguf", "fp32", True), ("a.gguf", "bf16", False), ("a", "fp32", False)],
)
def test_fp32_of_a_dequantised_gguf_is_told_apart(
    repo: str, weights: str, noted: bool, base: Path
) -> None:
    preset = preset_for(Options(model=str(base), format="chatml", weights=weights))  # type: ignore[arg-type]
    told = Told()
    loading.load(
        locate.Model(preset, hub.Checkpoint(base, Source("path", repo), "", 0)),
        Options(device="cpu"),
        told,
    )
    note = (
        "note: this model was dequantised from a GGUF file to bf16;"
        " fp32 computes with more digits, but its weights have those of bf16"
    )
    assert [line for line in told.notes if "GGUF" in line] == [note] * noted


# --- several processes ---

DRIVE = """
import sys
from pathlib import Path

from support.worlds import make_world
from llmchat import hub
from llmchat.models import prepared_copy
from llmchat.presets import preset_for
from llmchat.output.progress import NoProgress
from llmchat.settings import Options

class Halting(NoProgress):
    def advance(self, count):
        print("writing", flush=True)
        sys.stdin.readline()

world = make_world(Path(sys.argv[1]))
preset = preset_for(Options(model=sys.argv[2], format="chatml"))
checkpoints = [hub.find(preset.base, world)]
print(prepared_copy.find_or_make(preset, checkpoints, world, Halting()), flush=True)
"""


class Told(NoProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []
        self.noted = threading.Event()

    def start(self, what: str, total: int | None) -> None:
        self.steps.append(what)

    def note(self, line: str) -> None:
        self.notes.append(line)
        self.noted.set()


def made(base: Path, world: World, progress: NoProgress) -> Path:
    preset = preset_for(Options(model=str(base), format="chatml"))
    return prepared_copy.find_or_make(preset, [hub.find(preset.base, world)], world, progress)


def halted(base: Path, home: Path) -> subprocess.Popen[str]:
    """Another process that has begun to write a copy, and goes on when its stdin is closed."""
    arguments = [sys.executable, "-c", DRIVE, str(home), str(base)]
    path = os.pathsep.join(
        [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout and process.stdout.readline() == "writing\n"
    return process


def test_a_killed_preparation_leaves_nothing_that_counts_and_is_done_again(
    base: Path, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    process = halted(base, tmp_path)
    process.kill()
    process.wait()
    place = world.cache / "prepared"
    assert len(list(place.glob(".*"))) == 1 and hub.copies(world) == []
    told = Told()
    folder = made(base, world, told)
    assert list(place.iterdir()) == [folder] and told.steps == [f"preparing {base}"]


def test_an_interrupted_preparation_leaves_nothing(base: Path, tmp_path: Path) -> None:
    class Interrupted(Told):
        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

    world = make_world(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        made(base, world, Interrupted())
    assert list((world.cache / "prepared").iterdir()) == []


def test_what_another_model_left_behind_goes_unless_it_is_being_written(
    base: Path, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    other = save_tiny(tmp_path / "other", seed=2)
    process = halted(base, tmp_path)
    made(other, world, Told())
    assert len(list((world.cache / "prepared").glob(".*"))) == 1
    process.kill()
    process.wait()
    assert len(hub.useless_copies(world)) == 1
    third = save_tiny(tmp_path / "third", seed=3)
    made(third, world, Told())
    assert list((world.cache / "prepared").glob(".*")) == []


def test_a_second_process_waits_and_uses_what_the_first_made(base: Path, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    process = halted(base, tmp_path)
    told, result = Told(), []
    thread = threading.Thread(target=lambda: result.append(made(base, world, told)))
    thread.start()
    assert told.noted.wait(30)
    said, _ = process.communicate("")
    thread.join(30)
    assert (
        told.notes == [f"another llmchat is preparing {base}; waiting for it"] and told.steps == []
    )
    assert said.splitlines()[-1] == str(result[0]) and len(hub.copies(world)) == 1


def test_no_room_is_told_before_anything_is_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path)
    monkeypatch.setattr(
        "llmchat.hub.local_store.shutil.disk_usage",
        lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000),
    )  # type: ignore[attr-defined]
    told = Told()
    with pytest.raises(OutOfResources, match=r"kB are free"):
        made(base, world, told)
    assert told.steps == []


def test_an_adapter_of_a_preset_is_prepared_with_it(base: Path, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    adapter = save_adapter(tmp_path / "adapter", base)
    world.own_presets.mkdir(parents=True)
    (world.own_presets / "tuned.toml").write_text(
        f'format = "chatml"\n[base]\nkind = "path"\nrepo = "{base}"\n'
        f'[[adapters]]\nkind = "path"\nrepo = "{adapter}"\n'
    )
    options = Options(model="tuned", device="cpu")
    model = locate.locate(preset_for(options, world.own_presets), world)
    engine = loading.load(model, options)
    (copy,) = hub.copies(world)
    assert copy.recipe == hub.CopyRecipe.of(model.base, model.adapters)  # type: ignore[arg-type]
    sampling = Sampling(temperature=0, max_tokens=8)
    answer = [
        event
        for event in engine.stream(Prompt("the quick", ()), sampling)
        if isinstance(event, Chunk)
    ]
    again = [
        event
        for event in loading.load(model, options).stream(Prompt("the quick", ()), sampling)
        if isinstance(event, Chunk)
    ]
    assert answer == again
