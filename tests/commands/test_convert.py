"""`llmchat convert`: whole commands, in this process."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from signal import SIGKILL
from unittest.mock import ANY

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import CHATML, save_tiny
from support.command_line import in_process
from support.tiny_families import CASES
from support.worlds import make_world

from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import OutOfResources
from llmchat.gguf_file import read_header
from llmchat.gguf_file.mixes import MIXES
from llmchat.hub.gguf_folder import write_folder
from llmchat.models.convert import convert
from llmchat.models.opener import preset_of
from llmchat.output.progress import NoProgress

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "tiny", CASES["llama"].config())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    return in_process(tmp_path / "home", monkeypatch, capfd)


def words(printed: str) -> str:
    """A help text without the frame that cuts its lines."""
    return " ".join(re.sub("[^A-Za-z0-9_:]", " ", printed).split())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("form", ["gguf:MXFP4", "gguf:mxfp4_moe"])
def test_a_mix_for_experts_is_refused_without_experts(
    form: str, run: Run, base: Path, tmp_path: Path
) -> None:
    code, out, told = run("convert", str(base), "--to", form)
    assert (code, out) == (8, "") and files(tmp_path) == set()
    assert "error: MXFP4_MOE stores only experts in MXFP4, and this model has none" in told
    assert "hint: use `--to gguf:Q8_0`, which stores the same numbers" in told


def test_a_mix_for_experts_names_its_file(run: Run, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "experts", CASES["mixtral"].config())
    assert run("convert", str(model), "--to", "gguf:MXFP4")[0] == 0
    header = read_header(tmp_path / "experts-MXFP4_MOE.gguf")
    assert header.kind == "MXFP4_MOE"
    kinds = {name: info.type.name for name, info in header.tensors.items()}
    assert kinds["blk.0.ffn_up_exps.weight"] == "MXFP4" and kinds["output.weight"] == "Q8_0"


def test_a_file_is_named_after_the_model_and_holds_its_template(
    run: Run, base: Path, tmp_path: Path
) -> None:
    code, out, told = run("convert", str(base), "--to", "gguf:q8_0")
    assert (code, out) == (0, "")
    assert re.search(r"^tiny-Q8_0\.gguf: \d+ kB; llmchat chat -m tiny-Q8_0\.gguf$", told, re.M)
    facts = read_header(tmp_path / "tiny-Q8_0.gguf").facts
    assert facts["general.name"] == "tiny" and facts["tokenizer.chat_template"] == CHATML
    assert files(tmp_path) == {"tiny-Q8_0.gguf"}


def test_the_help_names_every_kind(run: Run) -> None:
    named = re.search(r"such as gguf:Q4_K_M (.*?)or int4", words(run("convert", "--help")[1]))
    assert named and tuple(re.findall(r"\b[BFIMQX]\w+\b", named[1])) == tuple(MIXES)


def test_an_existing_file_is_kept_unless_forced(run: Run, base: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_text("mine")
    command = ("convert", str(base), "--to", "gguf:F16", "-o", str(file))
    code, _, told = run(*command)
    assert code == 2 and "mine.gguf exists" in told and "--force replaces it" in told
    assert file.read_text() == "mine"
    assert run(*command, "--force", "-q")[0] == 0
    assert read_header(file).kind == "F16" and files(tmp_path) == {"mine.gguf"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--to", "gguf:Q9"), "cannot convert to `gguf:Q9`"),
        (("--to", "onnx"), "cannot convert to `onnx`"),
        (("--to", "gguf:F16", "-o", "."), "is a folder"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], line: str, run: Run, base: Path) -> None:
    code, _, told = run("convert", str(base), *arguments)
    assert code == 2 and line in told and "Traceback" not in told


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_not_a_file_is_never_replaced(
    make: Callable[[Path], None], run: Run, base: Path, tmp_path: Path
) -> None:
    target = tmp_path / "special"
    make(target)
    before = target.lstat().st_ino, target.lstat().st_mode
    command = ("convert", str(base), "--to", "gguf:F16", "-o", str(target), "--force")
    code, _, told = run(*command)
    assert (code, "special is not a regular file" in told) == (2, True)
    assert (target.lstat().st_ino, target.lstat().st_mode) == before


def test_the_model_that_is_read_is_never_replaced(run: Run, base: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    assert run("convert", str(base), "--to", "gguf:F16", "-o", str(own), "-q")[0] == 0
    before = own.read_bytes()
    code, _, told = run("convert", str(own), "--to", "gguf:Q4_0", "-o", "own.gguf", "--force")
    assert code == 2 and "own.gguf is part of the model to convert" in told
    assert own.read_bytes() == before
    inside = base / "inside"
    code, _, told = run("convert", str(base), "--to", "int4", "-o", str(inside))
    assert code == 2 and "inside is part of the model" in told and not inside.exists()


def test_a_fault_in_the_middle_leaves_nothing(run: Run, base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in base.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    state = load_file(base / "model.safetensors")
    state["model.layers.2.mlp.down_proj.weight"][0, 0] = float("inf")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    code, _, told = run("convert", str(broken), "--to", "gguf:Q8_0")
    assert code == 9 and "down_proj" in told
    assert files(tmp_path) == set()


def test_ctrl_c_leaves_the_earlier_file(base: Path, tmp_path: Path) -> None:
    class Interrupted(NoProgress):
        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

    world, file = make_world(tmp_path / "home"), tmp_path / "out" / "a.gguf"
    preset = preset_of(world, model=str(base))
    convert(preset, "Q8_0", file, world, NoProgress())
    before = file.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        convert(preset, "F16", file, world, Interrupted())
    assert files(file.parent) == {"a.gguf"} and file.read_bytes() == before


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["gguf:Q4_K_M", "int4"])
def test_a_limit_on_the_size_of_files_leaves_nothing(
    kind: str, run: Run, base: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    before, limits = checksums(base), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        code, _, told = run("convert", str(base), "--to", kind, "-o", "made")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == OutOfResources.exit_code and "Traceback" not in told
    assert "made could not be written: File too large" in told and "hint: free some space" in told
    assert not [path for path in tmp_path.iterdir() if "made" in path.name]
    assert checksums(base) == before


# Kills itself in the middle of the second matrix.
_KILLED = """
import os, signal, sys
from llmchat.cli import main
from llmchat.engines.transformers.quantised import gguf_kinds
whole, calls = gguf_kinds.encoded, []
def killed(*arguments):
    for part in whole(*arguments):
        calls.append(part)
        if len(calls) > 9:
            os.kill(os.getpid(), signal.SIGKILL)
        yield part
gguf_kinds.encoded = killed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of POSIX")
def test_the_run_after_a_kill_succeeds_and_cleans_up(base: Path, tmp_path: Path) -> None:
    home, before = tmp_path / "home", checksums(base)
    home.mkdir()
    command = ("convert", str(base), "--to", "gguf:Q4_K_M", "-o", "made")
    environment = os.environ | {"HOME": str(home)}
    killed = subprocess.run([sys.executable, "-c", _KILLED, *command], cwd=home, env=environment)
    assert killed.returncode == -SIGKILL and not (home / "made").exists()
    left = [path.name for path in home.iterdir() if path.name.startswith(".made-")]
    assert len(left) == 1
    world = make_world(tmp_path / "other")
    convert(preset_of(world, model=str(base)), "Q4_K_M", home / "made", world, NoProgress())
    assert [path.name for path in home.iterdir() if "made" in path.name] == ["made"]
    assert read_header(home / "made").facts["general.file_type"] == 15
    assert checksums(base) == before


def test_a_file_of_the_same_mix_is_copied_byte_for_byte(
    run: Run, base: Path, tmp_path: Path
) -> None:
    assert run("convert", str(base), "--to", "gguf:Q4_K_M", "-o", "one.gguf")[0] == 0
    code, _, told = run("convert", "./one.gguf", "--to", "gguf:Q4_K_M", "-o", "two.gguf")
    assert code == 0 and "of 23 quantised matrices, 23 were copied as they are, 0 rounded" in told
    assert "calibration" not in told
    one, two = (read_header(tmp_path / name) for name in ("one.gguf", "two.gguf"))
    assert one.facts["general.file_type"] == two.facts["general.file_type"] == 15
    for name, info in one.tensors.items():
        first, second = (
            (tmp_path / file).read_bytes()[tensor.offset :][: tensor.size]
            for file, tensor in (("one.gguf", info), ("two.gguf", two.tensors[name]))
        )
        assert first == second and info.type == two.tensors[name].type


def test_a_model_that_gguf_cannot_express_is_refused(run: Run, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "gptj", CASES["gpt-j"].config())
    code, _, told = run("convert", str(base), "--to", "gguf:F16")
    assert code == 8 and "model type `gptj`" in told and files(tmp_path) == set()


def test_a_tokenizer_that_cuts_words_in_its_own_way_is_refused(
    run: Run, base: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for path in base.iterdir():
        (odd / path.name).write_bytes(path.read_bytes())
    saved = json.loads((odd / "tokenizer.json").read_text("utf-8"))
    saved["pre_tokenizer"]["add_prefix_space"] = True
    (odd / "tokenizer.json").write_text(json.dumps(saved), "utf-8")
    code, _, told = run("convert", str(odd), "--to", "gguf:F16")
    assert code == 8 and "no name for the way in which it cuts words" in told


ASK = ("--no-server", "--no-log", "--temperature", "0", "--max-tokens", "6", "--device", "cpu")


@pytest.fixture
def without_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiled step, which takes seconds to build."""
    for place in ("models.prepared_copy.kernels_folder", "models.loading.kernels_folder"):
        monkeypatch.setattr(f"llmchat.{place}", lambda world: None)
    monkeypatch.setattr("llmchat.engines.transformers.compiled.find_kernels", lambda *_: None)


@pytest.mark.usefixtures("without_step")
def test_an_int4_folder_is_a_model_of_its_own(run: Run, base: Path, tmp_path: Path) -> None:
    code, _, told = run("convert", str(base), "--to", "int4")
    assert code == 0 and "llmchat chat -m tiny-int4" in told
    made = tmp_path / "tiny-int4"
    assert {"config.json", "packed.bin", "packed.json", "tokenizer.json"} <= files(made)
    facts = json.loads(run("show", str(made), "--json")[1])
    assert [kind["kind"] for kind in facts["kinds"]] == ["int4", "int6", "int5", "bfloat16"]
    assert 5 < facts["bits"] < 6.5
    code, answer, _ = run("chat", *ASK, "-m", str(made), "the quick brown fox")
    assert code == 0
    assert run("chat", *ASK, "-m", str(base), "--weights", "int4", "the quick brown fox") == (
        0, answer, ANY,
    )  # fmt: skip
    copies = [path.parent.name for path in (tmp_path / "home").rglob("packed.bin")]
    assert len(copies) == 1 and "tiny-int4" not in copies[0]


def test_an_int4_folder_is_replaced_only_by_force(run: Run, base: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    code, _, told = run("convert", str(base), "--to", "int4", "-o", str(mine), "--force")
    assert code == 2 and "is not a converted folder" in told
    assert (mine / "letter.txt").read_text() == "dear"
    assert run("convert", str(base), "--to", "int4")[0] == 0
    assert run("convert", str(base), "--to", "int4")[0] == 2
    assert run("convert", str(base), "--to", "int4", "--force")[0] == 0


def test_weights_that_are_quantised_are_not_rounded_twice(
    run: Run, base: Path, tmp_path: Path
) -> None:
    assert run("convert", str(base), "--to", "gguf:Q8_0")[0] == 0
    code, _, told = run("convert", "tiny-Q8_0.gguf", "--to", "int4")
    assert code == 8 and "are Q8_0 already: int4 would round them twice" in told
    code, _, told = run("convert", "tiny-Q8_0.gguf", "--to", "gguf:Q4_0", "-o", "b.gguf")
    assert (
        code == 0
        and "the weights are Q8_0 already; those whose type stays the same in Q4_0" in told
    )
    assert "of 23 quantised matrices, 2 were copied as they are, 21 rounded a second time" in told


@pytest.mark.usefixtures("without_step")
def test_an_int4_folder_of_another_layout_is_refused(run: Run, base: Path, tmp_path: Path) -> None:
    assert run("convert", str(base), "--to", "int4")[0] == 0
    config = tmp_path / "tiny-int4" / "config.json"
    changed = json.loads(config.read_text("utf-8")) | {"llmchat_packed": 2}
    config.write_text(json.dumps(changed), "utf-8")
    code, _, told = run("chat", *ASK, "-m", "./tiny-int4", "hello")
    assert code == 9 and "another layout" in told and "convert the model again" in told


def test_a_gguf_file_is_written_from_an_int4_folder(run: Run, base: Path, tmp_path: Path) -> None:
    assert run("convert", str(base), "--to", "int4")[0] == 0
    code, _, told = run("convert", "./tiny-int4", "--to", "gguf:F32", "-o", "a.gguf")
    assert code == 0, told
    (tmp_path / "made").mkdir()
    write_folder([tmp_path / "a.gguf"], tmp_path / "made")
    ours, theirs = (open_tensors(tmp_path / name, ()) for name in ("tiny-int4", "made"))
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(ours.get(name).float(), theirs.get(name))
