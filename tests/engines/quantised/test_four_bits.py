"""Our own 4 to 6 bits: what the fit finds, and the layers and models that compute with it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.checkpoints import save_tiny, tiny_config
from support.family_engines import divergence, executor
from torch import Tensor
from torch.nn.functional import linear

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.compiled.build import can_build
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.prepared_checkpoint import Preparation, open_prepared
from llmchat.engines.transformers.pytorch.grouped import GroupedLinear
from llmchat.engines.transformers.quantised.calibration import importance, measured
from llmchat.engines.transformers.quantised.few_bits import FewBitTensors, in_few_bits
from llmchat.engines.transformers.quantised.four_bits import FIVE, FOUR, SIX, Grid, quantised
from llmchat.engines.transformers.quantised.packed import pack, unpacked
from llmchat.engines.transformers.quantised.recipe import recipe
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.weights import MemoryTensors, open_tensors
from llmchat.errors import IntegrityError

CPU = torch.device("cpu")
GRIDS = pytest.mark.parametrize("grid", [FOUR, FIVE, SIX], ids=["4", "5", "6"])


def matrix(rows: int = 24, columns: int = 576, size: float = 0.02) -> Tensor:
    numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))
    return numbers * size


def error(weight: Tensor, found: Tensor, importance: Tensor | None = None) -> float:
    used = torch.ones(weight.shape[1]) if importance is None else importance
    squares = ((found - weight).square() * used).sum() / (weight.square() * used).sum()
    return float(squares.sqrt())


def rounded(weight: Tensor, bits: int, group: int) -> Tensor:
    """Each group from its least to its largest number in equal steps, without a fit."""
    groups = weight.unflatten(1, (-1, group))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (((groups - low) / step).round() * step + low).flatten(1)


@GRIDS
def test_fit_is_better_than_rounding_in_float_steps(grid: Grid) -> None:
    weight = matrix()
    fitted = error(weight, quantised(weight, None, grid).dequantised())
    assert fitted < error(weight, rounded(weight, grid.bits, grid.group))


@GRIDS
def test_inputs_that_are_used_more_are_closer(grid: Grid) -> None:
    weight, used = matrix(), torch.ones(576)
    used[::3] = 100.0
    alike, weighted = (quantised(weight, one, grid).dequantised() for one in (None, used))
    assert error(weight, weighted, used) < error(weight, alike, used)


def test_input_that_the_text_never_used_is_not_forgotten() -> None:
    weight, used = matrix(), torch.ones(576)
    used[7] = 0.0
    found = quantised(weight, used).dequantised()
    assert error(weight[:, 7:8], found[:, 7:8]) < 0.2


@GRIDS
@pytest.mark.parametrize("size", [1e-9, 1e-5, 1e-3, 1e4, 1e9])
@pytest.mark.parametrize("shift", [1.0, -3.0])
def test_every_size_of_numbers_keeps_its_digits(grid: Grid, size: float, shift: float) -> None:
    weight = (matrix(3, 288, 1.0) + shift) * size
    found = quantised(weight, None, grid)
    assert int(found.codes.max()) < 2**grid.bits
    assert error(weight, found.dequantised()) < {4: 0.11, 5: 0.055, 6: 0.03}[grid.bits]


@GRIDS
def test_zeros_stay_zeros(grid: Grid) -> None:
    weight = torch.cat((torch.zeros(2, 64), matrix(2, 64)))
    assert not quantised(weight, None, grid).dequantised()[:2].any()


@GRIDS
def test_size_is_that_of_the_packed_layout(grid: Grid) -> None:
    weight = matrix(64, 1024)
    found = pack(quantised(weight, None, grid)).data
    assert 1 <= len(found) / grid.bytes_of((64, 1024)) < 1.04


@GRIDS
def test_compiled_step_has_a_layout_for_it(grid: Grid) -> None:
    found = quantised(matrix(), None, grid)
    again = unpacked(pack(found))
    assert torch.equal(again.dequantised(), found.dequantised())


def test_threads_do_not_change_the_codes() -> None:
    weight, before = matrix(1024, 576), torch.get_num_threads()
    several = quantised(weight, None)
    assert torch.get_num_threads() == before
    torch.set_num_threads(1)
    try:
        alone = quantised(weight, None)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(several.codes, alone.codes) and torch.equal(several.scale, alone.scale)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weight_that_is_not_a_number_is_refused(bad: float) -> None:
    weight = matrix()
    weight[3, 5] = bad
    tensors = MemoryTensors({"w.weight": weight})
    with pytest.raises(IntegrityError, match=r"w\.weight holds NaN or infinity"):
        FewBitTensors(tensors, {"w.weight": FOUR}, dict).get("w.weight")


# ---- layers


@pytest.mark.parametrize("grid", [FOUR, SIX])
def test_layer_in_torch_computes_with_the_dequantised_numbers(grid: Grid) -> None:
    parts = [quantised(matrix(rows), None, grid) for rows in (8, 24)]
    bias, x = torch.randn(32), torch.randn(3, 2, 576)
    layer = GroupedLinear(parts, bias, CPU)
    wanted = linear(x, torch.cat([part.dequantised() for part in parts]), bias)
    torch.testing.assert_close(layer(x), wanted)


def test_rows_of_a_weight_are_those_of_the_whole() -> None:
    found = quantised(matrix(), None)
    mapped = replace(found, table=torch.arange(16, dtype=torch.int8))
    for weight in (found, mapped):
        rows = weight.rows(5, 7)
        assert torch.equal(rows.dequantised(), weight.dequantised()[5:12])


# ---- models


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=9,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return save_tiny(tmp_path_factory.mktemp("base"), config)


def opened(folder: Path) -> tuple[Plan, Tensors]:
    config = modern_config(read_json(folder / "config.json"))
    plan = plan_of(config)
    assert plan is not None
    return plan, viewed(config, open_tensors(folder, ()))


def test_recipe_gives_more_bits_to_what_needs_them(base: Path) -> None:
    found = recipe(opened(base)[0])
    bits = {name.removeprefix("model."): grid.bits for name, grid in found.items()}
    assert bits["embed_tokens.weight"] == 6
    layer = {
        name.rpartition("_proj")[0].rpartition(".")[2]: count
        for name, count in bits.items()
        if name.startswith("layers.4.")
    }
    assert layer == {"q": 4, "k": 6, "v": 6, "o": 4, "gate": 4, "up": 4, "down": 5}
    ends = [bits[f"layers.{number}.mlp.down_proj.weight"] for number in (0, 1, 7, 8)]
    assert ends == [6, 5, 5, 6]


def test_importance_is_the_mean_square_of_what_a_linear_reads(base: Path) -> None:
    """The first linears read the normed embedding, which is easy to compute by hand."""
    plan, tensors = opened(base)
    ids = [5, 9, 11, 30]
    found = measured(plan, tensors, [ids[:2], ids[2:]])
    x = tensors.get("model.embed_tokens.weight").float()[ids]
    norm = tensors.get("model.layers.0.input_layernorm.weight").float()
    normed = x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * norm
    for name in ("q", "k", "v"):
        squares = found[f"model.layers.0.self_attn.{name}_proj.weight"]
        torch.testing.assert_close(squares, normed.square().mean(0), rtol=0.02, atol=1e-4)
    linears = [name for name in tensors.shapes if "_proj" in name]
    assert sorted(found) == sorted(linears)


def test_calibration_text_reaches_the_linears_of_a_model(base: Path) -> None:
    plan, tensors = opened(base)
    found = importance(plan, tensors, Tokenizer(base))
    assert all(float(squares.max()) > 0 for squares in found.values())


def test_int4_model_is_near_its_checkpoint_and_int8_nearer(base: Path) -> None:
    ids = list(range(10, 60))
    exact, near, far = (
        TransformersEngine(base, weights=kind, device="cpu").logits(ids)
        for kind in ("fp32", "int8", "int4")
    )
    assert divergence(exact, near) < divergence(exact, far) < 0.02


def test_torch_computes_with_the_numbers_that_are_prepared(base: Path) -> None:
    """Linears alone: the embedding and the head are matrices in bf16 in torch."""
    plan, tensors = opened(base)
    few = in_few_bits(plan, tensors, base)
    name = "model.layers.3.mlp.up_proj.weight"
    weight = few.grouped(name)
    assert weight is not None and torch.equal(few.get(name), weight.dequantised())
    assert few.int8(name) is None and few.stored_size(name)


@pytest.mark.skipif(not can_build(), reason="needs a C compiler")
def test_compiled_step_reads_int4_as_torch_does(base: Path, kernel_folder: Path) -> None:
    ids = list(range(10, 60))
    compiled, in_torch = (
        TransformersEngine(base, weights="int4", device="cpu", kernels=folder)
        for folder in (kernel_folder, None)
    )
    assert (executor(compiled), executor(in_torch)) == ("compiled", "torch")
    assert divergence(in_torch.logits(ids), compiled.logits(ids)) < 2e-3


def test_prepared_copy_holds_the_same_numbers(base: Path, tmp_path: Path) -> None:
    Preparation(base, weights="int4").write(tmp_path)
    config = modern_config(read_json(base / "config.json"))
    plan, tensors = opened(base)
    few, copied = in_few_bits(plan, tensors, base), viewed(config, open_prepared(tmp_path, config))
    for name in recipe(plan):
        assert copied.packed(name) is not None
        assert torch.equal(copied.get(name), few.get(name))
    engines = (
        TransformersEngine(base, weights="int4", device="cpu", prepared=prepared)
        for prepared in (tmp_path, None)
    )
    first, second = (engine.logits(list(range(10, 60))) for engine in engines)
    torch.testing.assert_close(first, second)


def test_size_of_a_copy_is_known_before_a_tensor_is_read(base: Path, tmp_path: Path) -> None:
    preparation = Preparation(base, weights="int4")
    preparation.write(tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.glob("*.[sb]*"))
    assert written < 1.3 * preparation.size
    assert preparation.size < 0.6 * Preparation(base).size
