"""What the GPU runs, as far as it can be checked on the machine at hand: its kernels by Triton's interpreter where there is no GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmchat.engines import Sampling
from llmchat.engines.transformers import cuda
from llmchat.engines.transformers.cuda.sampling import DeviceSampler, weights
from llmchat.engines.transformers.sampler import Sampler, probabilities

CPU = torch.device("cpu")
HERE = Path(__file__).parent
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


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])
def test_kernels(device: str) -> None:
    """A process of its own: whether kernels are interpreted is settled when Triton is imported, and others import it too."""
    here = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    path = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "cuda_kernels.py")],
        env=os.environ | here | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("sampling", SAMPLINGS[2:], ids=str)
def test_probabilities_without_a_host_are_those_with_one(sampling: Sampling) -> None:
    torch.manual_seed(0)
    for logits in (torch.randn(50) * 3, torch.randn(2000) * 2, torch.zeros(8)):
        ids, chances = weights(logits, sampling)
        whole = chances if ids is None else torch.zeros_like(logits).index_copy(0, ids, chances)
        expected = probabilities(logits, sampling)
        if logits.any():
            torch.testing.assert_close(whole / whole.sum(), expected)
        else:
            assert int((whole > 0).sum()) == int((expected > 0).sum()), "among equals any may stay"


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_tokens_chosen_without_a_host_are_those_chosen_with_one(sampling: Sampling) -> None:
    torch.manual_seed(1)
    told: list[int] = []
    prompt = [3, 5, 5, 9]
    ours, theirs = DeviceSampler(sampling, prompt, CPU, lambda token: told.append(int(token))), Sampler(sampling, prompt, CPU)
    logits = [torch.randn(400) * 2 for _ in range(60)]
    chosen = [ours.choose(row) for row in logits]
    assert chosen == [theirs.choose(row) for row in logits] == told and ours.seed == theirs.seed


def test_without_triton_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("launch", "kernels"):
        monkeypatch.delitem(sys.modules, f"{cuda.__name__}.{name}", raising=False)
        monkeypatch.delattr(cuda, name, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is not installed" in cuda.fault(CPU)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_where_kernels_cannot_be_built_the_reason_is_told() -> None:
    """Not interpreted, and on CPU tensors: Triton has nothing to build them for."""
    assert "Triton cannot build its kernels (" in cuda.fault(CPU)


def test_a_gpu_whose_kernels_fail_takes_those_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(cuda, "fault", lambda device: "no compiler")
    cuda.usable.cache_clear()
    try:
        assert not cuda.usable(torch.device("cuda", 7)) and "8-bit layers run slower here: no compiler" in caplog.text
        monkeypatch.setattr(cuda, "fault", lambda device: "")
        assert cuda.usable(torch.device("cuda", 8)) and not cuda.usable(CPU)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert not cuda.usable(torch.device("cuda", 9)), "no bf16"
    finally:
        cuda.usable.cache_clear()
