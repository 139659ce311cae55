"""The compiled forward pass: its products against float64, whole models against plain torch, and numbers that do not depend on company."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from support.compiled_models import linear_shapes, make_config, make_tensors
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.compiled import CompiledForward, find_kernels, supports
from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.forward import CompiledCache
from llmchat.engines.transformers.compiled.kernels import Kernels, Unavailable
from llmchat.engines.transformers.compiled.sampler import CompiledSampler
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapter
from llmchat.engines.transformers.pytorch.forward import TorchForward
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.pytorch.sampler import Sampler, probabilities
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.errors import IntegrityError

pytestmark = [
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "aarch64"),
        reason="the kernels are for x86-64 and aarch64",
    ),
    pytest.mark.skipif(
        not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"
    ),
]
CPU = torch.device("cpu")
# What each path of the preprocessor is compiled with; "native" is the one that this processor takes.
PATHS = {"native": (), "avx2": ("-mno-avx512f", "-mno-avxvnni"), "plain": ("-DLLMCHAT_PLAIN",)}
if platform.machine() != "x86_64":
    del PATHS["avx2"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="session", params=PATHS)
def compiled(request: pytest.FixtureRequest, folder: Path) -> Kernels:
    return load_kernels(folder, PATHS[request.param])


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def kernels(request: pytest.FixtureRequest, compiled: Kernels) -> Iterator[Kernels]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield compiled
    torch.set_num_threads(before)


def error(got: Tensor, right: Tensor) -> float:
    return float((got.double() - right.double()).norm() / right.double().norm())


# ---- products


def in_groups(x: Tensor) -> Tensor:
    """Activations as they are rounded: 127 steps either way to the largest of each group of 32."""
    padded = torch.nn.functional.pad(x.double(), (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    step = padded.abs().amax(dim=2, keepdim=True).clamp(min=1e-30) / 127
    return ((padded / step).round() * step).flatten(1)[:, : x.shape[1]]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 13, 70])
@pytest.mark.parametrize(
    ("out", "in_"), [(64, 64), (33, 128), (576, 1600), (50, 40), (7, 17), (1, 16), (32, 1)]
)
def test_products_are_those_of_float64(kernels: Kernels, rows: int, out: int, in_: int) -> None:
    """Of the activations that were rounded, within what a number that lies between two steps can do."""
    torch.manual_seed(rows)
    pairs = [quantise_rows(torch.randn(out, in_)) for _ in range(2)]
    x = torch.randn(rows, in_)
    for got, (weight, scb) in zip(kernels.multiply(pairs, x), pairs, strict=True):
        weights = (weight.double() * (scb.double() / 127)[:, None]).T
        assert (
            (got - in_groups(x) @ weights).abs() <= 1e-6 * (x.double().abs() @ weights.abs())
        ).float().mean() > 0.99
        assert (
            (got - x.double() @ weights).abs() <= 0.01 * (x.double().abs() @ weights.abs())
        ).all()


def test_an_outlier_costs_precision_in_its_own_group_alone(kernels: Kernels) -> None:
    torch.manual_seed(0)
    weight, scb = quantise_rows(torch.randn(256, 512))
    x = torch.randn(8, 512)
    x[:, 5] *= 1000
    weight[:, :32] = 0
    right = x.double() @ (weight.double() * (scb.double() / 127)[:, None]).T
    assert error(kernels.multiply([(weight, scb)], x)[0], right) < 0.01


@pytest.mark.parametrize("rows", [1, 9])
def test_whole_numbers_are_exact_at_the_ends_of_their_range(kernels: Kernels, rows: int) -> None:
    """-128 is no weight that we write, but one that a file may hold."""
    weight = torch.tensor([-128, -127, 0, 127], dtype=torch.int8).repeat(40, 48)
    x = torch.tensor([127.0, -127.0, 1.0]).repeat(rows, 64)
    assert torch.equal(
        kernels.multiply([(weight, torch.full((40,), 127.0))], x)[0],
        (x.double() @ weight.double().T).float(),
    )


@pytest.mark.parametrize("offset", [1, 3, 32])
def test_weights_may_lie_at_any_address(kernels: Kernels, offset: int) -> None:
    weight, scb = quantise_rows(torch.randn(48, 96))
    moved = (
        torch.empty(48 * 96 + 64, dtype=torch.int8)[offset : offset + 48 * 96]
        .view(48, 96)
        .copy_(weight)
    )
    for rows in (1, 8):
        x = torch.randn(rows, 96)
        assert torch.equal(
            kernels.multiply([(moved, scb)], x), kernels.multiply([(weight, scb)], x)
        )


def test_zeros_give_zeros(kernels: Kernels) -> None:
    weight, scb = quantise_rows(torch.randn(16, 64))
    assert not kernels.multiply([(weight, scb)], torch.zeros(3, 64)).any()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.integers(2, 20),
    out=st.integers(1, 70),
    in_=st.integers(1, 2200),
    seed=st.integers(0, 99),
)
def test_a_row_is_the_same_alone(
    kernels: Kernels, rows: int, out: int, in_: int, seed: int
) -> None:
    torch.manual_seed(seed)
    pair, x = quantise_rows(torch.randn(out, in_)), torch.randn(rows, in_)
    together = kernels.multiply([pair], x)[0]
    for row in range(rows):
        assert torch.equal(
            kernels.multiply([pair], x[row : row + 1].contiguous())[0, 0], together[row]
        )


@pytest.mark.parametrize("in_", [511, 512, 576, 1024, 8191, 8192, 8193, 8768, 16400])
def test_long_rows_are_the_same_alone(kernels: Kernels, in_: int) -> None:
    """Where a row is summed up run by run."""
    torch.manual_seed(in_)
    pair, x = quantise_rows(torch.randn(33, in_)), torch.randn(7, in_)
    together = kernels.multiply([pair], x)[0]
    assert torch.equal(kernels.multiply([pair], x[:1].contiguous())[0, 0], together[0])
    assert (
        error(together, x.double() @ (pair[0].double() * (pair[1].double() / 127)[:, None]).T)
        < 0.01
    )


def test_reading_reads_everything_once(kernels: Kernels) -> None:
    room = torch.arange(5 * 2**18 + 7, dtype=torch.int32) % 91
    assert kernels.read_memory(room) == int(room[: 5 * 2**18].sum())


def test_all_paths_give_nearly_the_same(folder: Path) -> None:
    """The same whole numbers; the sums over groups differ where one path rounds a product and another does not."""
    torch.manual_seed(0)
    pair, x = quantise_rows(torch.randn(100, 700)), torch.randn(9, 700)
    results = [load_kernels(folder, flags).multiply([pair], x) for flags in PATHS.values()]
    assert all(error(result, results[0]) < 1e-6 for result in results)


# ---- models

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2"},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "heads of 80, one of keys": {"hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 1},
    "all heads have keys, odd widths": {"hidden_size": 72, "head_dim": 16, "num_key_value_heads": 4, "intermediate_size": 101, "vocab_size": 333},
}  # fmt: skip


def make_adapter(
    config: dict[str, Any], rank: int, seed: int, *, names: tuple[str, ...] = ("_proj",)
) -> LiveAdapter:
    torch.manual_seed(seed)
    return LiveAdapter(
        f"adapter {seed}",
        {
            name: (
                torch.randn(rank, in_).bfloat16() / in_**0.5,
                torch.randn(out, rank).bfloat16(),
                0.2,
            )
            for name, (out, in_) in linear_shapes(config).items()
            if name.endswith(names)
        },
    )


def tokens(config: dict[str, Any], count: int, seed: int = 0) -> list[int]:
    return torch.randint(
        config["vocab_size"], (count,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


def read(model: Any, ids: list[int], **options: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model.run(
            [SequenceInput(model.new_cache(), ids, all_logits=True, **options)]
        )[0]
    return logits


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_gives_what_torch_gives(kernels: Kernels, shape: str) -> None:
    """Within what 8-bit activations and 16-bit keys and values cost: 1.5 % of the logits."""
    config = make_config(**SHAPES[shape])
    tensors = make_tensors(config)
    assert supports(config)
    ids = tokens(config, 40)
    assert (
        error(
            read(CompiledForward(config, tensors, kernels), ids),
            read(TorchForward(config, tensors, "fp32", CPU), ids),
        )
        < 0.015
    )


def test_long_texts_are_right_too(kernels: Kernels) -> None:
    """More than one span of keys, and a query in each of them."""
    config = make_config()
    tensors = make_tensors(config)
    ids = tokens(config, 1100)
    assert (
        error(
            read(CompiledForward(config, tensors, kernels), ids),
            read(TorchForward(config, tensors, "fp32", CPU), ids),
        )
        < 0.015
    )


def test_what_is_cached_and_cut_is_as_if_read_at_once(kernels: Kernels) -> None:
    config = make_config()
    model = CompiledForward(config, make_tensors(config), kernels)
    ids, random = tokens(config, 700), torch.Generator().manual_seed(1)
    right, cache = read(model, ids), model.new_cache()
    for _ in range(12):
        cache.truncate(int(torch.randint(cache.length + 1, (), generator=random)))
        while cache.length < len(ids) and torch.rand((), generator=random) < 0.8:
            start = cache.length
            chunk = ids[start : start + int(torch.randint(1, 200, (), generator=random))]
            got = model.run([SequenceInput(cache, chunk, all_logits=True)])[0]
            assert torch.equal(got, right[start : start + len(chunk)])
    assert torch.equal(model.run([SequenceInput(model.new_cache(), ids)])[0], right[-1:])


def test_a_text_among_others_is_as_if_alone(kernels: Kernels) -> None:
    config = make_config(**SHAPES["qwen2"])
    model = CompiledForward(config, make_tensors(config), kernels)
    adapters = [
        make_adapter(config, 5, 1),
        make_adapter(config, 3, 2, names=("q_proj", "down_proj")),
    ]
    chosen = [(), ((adapters[0], 1.0),), ((adapters[1], -0.5), (adapters[0], 0.7)), ()]
    texts = [tokens(config, 30 + 20 * index, index) for index in range(4)]
    alone = [read(model, ids, adapters=own) for ids, own in zip(texts, chosen, strict=True)]
    caches = [model.new_cache() for _ in texts]
    for start, count in ((0, 1), (1, 17), (18, 1), (19, 3), (22, 8)):
        parts = [
            SequenceInput(
                cache, ids[start : start + count], all_logits=index % 2 == 0, adapters=own
            )
            for index, (cache, ids, own) in enumerate(zip(caches, texts, chosen, strict=True))
        ]
        for part, logits, right in zip(parts, model.run(parts), alone, strict=True):
            assert torch.equal(
                logits,
                right[start : start + count]
                if part.all_logits
                else right[start + count - 1 : start + count],
            )


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_live_adapter_is_near_a_merged_one(kernels: Kernels, rank: int) -> None:
    config = make_config(vocab_size=333)
    tensors = make_tensors(config)
    adapter = make_adapter(config, rank, 3)
    adapter.modules["lm_head"] = (
        torch.randn(rank, 64).bfloat16() / 8,
        torch.randn(333, rank).bfloat16() / 4,
        0.5,
    )
    merged = {name: tensors.get(name) for name in tensors.shapes}
    for name, (a, b, scale) in adapter.modules.items():
        merged[f"{name}.weight"] = merged[f"{name}.weight"] + 0.5 * scale * b.float() @ a.float()
    right = read(TorchForward(config, MemoryTensors(merged), "fp32", CPU), tokens(config, 40))
    model = CompiledForward(config, tensors, kernels)
    assert error(read(model, tokens(config, 40), adapters=((adapter, 0.5),)), right) < 0.02
    assert error(read(model, tokens(config, 40)), right) > 0.1


def test_a_cache_that_moved_is_found_again(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved by one, copied and grown by another."""
    monkeypatch.setattr(CompiledCache, "FIRST", 256)
    config = make_config()
    model = CompiledForward(config, make_tensors(config), kernels)
    ids = tokens(config, 600)
    right = read(model, ids)
    first, second = model.new_cache(), model.new_cache()
    model.run([SequenceInput(first, ids[:300])])
    second.copy_from(first, 250)
    assert torch.equal(
        model.run([SequenceInput(second, ids[250:], all_logits=True)])[0], right[250:]
    )


@pytest.mark.parametrize("count", [1, 31, 257, 300])
def test_a_cache_on_disk_is_the_same_to_every_forward_pass(
    kernels: Kernels, tmp_path: Path, count: int
) -> None:
    """Keys and values lie in an order of their own in memory, and in the usual one on disk: what plain torch has read fits, to its rounding."""
    config = make_config()
    tensors = make_tensors(config)
    model, plain = (
        CompiledForward(config, tensors, kernels),
        TorchForward(config, tensors, "fp32", CPU),
    )
    ids, ours, theirs, again = (
        tokens(config, count + 1),
        model.new_cache(),
        plain.new_cache(),
        model.new_cache(),
    )
    model.run([SequenceInput(ours, ids[:-1])])
    plain.run([SequenceInput(theirs, ids[:-1])])
    ours.save(tmp_path / "ours", ids[:-1], "key")
    theirs.save(tmp_path / "theirs", ids[:-1], "key")
    kept, wanted = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert kept.keys() == wanted.keys()
    for name in kept:
        assert kept[name].shape == wanted[name].shape and error(kept[name], wanted[name]) < 0.05
    assert again.load(tmp_path / "ours", "key") == ids[:-1]
    assert torch.equal(
        model.run([SequenceInput(again, ids[-1:])])[0],
        model.run([SequenceInput(ours, ids[-1:])])[0],
    )
    save_file(
        {name: part[:, :-1].contiguous() for name, part in kept.items()},
        tmp_path / "short",
        {"key": "key", "ids": json.dumps(ids[:-1])},
    )
    assert (
        model.new_cache().load(tmp_path / "short", "key") == []
        and plain.new_cache().load(tmp_path / "short", "key") == []
    )
    other = model.new_cache()
    other.load(tmp_path / "theirs", "key")
    assert (
        error(
            model.run([SequenceInput(other, ids[-1:])])[0],
            plain.run([SequenceInput(theirs, ids[-1:])])[0],
        )
        < 0.05
    )


def test_wrong_input_never_reaches_the_kernels(kernels: Kernels) -> None:
    config = make_config()
    model = CompiledForward(config, make_tensors(config), kernels)
    for ids in ([], [-1], [5, 320]):
        with pytest.raises(ValueError, match="vocabulary"):
            model.run([SequenceInput(model.new_cache(), ids)])
    with pytest.raises(ValueError, match="cache"):
        model.run([SequenceInput(CompiledCache(2, 2, 32), [1])])
    cache = model.new_cache()
    with pytest.raises(ValueError, match="one cache in two"):
        model.run([SequenceInput(cache, [1]), SequenceInput(cache, [2])])
    with pytest.raises(IntegrityError, match="requires 80 x 64"):
        CompiledForward(config | {"intermediate_size": 80}, make_tensors(config), kernels)
    weight, scb = quantise_rows(torch.randn(16, 64))
    with pytest.raises(IntegrityError, match="needs 2x64"):
        kernels.multiply([(weight, scb)], torch.randn(2, 65))


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "gpt2"},
        {"head_dim": 24},
        {"num_attention_heads": 98, "num_key_value_heads": 2, "head_dim": 16},
    ],
)
def test_what_is_not_supported(change: dict[str, Any]) -> None:
    assert not supports(make_config(**change))


# ---- building


def test_without_a_compiler_there_are_no_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level("INFO"):
        assert find_kernels(tmp_path / "kernels") is None
    assert "no C compiler (cc, gcc, clang)" in caplog.text


def test_a_compiler_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'error: no such processor' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(Unavailable, match="error: no such processor"):
        load_kernels(tmp_path / "kernels")
    assert not list((tmp_path / "kernels").iterdir())


def test_they_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCHAT_NATIVE", "0")
    with pytest.raises(Unavailable, match="LLMCHAT_NATIVE=0"):
        load_kernels(folder)


def test_a_library_appears_when_it_is_whole_for_its_owner_alone(tmp_path: Path) -> None:
    load_kernels(tmp_path)
    (built,) = tmp_path.iterdir()
    assert built.name.startswith("step-") and built.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["damaged", "wrong"])
def test_a_library_that_is_not_right_is_built_again(
    content: str, folder: Path, tmp_path: Path
) -> None:
    """Damaged, or of another machine on a shared disk. Not the one that this process has mapped: the loader remembers paths."""
    load_kernels(folder)
    for built in folder.glob("*.so"):
        (tmp_path / built.name).write_bytes(b"\x7fELF and nothing else")
        if content == "wrong":
            (tmp_path / "wrong.c").write_text(
                "long llmchat_workspace_bytes() { return 0; } void llmchat_step() {} int llmchat_multiply() { return 0; }"
            )
            subprocess.run(
                [
                    os.environ.get("CC", "cc"),
                    "-shared",
                    "-fPIC",
                    "-o",
                    tmp_path / built.name,
                    tmp_path / "wrong.c",
                ],
                check=True,
            )
    weight, scb = quantise_rows(torch.ones(16, 64))
    assert torch.allclose(
        load_kernels(tmp_path).multiply([(weight, scb)], torch.ones(2, 64)),
        torch.full((1, 2, 16), 64.0),
        rtol=0.01,
    )
    assert any(built.stat().st_size > 20_000 for built in tmp_path.glob("*.so"))


def test_a_folder_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file"):
        load_kernels(tmp_path / "file" / "kernels")


# ---- the next token


CHOICES = [
    Sampling(temperature=0),
    Sampling(temperature=1),
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(temperature=1.3, top_p=0.999),
    Sampling(temperature=1, top_k=1),
    Sampling(temperature=0.8, top_k=40),
    Sampling(temperature=1, min_p=0.05),
    Sampling(temperature=2, min_p=0.00001),
    Sampling(temperature=0.9, top_k=50, top_p=0.95, min_p=0.02),
    Sampling(temperature=1, top_p=0.01),
    Sampling(temperature=1, top_k=5000),
]


def rows_of_logits() -> Iterator[Tensor]:
    """Peaked and flat ones, of lengths that fill no vector, and some tokens that may never come."""
    generator = torch.Generator().manual_seed(0)
    for count in (1, 7, 16, 255, 1000, 5003):
        for spread in (0.1, 1.5, 5.0, 40.0):
            logits = spread * torch.randn(count, generator=generator)
            logits[count // 2 + 1 :: 3] = -torch.inf
            yield logits


@pytest.mark.parametrize("sampling", CHOICES, ids=repr)
def test_the_tokens_that_may_come_are_those_of_plain_torch(
    compiled: Kernels, sampling: Sampling
) -> None:
    for logits in rows_of_logits():
        sampler = CompiledSampler(sampling, [], CPU, compiled)
        token = sampler.choose(logits)
        right = sampling.temperature and probabilities(logits, sampling)
        if sampling.temperature == 0:
            assert token == int(logits.argmax())
            continue
        assert float(right[token]) > 0
        if found := compiled.candidates():
            got = torch.zeros(len(logits)).index_add(
                0, torch.tensor([*found]), torch.tensor([*found.values()])
            )
            torch.testing.assert_close(got / got.sum(), right, rtol=1e-3, atol=2e-5)


# Tokens above a least chance alone are in no particular order.
@pytest.mark.parametrize(
    "sampling", [one for one in CHOICES if not one.min_p or one.top_k], ids=repr
)
def test_a_seed_gives_the_tokens_of_plain_torch(compiled: Kernels, sampling: Sampling) -> None:
    """Where rounding does not decide: two chances that are equal may come in another order."""
    seeded = replace(sampling, seed=3, repetition_penalty=1.1)
    plain, own = Sampler(seeded, [1, 5], CPU), CompiledSampler(seeded, [1, 5], CPU, compiled)
    logits = 4 * torch.randn(400, 700, generator=torch.Generator().manual_seed(1))
    assert sum(plain.choose(row) == own.choose(row) for row in logits) >= 396


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1, seed=1),
        Sampling(temperature=1, top_p=0.9, seed=1),
        Sampling(temperature=1, min_p=0.1, seed=1),
    ],
    ids=repr,
)
def test_tokens_follow_their_probabilities(compiled: Kernels, sampling: Sampling) -> None:
    """Chi-square of 4,000 draws; the limit is the 99.9 % quantile for 5 degrees of freedom, and the seed is fixed."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    sampler = CompiledSampler(sampling, [], CPU, compiled)
    draws = torch.bincount(torch.tensor([sampler.choose(logits) for _ in range(4000)]), minlength=6)
    expected = probabilities(logits, sampling) * 4000
    assert int(draws[expected == 0].sum()) == 0
    some = expected > 0
    assert float(((draws - expected)[some] ** 2 / expected[some]).sum()) < 20.5


def test_logits_without_a_likeliest_token_are_an_error(compiled: Kernels) -> None:
    """A token drawn from them would look like an answer."""
    for broken in (-torch.inf, torch.inf, torch.nan):
        for sampling in CHOICES:
            for sampler in (
                CompiledSampler(sampling, [], CPU, compiled),
                Sampler(sampling, [], CPU),
            ):
                with pytest.raises(IntegrityError, match="NaN or infinity"):
                    sampler.choose(torch.full((20,), broken))
