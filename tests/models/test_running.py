"""What `show` and `doctor` tell about the weights of a model, and how it would run here."""

import json
from pathlib import Path

import pytest
import torch
from support.checkpoints import save_tiny
from support.quantised_files import FORMATS, quantise_checkpoint, write_folder
from support.worlds import make_world

from llmchat.cli import main
from llmchat.models.facts import model_facts
from llmchat.models.opener import preset_of
from llmchat.models.running import kind_lines
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
