"""`llmchat convert`: whole commands, in this process."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.checkpoints import CHATML, save_tiny
from support.command_line import in_process
from support.tiny_families import CASES
from support.worlds import make_world

from llmchat.gguf_file import read_header
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


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_a_file_is_named_after_the_model_and_holds_its_template(
    run: Run, base: Path, tmp_path: Path
) -> None:
    code, out, told = run("convert", str(base), "--to", "gguf:q8_0")
    assert (code, out) == (0, "")
    assert re.search(r"^tiny-Q8_0\.gguf: \d+ kB; llmchat chat -m tiny-Q8_0\.gguf$", told, re.M)
    facts = read_header(tmp_path / "tiny-Q8_0.gguf").facts
    assert facts["general.name"] == "tiny" and facts["tokenizer.chat_template"] == CHATML
    assert files(tmp_path) == {"tiny-Q8_0.gguf"}


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


def test_a_model_that_gguf_cannot_express_is_refused(run: Run, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "falcon", CASES["falcon-7b"].config())
    code, _, told = run("convert", str(base), "--to", "gguf:F16")
    assert code == 8 and "model type `falcon`" in told and files(tmp_path) == set()


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
