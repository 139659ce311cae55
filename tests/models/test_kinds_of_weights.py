"""What `show` and `doctor` tell about the weights of a model, and how it would run here."""

import json
from pathlib import Path

import pytest
import torch
from support.checkpoints import save_tiny
from support.quantised_files import FORMATS, quantise_checkpoint, write_folder
from support.tiny_gguf import write_gguf
from support.worlds import make_world

from llmchat.cli import main
from llmchat.engines.transformers.compiled.build import can_build
from llmchat.models.facts import model_facts
from llmchat.models.locate import locate, provenance
from llmchat.models.opener import preset_of
from llmchat.models.running import kind_lines
from llmchat.models.weight_names import rounded_kind, stored_kind
from llmchat.quantisation.kinds import WeightKind


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


def told(command: str, folder: Path, home: Path) -> str:
    world = make_world(home)
    main([command, str(folder)], world)
    return world.stdout.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_kinds_are_a_table() -> None:
    kinds = [WeightKind("GPTQ 4-bit", 168, 1_310_000_000, 696_000_000)]
    kinds.append(WeightKind("bfloat16", 1, 500_000, 1_000_000))
    assert kind_lines(kinds) == [
        "GPTQ 4-bit  168 tensors  1.31 billion   4.25 bits",
        "bfloat16       1 tensor   0.5 million  16.00 bits",
    ]


@pytest.mark.parametrize("command", ["show", "doctor"])
def test_a_quantised_folder(command: str, base: Path, tmp_path: Path) -> None:
    made, _ = quantise_checkpoint(base, tmp_path / "made", FORMATS["gptq 4-bit"])
    text = told(command, made, tmp_path / "home")
    assert "GPTQ 4-bit  14 tensors" in text and "float32      7 tensors" in text


@pytest.mark.parametrize("native, runs", [("", "its own numbers (GPTQ 4-bit) in the compiled step"),
    ("0", "dequantised, then int8 in torch")])  # fmt: skip
def test_how_it_runs_depends_on_the_compiled_step(
    native: str, runs: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCHAT_NATIVE", native)
    made, _ = quantise_checkpoint(base, tmp_path / "made", FORMATS["gptq 4-bit"])
    world = make_world(tmp_path / "home")
    known = model_facts(preset_of(world, model=str(made)), world)
    if native or "compiled" in known.runs:
        assert known.runs == runs
    checkpoint = locate(preset_of(world, model=str(made)), world).base
    assert checkpoint is not None
    rounded = rounded_kind(preset_of(world, model=str(made)), checkpoint)
    assert rounded == ("" if known.weights == "GPTQ 4-bit" else "GPTQ 4-bit")
    assert 4 < known.kinds[0].bits < 6 and known.memory > 600_000_000


@pytest.mark.parametrize(
    "name, runs", [("fp8 blocks", "dequantised, then int8"), ("nf4", "dequantised, then int8")]
)
def test_floats_in_few_bits_are_dequantised(
    name: str, runs: str, base: Path, tmp_path: Path
) -> None:
    made, _ = quantise_checkpoint(base, tmp_path / "made", FORMATS[name])
    world = make_world(tmp_path / "home")
    assert model_facts(preset_of(world, model=str(made)), world).runs.startswith(runs)


def test_weights_that_do_not_run_are_told_by_show(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "exl2"}
    tensors = {"model.layers.0.mlp.up_proj.q_weight": torch.zeros(8, 8)}
    folder = write_folder(tmp_path / "exl2", tensors, config)
    text = told("show", folder, tmp_path / "home")
    assert "it does not run: the weights are EXL2, which llmchat does not run" in text
    assert "float32  1 tensor" in text


def test_the_kind_of_the_file_is_named_everywhere(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `show`, and in the record of an answer; also for int4, which keeps the numbers too."""
    made, _ = quantise_checkpoint(base, tmp_path / "made", FORMATS["awq gemm"])
    world = make_world(tmp_path / "home")
    for weights, native, expected in (
        ("int8", "1", "AWQ 4-bit"), ("int4", "1", "AWQ 4-bit"), ("bf16", "1", "bf16"),
        ("int8", "0", "int8"),
    ):  # fmt: skip
        monkeypatch.setenv("LLMCHAT_NATIVE", native)
        if native == "1" and not can_build():
            continue
        preset = preset_of(world, model=str(made), weights=weights)
        assert model_facts(preset, world).weights == expected
        # The record of an answer leaves open what this machine does: it must not load torch.
        recorded = "bf16" if weights == "bf16" else "AWQ 4-bit"
        assert provenance(locate(preset, world))["weights"] == recorded
        base_ = locate(preset, world).base
        assert base_ is not None and stored_kind(base_) == "AWQ 4-bit"


def test_a_gguf_file_is_told_by_its_header(base: Path, tmp_path: Path) -> None:
    """Before it was ever opened; of a damaged one, what is wrong with it."""
    file = write_gguf(base, tmp_path / "tiny.gguf")
    text = told("show", file, tmp_path / "home")
    assert "Q8_0  16 tensors" in text and "F32    5 tensors" in text
    assert "its own numbers (Q8_0)" in text or "dequantised, then int8" in text
    file.write_bytes(file.read_bytes()[:200])
    world = make_world(tmp_path / "home")
    assert main(["show", str(file)], world) == 9
