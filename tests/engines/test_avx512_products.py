"""The AVX-512 kernels run on any x86-64 processor, their instructions emulated in C."""

import platform
import subprocess
from pathlib import Path

import pytest
from support.compiled_models import needs_compiler

from llmchat.engines.transformers.compiled.carried import SOURCES

SUPPORT = Path(__file__).parents[1] / "support"
FLAGS = ("-std=gnu11", "-O1", "-ffp-contract=off", "-Wno-psabi", "-I", SOURCES)
# What the compiler's own headers have; support/avx512 adds the rest.
EMULATED = ("-mavx2", "-mfma", "-mf16c", "-DLLMCHAT_EMULATED", "-I", SUPPORT / "avx512")
pytestmark = [
    *needs_compiler,
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the headers are those of x86-64"),
]


def products(program: Path, *flags: str | Path) -> bytes:
    command = ["cc", *FLAGS, *flags, "-o", program, SUPPORT / "products_probe.c", "-lm"]
    subprocess.run(command, check=True)
    return subprocess.run([program], capture_output=True, check=True).stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("features", ["F", "F BW VL VNNI BF16"])
def test_avx512_multiplies_to_the_bits_of_this_machine(features: str, tmp_path: Path) -> None:
    """5,456 products of int8 matrices and of matrices in groups."""
    defined = [f"-D__AVX512{one}__" for one in features.split()]
    ours = products(tmp_path / "here", "-march=native")
    assert ours.count(b"\n") == 5456
    assert products(tmp_path / "there", *EMULATED, *defined) == ours
