"""A `.gguf` file from its pull to an answer: its own numbers, and no 16-bit copy."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from support.checkpoints import save_adapter, save_tiny
from support.command_line import in_process
from support.tiny_families import CASES
from support.tiny_gguf import write_gguf
from support.worlds import make_world

from llmchat.engines.checkpoint_files import GGUF_POINTER
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.compiled.build import can_build
from llmchat.engines.transformers.plain_checkpoint import plain_checkpoint
from llmchat.engines.transformers.prepared_checkpoint import Preparation, open_prepared
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import IntegrityError
from llmchat.hub.gguf_folder import write_folder
from llmchat.models import prepared_copy
from llmchat.models.opener import ModelOpener

Run = Callable[..., tuple[int, str, str]]
ASK = ("--no-server", "--no-log", "--temperature", "0", "--max-tokens", "6", "--device", "cpu")


def q4_0(name: str, array: object) -> Kind:
    """Every row of these sizes is of whole blocks."""
    return Kind.Q4_0 if getattr(array, "ndim", 0) > 1 else Kind.F32


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "base", CASES["llama"].config())


@pytest.fixture(scope="module")
def file(base: Path) -> Path:
    return write_gguf(base, base.parent / "tiny.gguf", q4_0)


@pytest.fixture(scope="module")
def made(file: Path) -> Path:
    """The folder of the file."""
    folder = file.parent / "made"
    folder.mkdir()
    write_folder([file], folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command: exit code, stdout, stderr."""
    # Without the compiled step, which takes seconds to build.
    monkeypatch.setattr(prepared_copy, "kernels_folder", lambda world: None)
    monkeypatch.setattr("llmchat.models.loading.kernels_folder", lambda world: None)
    monkeypatch.setattr("llmchat.engines.transformers.compiled.find_kernels", lambda *_: None)

    return in_process(tmp_path, monkeypatch, capfd)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_pulled_file_answers_and_no_16_bit_copy_is_written(
    run: Run, file: Path, tmp_path: Path
) -> None:
    code, _, told = run("pull", str(file))
    assert code == 0 and "tiny.gguf: prepared as Q4_0" in told
    written = files_below(tmp_path / "CACHE")
    large = {path.name for path in written if path.stat().st_size > 20_000}
    assert large <= {"packed.bin", "tokenizer.json"}
    packed = next(path for path in written if path.name == "packed.bin")
    assert packed.stat().st_size < 1.1 * file.stat().st_size
    code, answer, told = run("chat", *ASK, "-m", str(file), "the quick brown fox")
    assert code == 0 and answer.strip() and "preparing" not in told
    code, shown, _ = run("verify", str(file))
    assert code == 0 and shown.count("OK") == 2
    assert run("rm", "--yes", str(file))[0] == 0
    assert not any(path.name == "packed.bin" for path in files_below(tmp_path / "CACHE"))


def test_a_file_that_was_not_pulled_is_prepared_by_its_first_chat(run: Run, file: Path) -> None:
    code, answer, told = run("chat", *ASK, "-m", str(file), "the quick brown fox")
    assert code == 0 and answer.strip() and "error" not in told


@pytest.mark.parametrize("weights", ["int4", "bf16", "fp32"])
def test_every_kind_of_weights_answers(run: Run, file: Path, weights: str) -> None:
    code, answer, told = run("chat", *ASK, "-m", str(file), "--weights", weights, "the quick")
    assert code == 0 and answer.strip(), told


def packed_below(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in files_below(folder) if path.name == "packed.bin"]


def test_a_changed_file_is_prepared_again(run: Run, base: Path, tmp_path: Path) -> None:
    file = write_gguf(base, tmp_path / "own.gguf", q4_0)
    assert run("pull", str(file))[0] == 0
    (first,) = packed_below(tmp_path)
    write_gguf(save_tiny(tmp_path / "other", CASES["llama"].config(), seed=7), file, q4_0)
    assert run("chat", *ASK, "-m", str(file), "the quick")[0] == 0
    (second,) = packed_below(tmp_path)
    assert second != first
    file.unlink()
    code, _, told = run("chat", *ASK, "-m", str(file), "the quick")
    assert code == 3 and "there is no folder or file" in told


def test_a_live_adapter_adds_what_a_merged_one_does(made: Path, base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", base)
    (tmp_path / "copy").mkdir()
    Preparation(made).write(tmp_path / "copy")
    ids = list(range(5, 25))
    merged = TransformersEngine(made, [adapter], device="cpu", weights="fp32")
    live = TransformersEngine(made, device="cpu", prepared=tmp_path / "copy")
    plain = live.logits(ids)
    live.adapt([(adapter, 1.0)], "tuned")
    expected = merged.logits(ids)
    distance = (live.logits(ids) - expected).norm() / expected.norm()
    assert distance < 0.1 < (plain - expected).norm() / expected.norm()


def test_a_prepared_copy_has_the_numbers_of_the_file(made: Path, tmp_path: Path) -> None:
    Preparation(made).write(tmp_path)
    ours, theirs = open_prepared(tmp_path, {}), open_tensors(made, ())
    assert {path.name for path in tmp_path.iterdir()} == {
        "packed.bin", "packed.json", "llmchat.safetensors", "config.json",
    }  # fmt: skip
    assert set(ours.shapes) == set(theirs.shapes)
    for name in theirs.shapes:
        assert torch.equal(ours.get(name).float(), theirs.get(name)), name
    assert ours.stored_size("model.layers.0.mlp.up_proj.weight") is not None
    assert ours.int8("model.layers.0.mlp.up_proj.weight") is None


def test_a_merged_adapter_leaves_the_other_weights_as_they_are(
    made: Path, base: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", base)
    (tmp_path / "copy").mkdir()
    Preparation(made, [adapter]).write(tmp_path / "copy")
    ours, theirs = open_prepared(tmp_path / "copy", {}), open_tensors(made, [adapter])
    changed = "model.layers.0.self_attn.q_proj.weight"
    kept = "model.layers.0.self_attn.k_proj.weight"
    assert ours.int8(changed) is not None and ours.stored_size(changed) is None
    assert ours.stored_size(kept) is not None
    exact = theirs.get(changed)
    assert (ours.get(changed) - exact).norm() / exact.norm() < 0.01
    assert torch.equal(ours.get(kept), theirs.get(kept))


def test_a_damaged_table_of_a_copy_is_refused(made: Path, tmp_path: Path) -> None:
    Preparation(made).write(tmp_path)
    table = json.loads((tmp_path / "packed.json").read_text())
    name = next(iter(table))
    for change in ({"at": 1}, {"at": 2**62}, {"shape": [2**40, 64]}, {"kind": "w9"}, {"shape": []}):
        (tmp_path / "packed.json").write_text(json.dumps(table | {name: table[name] | change}))
        with pytest.raises(IntegrityError):
            open_prepared(tmp_path, {})


def test_a_16_bit_checkpoint_is_made_for_programs_that_need_one(made: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([[5, 6, 7, 8]])
    with plain_checkpoint(made) as folder:
        assert folder != made and not (folder / GGUF_POINTER).exists()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        found = model(ids).logits
    assert not folder.exists()
    tensors = open_tensors(made, ())
    weight = dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"]
    exact = tensors.get("model.layers.0.mlp.up_proj.weight")
    assert torch.equal(weight, exact.to(torch.bfloat16).float()) and torch.isfinite(found).all()


def test_a_chat_with_a_file_does_not_wait_for_torch(file: Path, tmp_path: Path) -> None:
    """What identifies the model is known before the engine loads, in its thread."""
    code = (
        "import sys\nfrom llmchat.models.locate import locate, provenance\n"
        "from llmchat.presets import preset_for\nfrom llmchat.settings import Options, World\n"
        f"model = locate(preset_for(Options(model={str(file)!r})), World.real())\n"
        "print(provenance(model)['weights'], 'torch' in sys.modules)"
    )
    env = {"HOME": str(tmp_path), "PATH": ""}
    # The first time, the file is unpacked, and its plan looked at.
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "Q4_0 False\n", done.stderr


def test_an_engine_names_the_kind_of_its_file(file: Path, tmp_path: Path) -> None:
    opened = ModelOpener(make_world(tmp_path), {"model": str(file), "device": "cpu"}).open()
    expected = "Q4_0" if can_build() else "int8"
    assert f" {expected} cpu" in opened.engine.describe()
    opened.engine.unload()


def test_merging_into_a_file_gives_a_16_bit_checkpoint(
    run: Run, file: Path, base: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", base)
    assert run("pull", "-q", str(file))[0] == 0
    target = tmp_path / "merged"
    code, _, told = run("merge", str(file), "--adapter", str(adapter), "-o", str(target))
    assert code == 0, told
    types = {tensor.dtype for tensor in load_file(target / "model.safetensors").values()}
    assert types == {torch.bfloat16}
    assert run("chat", *ASK, "-m", str(target), "the quick brown fox")[0] == 0
