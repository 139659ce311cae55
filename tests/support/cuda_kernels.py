"""Tests of the Triton kernels, run by test_cuda_kernels.py in a separate process.

They run on a GPU, or in Triton's interpreter on the CPU.
"""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from llmchat.engines import Sampling
from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers import TransformersEngine, loading
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.live_lora import AdaptedLinear, LiveAdapter
from llmchat.engines.transformers.pytorch import cuda, forward, kv_cache
from llmchat.engines.transformers.pytorch.cuda import graphs, launch
from llmchat.engines.transformers.pytorch.cuda.linear import TritonInt8Linear, fused
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer, quantise_rows
from llmchat.engines.transformers.weights import open_tensors
from llmchat.prompt import Prompt
from support.checkpoints import save_tiny, tiny_config

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPS = 0.1
# One rounding to bf16: the GPU rounds to the nearest, the interpreter truncates.
ROUNDED = 0.004 if DEVICE.type == "cuda" else 0.008


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few, large tiles: the interpreter takes milliseconds for each program. The GPU keeps its own.

    Caches start small, so that they grow.
    """
    torch.manual_seed(0)
    monkeypatch.setattr(kv_cache.KVCache, "FIRST", 16)
    if DEVICE.type == "cpu":
        monkeypatch.setattr(launch, "_ATTENTION_PROGRAMS", 2)
        monkeypatch.setattr(launch, "tile_for", lambda columns, gated: launch.Tile(64, 512, 1))


def error(out: torch.Tensor, exact: torch.Tensor) -> float:
    return float((out.double() - exact).norm() / exact.norm())


def exact_product(x, weight, step, bias=None, norm=None, residual=None, gated=False):  # type: ignore[no-untyped-def]
    """The result of `matvec` in float64."""
    x, weight = x.double(), weight.double() * (1.0 if step is None else step.double()[:, None])
    if norm is not None:
        x = x * (x.pow(2).mean(-1, keepdim=True) + EPS).rsqrt() * norm.double()
    y = x @ weight.T + (0.0 if bias is None else bias.double())
    if gated:
        gate, up = y.chunk(2, dim=-1)
        y = F.silu(gate) * up
    return y + (0.0 if residual is None else residual.double())


def bf16(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).bfloat16()


def int8(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight with every int8 value, including -128, and the step of each row."""
    return torch.randint(-128, 128, (n, k), dtype=torch.int8, device=DEVICE), torch.rand(
        n, device=DEVICE
    ) * 0.01


# Rows and columns that fill no tile, and some that fill several.
SHAPES = [(1, 16), (5, 48), (16, 128), (33, 400), (40, 1040)]


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_int8_products_are_close_to_float64(rows: int, n: int, k: int) -> None:
    weight, step = int8(n, k)
    x, bias = bf16(rows, k), bf16(n)
    assert launch.fits(x, weight)
    tile = launch.Tile(16, 128, 1)
    assert (
        error(launch.matvec(x, weight, step, tile=tile), exact_product(x, weight, step)) < ROUNDED
    )
    assert (
        error(launch.matvec(x, weight, step, bias), exact_product(x, weight, step, bias)) < ROUNDED
    )


@pytest.mark.parametrize("outliers", [1, 6])
@pytest.mark.parametrize("rows", [1, 3])
def test_outliers_do_not_cost_precision(rows: int, outliers: int) -> None:
    weight, step = int8(32, 512)
    x = bf16(rows, 512)
    x[:, ::100][:, :outliers] *= 300
    assert error(launch.matvec(x, weight, step), exact_product(x, weight, step)) < ROUNDED


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        ("norm",),
        ("residual",),
        ("gated",),
        ("norm", "gated", "bias"),
        ("bias", "norm", "residual", "gated"),
    ],
    ids="+".join,
)
def test_fused_operations_equal_separate_ones(rows: int, options: tuple[str, ...]) -> None:
    n, k, gated = 24, 208, "gated" in options
    weight, step = int8(2 * n if gated else n, k)
    x = bf16(rows, k)
    given = {"norm": bf16(k), "residual": bf16(rows, n)}
    chosen = {name: tensor for name, tensor in given.items() if name in options}
    bias = bf16(len(weight)) if "bias" in options else None
    out = launch.matvec(x, weight, step, bias, eps=EPS, gated=gated, **chosen)
    assert error(out, exact_product(x, weight, step, bias, gated=gated, **chosen)) < 0.01
    layer = TritonInt8Linear(weight, step * 127, bias, DequantBuffer())
    apart = fused(_Hidden(layer), x, eps=EPS, gated=gated, **chosen)
    assert error(fused(layer, x, eps=EPS, gated=gated, **chosen), apart.double()) < 0.02


class _Hidden(torch.nn.Module):
    """Hides a layer, so that `fused` computes each operation by itself."""

    def __init__(self, layer: torch.nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_bf16_weights_support_one_row() -> None:
    weight, x, norm = bf16(37, 144), bf16(1, 144), bf16(144)
    out = launch.matvec(x, weight, None, norm=norm, eps=EPS)
    assert error(out, exact_product(x, weight, None, norm=norm)) < ROUNDED
    assert not launch.fits(bf16(2, 144), weight)


def test_layer_accepts_any_number_of_rows_at_any_address() -> None:
    original = torch.randn(64, 96, device=DEVICE) * 0.02
    quantised, scb = quantise_rows(original)
    bias = bf16(64)
    layer = TritonInt8Linear(quantised, scb, bias, DequantBuffer())
    room = bf16(40 * 96 + 8)
    for rows, offset in ((1, 0), (1, 1), (3, 5), (8, 0), (9, 0), (40, 3)):
        x = room[offset : offset + rows * 96].view(rows, 96)
        assert error(layer(x), x.double() @ original.double().T + bias.double()) < 0.015
    odd = TritonInt8Linear(*quantise_rows(original[:, :50]), None, DequantBuffer())
    x = bf16(2, 50)
    assert error(odd(x), x.double() @ original[:, :50].double().T) < 0.015
    assert layer(bf16(2, 3, 96)).shape == (2, 3, 64)


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 64), (8, 2, 32), (6, 1, 80)])
@pytest.mark.parametrize("programs", [1, 8])
def test_attention_sees_its_own_text_up_to_its_own_position(
    heads: int, kv_heads: int, dim: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two consecutive rows of one text and the first row of another; keys beyond are poisoned."""
    monkeypatch.setattr(launch, "_ATTENTION_PROGRAMS", programs * 3 * kv_heads)
    frequencies = 1.0 / 10000 ** (torch.arange(0, dim, 2, device=DEVICE) / dim)
    caches = [
        torch.full((2, kv_heads, capacity, dim), 1e4, device=DEVICE).bfloat16()
        for capacity in (200, 64)
    ]
    caches[0][:, :, :130] = bf16(2, kv_heads, 130, dim)
    layers = [[cache[0].data_ptr(), cache[1].data_ptr()] for cache in caches]
    unused = [0, 0]
    buffers = torch.tensor(
        [[unused, layers[0]], [unused, layers[0]], [unused, layers[1]]], device=DEVICE
    )
    state = torch.tensor([[7, 130, 200], [7, 131, 200], [7, 0, 64]], device=DEVICE)
    qkv = bf16(3, (heads + 2 * kv_heads) * dim)

    out = launch.attention(qkv, state, buffers, frequencies, 1, heads, kv_heads, dim)

    parts = qkv.double().view(3, heads + 2 * kv_heads, dim)
    angles = torch.outer(state[:, 1].double(), frequencies.double()).repeat(1, 2)[:, None]
    first, second = parts.chunk(2, dim=-1)
    turned = parts * angles.cos() + torch.cat((-second, first), -1) * angles.sin()
    for row, (text, place) in enumerate([(0, 130), (0, 131), (1, 0)]):
        keys, values = (side[:, : place + 1].double() for side in caches[text])
        assert error(keys[:, place], turned[row, heads : heads + kv_heads]) < 0.01
        assert torch.equal(values[:, place], parts[row, heads + kv_heads :])
        query = turned[row, :heads].view(1, kv_heads, heads // kv_heads, dim)
        exact = F.scaled_dot_product_attention(query, keys[None], values[None]).reshape(-1)
        assert error(out[row], exact) < 0.02
    assert (caches[0][:, :, 132:] == caches[0][0, 0, -1, -1]).all() and (
        caches[1][:, :, 1:] == caches[1][0, 0, -1, -1]
    ).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    }
    return save_tiny(tmp_path_factory.mktemp("tiny"), tiny_config(**changes))


def forwards(folder: Path) -> tuple[forward.TorchForward, forward.TorchForward, graphs.CudaForward]:
    """The same int8 weights in fp32, in plain torch, and in the kernels."""
    config = read_json(folder / "config.json")
    plan = plan_of(config)
    assert plan is not None
    exact, plain, fast = (
        kind(plan, open_tensors(folder, ()), weights, torch.device(where))
        for kind, weights, where in (
            (forward.TorchForward, "fp32", DEVICE),
            (forward.TorchForward, "int8", "cpu"),
            (graphs.CudaForward, "int8", DEVICE),
        )
    )
    for name, layer in ((name, layer) for model in (exact, fast) for name, layer in linears(model)):
        source = dict(linears(plain))[name].inner
        if layer in [own for _, own in linears(fast)]:
            layer.inner = TritonInt8Linear(
                source.weight.to(DEVICE), source.SCB.to(DEVICE), source.bias, DequantBuffer()
            )
        else:
            layer.inner.weight = torch.nn.Parameter(
                (source.weight * (source.SCB / 127)[:, None]).to(DEVICE), requires_grad=False
            )
    return exact, plain, fast


def linears(model: forward.TorchForward) -> list[tuple[str, AdaptedLinear]]:
    names = ("qkv", "output", "gate_up", "down")
    return [
        (f"{index}.{name}", getattr(graphs._plain_layer(layer), name))
        for index, layer in enumerate(model._layers)
        for name in names
    ]


@torch.inference_mode()
def test_step_gives_the_logits_of_the_torch_forward_pass(folder: Path) -> None:
    """Long and short inputs with truncations: as close to fp32 as the torch forward pass."""
    exact, plain, fast = forwards(folder)
    caches = [forward.new_cache() for forward in (exact, plain, fast)]
    choose = random.Random(0)
    for size in (20, 1, 3, 1, 30, 8):
        ids = [choose.randrange(320) for _ in range(size)]
        true, near, ours = (
            forward.run([SequenceInput(cache, ids, all_logits=True)])[0].double().cpu()
            for forward, cache in zip((exact, plain, fast), caches, strict=True)
        )
        assert ours.shape == true.shape and error(ours, true) < max(0.02, 1.5 * error(near, true))
        length = caches[0].length - choose.randrange(5)
        assert [cache.truncate(length) for cache in caches] == [length] * 3


@torch.inference_mode()
def test_batched_texts_and_followed_tokens_give_the_same_logits(folder: Path) -> None:
    _, _, fast = forwards(folder)
    caches = [fast.new_cache() for _ in range(4)]
    for cache, ids in zip(caches, ([5, 6, 7], [8], [5, 6, 7], [8]), strict=True):
        fast.run([SequenceInput(cache, ids)])
    together = fast.run(
        [SequenceInput(caches[0], [9]), SequenceInput(caches[1], [10, 11], all_logits=True)]
    )
    alone = fast.run([SequenceInput(caches[2], [9])])[0]
    assert error(together[0], alone.double()) < 0.02 and together[1].shape[0] == 2

    last = fast.run([SequenceInput(caches[3], [10])])[0]
    assert error(together[1][:1], last.double()) < 0.02
    fast.follow(torch.tensor([11], device=DEVICE))
    assert caches[3].length == 2, "it was not requested yet"
    kept = fast._ahead
    followed = fast.run([SequenceInput(caches[3], [11])])[0]
    assert kept is not None and followed is kept.logits and caches[3].length == 3
    caches[3].truncate(2)
    assert torch.equal(fast.run([SequenceInput(caches[3], [11])])[0], followed), (
        "run without a step ahead"
    )
    fast.follow(torch.tensor([12], device=DEVICE))
    caches[3].truncate(2)
    assert torch.equal(fast.run([SequenceInput(caches[3], [11])])[0], followed), (
        "another position: the step ahead is dropped"
    )


@pytest.mark.parametrize("kind", ["bf16", "int4"])
@torch.inference_mode()
def test_step_supports_other_weights(folder: Path, kind: str) -> None:
    plan, tensors = plan_of(read_json(folder / "config.json")), open_tensors(folder, ())
    assert plan is not None
    plain, fast = (
        made(plan, tensors, kind, DEVICE) for made in (forward.TorchForward, graphs.CudaForward)
    )
    caches = plain.new_cache(), fast.new_cache()
    for ids in ([5], [6, 7]):
        usual, step = (
            forward.run([SequenceInput(cache, ids)])[0]
            for forward, cache in zip((plain, fast), caches, strict=True)
        )
        assert error(step, usual.double()) < 0.03


@torch.inference_mode()
def test_step_applies_live_adapters(folder: Path) -> None:
    _, _, fast = forwards(folder)
    matrices = (
        torch.randn(4, 64, device=DEVICE).bfloat16(),
        torch.randn(64, 4, device=DEVICE).bfloat16(),
        0.5,
    )
    adapters = ((LiveAdapter("one", {"model.layers.0.self_attn.o_proj": matrices}), 1.0),)
    short, long = fast.new_cache(), fast.new_cache()
    step = fast.run([SequenceInput(short, [5], adapters=adapters)])[0]
    usual = fast.run([SequenceInput(long, [5, *range(6, 18)], all_logits=True, adapters=adapters)])[
        0
    ][:1]
    bare = fast.run([SequenceInput(fast.new_cache(), [5])])[0]
    assert error(step, usual.double()) < 0.03 < error(bare, usual.double())


def test_kernels_pass_their_own_check() -> None:
    assert cuda.fault(DEVICE) == ""


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_running_ahead_does_not_change_an_answer(
    folder: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_executor", lambda *_: forwards(folder)[2])
    engine = TransformersEngine(folder, weights="int8", device=DEVICE.type)
    *_, first = engine.stream(Prompt("t", ()), Sampling(max_tokens=2, ignore_eos=True))
    assert first.prompt_tokens == 1 and first.reply_tokens == 2, "a prompt of one token is one step"
    sampling = Sampling(
        temperature=temperature,
        top_p=0.95,
        repetition_penalty=1.3,
        seed=3,
        max_tokens=4,
        ignore_eos=True,
    )
    ahead = list(engine.stream(Prompt("the quick brown fox", ()), sampling))
    monkeypatch.setattr(graphs.CudaForward, "follow", lambda self, token: None)
    engine.clear_cache()
    waiting = list(engine.stream(Prompt("the quick brown fox", ()), sampling))
    assert ahead[:-1] == waiting[:-1] and ahead[-1].reply_tokens == 4


@pytest.mark.skipif(DEVICE.type == "cpu", reason="graphs are captured only on a GPU")
@torch.inference_mode()
def test_replayed_graph_equals_single_launches(folder: Path) -> None:
    _, _, fast = forwards(folder)
    _, _, eager = forwards(folder)
    eager._captures = False
    caches = fast.new_cache(), eager.new_cache()
    choose = random.Random(1)
    for size in (30, 1, 1, 4, 1, 600, 1, 8, 1):
        ids = [choose.randrange(320) for _ in range(size)]
        replayed, launched = (
            forward.run([SequenceInput(cache, ids)])[0]
            for forward, cache in zip((fast, eager), caches, strict=True)
        )
        assert torch.equal(replayed, launched)
    assert any(step.graph is not None for step in fast._steps.values())
