"""The GPU code, as far as this machine can run it.

Without a GPU its kernels run in Triton's interpreter, and compile for GPUs that are not here.
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llmchat.engines import Sampling
from llmchat.engines.transformers.pytorch import cuda
from llmchat.engines.transformers.pytorch.cuda.sampling import DeviceSampler
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer, Int8Linear
from llmchat.engines.transformers.pytorch.linear import make_linear
from llmchat.engines.transformers.pytorch.sampler import (
    Sampler,
    fixed_size_candidates,
    probabilities,
)
from llmchat.structure import from_choices

CPU = torch.device("cpu")
TESTS = Path(__file__).parents[1]
SAMPLINGS = [
    Sampling(temperature=0, seed=1),
    Sampling(temperature=0, repetition_penalty=1.7, seed=1),
    Sampling(temperature=0.7, seed=2),
    Sampling(temperature=1, top_k=3, seed=3),
    Sampling(temperature=1, top_k=1, seed=3),
    Sampling(temperature=1, top_p=0.8, seed=4),
    Sampling(temperature=1, top_p=0.001, seed=4),
    Sampling(temperature=1.3, top_k=5, top_p=0.9, seed=5),
    Sampling(temperature=1, min_p=0.2, seed=6),
    Sampling(temperature=0.5, top_k=40, top_p=0.95, min_p=0.05, repetition_penalty=1.1, seed=7),
]


TRITON = importlib.metadata.version("triton") if importlib.util.find_spec("triton") else ""
needs_triton = pytest.mark.skipif(not TRITON, reason="Triton is not installed")
# Before 3.7 the interpreter cannot run loops with numpy 2.4.
interpreted = pytest.param(
    "cpu",
    marks=pytest.mark.skipif(
        TRITON.startswith("3.6"), reason="this Triton's interpreter needs an older numpy"
    ),
)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    "device",
    [
        interpreted,
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
        ),
    ],
)
def test_kernels_pass_their_tests(device: str) -> None:
    """In a process of its own: Triton decides about its interpreter when it is first imported."""
    here = (
        {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        if device == "cpu"
        else {}
    )
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(TESTS / "support" / "cuda_kernels.py"),
        ],
        env=os.environ | here | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


POINTERS = {
    "one_row": {
        "x": "*i64", "weight": "*i32", "step": "*fp32", "bias": "*bf16", "norm": "*i64",
        "residual": "*bf16", "out": "*bf16", "eps": "fp32",
    },
    "few_rows": {
        "x": "*bf16", "weight": "*i8", "step": "*fp32", "bias": "*bf16", "norm": "*bf16",
        "residual": "*bf16", "out": "*bf16", "eps": "fp32",
    },
    "rotate": {
        "qkv": "*bf16", "queries": "*bf16", "state": "*i64", "buffers": "*i64",
        "frequencies": "*fp32",
    },
    "attend": {
        "queries": "*bf16", "state": "*i64", "buffers": "*i64", "out": "*fp32", "maxima": "*fp32",
        "sums": "*fp32", "scale": "fp32",
    },
    "merge": {"parts": "*fp32", "maxima": "*fp32", "sums": "*fp32", "out": "*bf16"},
}  # fmt: skip
# What launch.py passes for a model of 7B, and for one with shared keys.
ONE_ROW = {"BLOCK_N": 4, "BLOCK_K": 512, "num_warps": 4}
FEW_ROWS = {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 256, "num_warps": 4, "num_stages": 3}
ATTEND = {"DIM": 128, "BLOCK_G": 16, "BLOCK_D": 128, "BLOCK_T": 64, "num_stages": 2}
LAUNCHES: list[tuple[str, dict[str, Any]]] = [
    ("one_row", {"GATED": False, "bias": None, "residual": None} | ONE_ROW),
    ("one_row", {"GATED": False, "norm": None} | ONE_ROW),
    ("one_row", {"GATED": True, "bias": None, "residual": None} | ONE_ROW | {"BLOCK_N": 2}),
    ("few_rows", {"GATED": False} | FEW_ROWS),
    ("few_rows", {"GATED": True, "bias": None} | FEW_ROWS),
    ("rotate", {"HEADS": 32, "KV_HEADS": 8, "DIM": 128, "BLOCK": 64, "num_warps": 1}),
    ("attend", {"GROUP": 1, "KV_HEADS": 32, "SPLITS": 8} | ATTEND),
    ("attend", {"GROUP": 7, "KV_HEADS": 4, "SPLITS": 32} | ATTEND),
    ("merge", {"DIM": 128, "SPLITS": 8, "BLOCK_D": 128, "num_warps": 2}),
]


# Loads of 16 bytes, as PTX.
COPY_16_BYTES = r"cp\.async\.cg\.shared\.global \[[^]]+\], \[[^]]+\], 0x10"
LOADS = {
    "one_row": r"ld\.global\.L1::evict_first\S*\.v4\.b32",
    "few_rows": COPY_16_BYTES,
    "attend": COPY_16_BYTES,
}


def compiled(kernel: Any, pointers: dict[str, str], given: dict[str, Any], capability: int) -> Any:
    """A kernel compiled as `launch` would, for aligned tensors and sizes."""
    import triton
    from triton.backends.compiler import GPUTarget

    options = {option: given[option] for option in ("num_warps", "num_stages") if option in given}
    constants = {argument: value for argument, value in given.items() if argument not in options}
    types = {
        argument: "constexpr" if argument in constants else pointers.get(argument, "i32")
        for argument in kernel.arg_names
    }
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, (argument, kind) in enumerate(types.items())
        if kind.startswith("*") or argument in ("n", "k", "quads")
    }
    by_index = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(kernel, types, by_index, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("name", "given"), LAUNCHES)
def test_kernels_compile_for_gpus_without_spills(
    name: str,
    given: dict[str, Any],
    capability: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The compilers need no GPU. Weights and caches are loaded 16 bytes at a time."""
    import triton

    from llmchat.engines.transformers.pytorch.cuda import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    built = compiled(getattr(kernels, name), POINTERS[name], given, capability)
    if name in LOADS:
        assert len(re.findall(LOADS[name], built.asm["ptx"])) >= 4
    (tmp_path / "cubin").write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    usage = subprocess.run(
        [tool, "-res-usage", tmp_path / "cubin"], capture_output=True, text=True, check=True
    ).stdout
    registers = int(re.findall(r"REG:(\d+)", usage)[0])
    assert " LOCAL:0 " in usage and registers <= (64 if name == "one_row" else 128), usage


@pytest.mark.parametrize("sampling", SAMPLINGS[2:], ids=str)
def test_fixed_size_candidates_have_the_same_probabilities(sampling: Sampling) -> None:
    torch.manual_seed(0)
    for logits in (torch.randn(50) * 3, torch.randn(2000) * 2, torch.zeros(8)):
        ids, chances = fixed_size_candidates(logits, sampling)
        whole = chances if ids is None else torch.zeros_like(logits).index_copy(0, ids, chances)
        expected = probabilities(logits, sampling)
        if logits.any():
            torch.testing.assert_close(whole / whole.sum(), expected)
        else:
            assert int((whole > 0).sum()) == int((expected > 0).sum()), (
                "which of several equal tokens stay is arbitrary"
            )


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_device_sampler_chooses_the_same_tokens(sampling: Sampling) -> None:
    torch.manual_seed(1)
    followed: list[int] = []
    prompt = [3, 5, 5, 9]
    ours, theirs = (
        DeviceSampler(sampling, prompt, CPU, lambda token: followed.append(int(token))),
        Sampler(sampling, prompt, CPU),
    )
    logits = [torch.randn(400) * 2 for _ in range(60)]
    chosen = [ours.choose(row) for row in logits]
    assert chosen == [theirs.choose(row) for row in logits] == followed and ours.seed == theirs.seed


def test_missing_triton_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("launch", "kernels"):
        monkeypatch.delitem(sys.modules, f"{cuda.__name__}.{name}", raising=False)
        monkeypatch.delattr(cuda, name, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is not installed" in cuda.fault(CPU)


@needs_triton
def test_kernels_that_cannot_be_built_are_reported() -> None:
    """On CPU tensors and without its interpreter, Triton has no target."""
    assert "Triton cannot build its kernels (" in cuda.fault(CPU)


def test_kernels_are_usable_only_if_they_pass_their_check(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(cuda, "fault", lambda device: "no compiler")
    cuda.usable.cache_clear()
    try:
        assert (
            not cuda.usable(torch.device("cuda", 7))
            and "8-bit layers run slower here: no compiler" in caplog.text
        )
        monkeypatch.setattr(cuda, "fault", lambda device: "")
        assert cuda.usable(torch.device("cuda", 8)) and not cuda.usable(CPU)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert not cuda.usable(torch.device("cuda", 9)), "no bf16"
    finally:
        cuda.usable.cache_clear()


@needs_triton
def test_take_over_replaces_int8_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Sequential(
            make_linear(torch.randn(48, 32), torch.randn(48), "int8", CPU, DequantBuffer())
        ),
        torch.nn.Linear(48, 2),
    )
    x = torch.randn(20, 32).bfloat16()
    before = model[0](x)
    cuda.take_over(model)
    assert isinstance(model[0][0], Int8Linear), "there is no GPU"
    monkeypatch.setattr(cuda, "usable", lambda device: True)
    cuda.take_over(model)
    assert not isinstance(model[0][0], Int8Linear)
    torch.testing.assert_close(model[0](x), before, rtol=0.02, atol=0.05)


def test_a_guided_answer_is_not_run_ahead() -> None:
    """What may follow a token is known only when the host knows the token."""
    graphs = pytest.importorskip("llmchat.engines.transformers.pytorch.cuda.graphs")
    forward = graphs.CudaForward.__new__(graphs.CudaForward)
    guided = (
        Sampling(structure=from_choices(["a", "b"])),
        Sampling(think_budget=5),
    )
    assert all(type(forward.sampler(one, [], CPU)) is Sampler for one in guided)
    assert isinstance(forward.sampler(Sampling(), [], CPU), DeviceSampler)
