"""The wheel, built and used without a C compiler, and the kernels of arm64 in an emulator."""

import os
import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest
from support.compiled_models import (
    SHAPES,
    logits_of,
    make_config,
    make_tensors,
    needs_compiler,
    random_ids,
)  # fmt: skip

from llmchat.engines.transformers.compiled import CompiledForward, build, carried

pytestmark = [pytest.mark.slow, *needs_compiler]
ROOT = Path(__file__).parent.parent
PROBE = Path(__file__).parent / "support" / "products_probe.c"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with hatchling and zig, and nothing else."""
    folder = tmp_path_factory.mktemp("tools")
    venv.create(folder, with_pip=True)
    found = folder / "bin" / "python"
    install = [found, "-m", "pip", "install", "--quiet", "hatchling", "ziglang"]
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip("hatchling and ziglang cannot be installed")
    return found


@pytest.fixture(scope="module")
def wheel(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this machine, built with an empty PATH."""
    out = tmp_path_factory.mktemp("wheel")
    command = [python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, ROOT]
    env = {"PATH": str(out), "HOME": str(out)}
    subprocess.run(command, check=True, capture_output=True, env=env, timeout=600)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def libraries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Those of the wheel that this processor runs, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    kept = folder / "llmchat/engines/transformers/compiled/carried"
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    return carried.carried_libraries(cpuinfo, kept)


@pytest.mark.timeout(900)
def test_wheel_built_without_a_compiler_has_a_library_for_each_instruction_set(
    wheel: Path,
) -> None:
    sources = carried.sources_hash()
    machine = os.uname().machine
    expected = {carried.library_name(one, sources) for one in carried.for_machine(machine)}
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/carried/" in name}
    assert wheel.name.endswith(f"py3-none-manylinux_2_17_{machine}.whl")
    assert names == expected and expected


@pytest.mark.parametrize("shape", SHAPES)
def test_library_of_the_wheel_gives_the_bits_of_one_compiled_here(
    shape: str, libraries: list[Path], tmp_path: Path
) -> None:
    own, best = build._compiled(tmp_path, ()), build._verified(libraries[0])
    config = make_config(**SHAPES[shape])
    tensors, ids = make_tensors(config), random_ids(config, 300)
    ours, theirs = (logits_of(CompiledForward(config, tensors, k), ids) for k in (own, best))
    assert ours.equal(theirs)


@pytest.mark.timeout(900)
@pytest.mark.skipif(EMULATOR is None, reason="qemu-user is not installed")
@pytest.mark.parametrize("one", carried.for_machine("aarch64")[:2], ids=lambda one: one.name)
def test_arm64_multiplies_to_the_bits_of_this_machine(
    one: carried.InstructionSet, python: Path, tmp_path: Path
) -> None:
    """5,456 products of int8 matrices and of matrices in groups, emulated by qemu.

    Of the two with kernels of their own; the third one's build would take half a minute more.
    """
    flags = ["-std=gnu11", "-O1", "-ffp-contract=off", "-Wno-psabi", "-I", carried.SOURCES, PROBE]
    here, there = tmp_path / "here", tmp_path / "there"
    subprocess.run(["cc", *flags, "-march=native", "-o", here, "-lm"], check=True)
    zig = [python, "-m", "ziglang", "cc", "-static", "-target", "aarch64-linux-musl"]
    subprocess.run([*zig, f"-mcpu={one.cpu}", *flags, "-o", there, "-lm"], check=True)
    ours = subprocess.run([here], capture_output=True, check=True).stdout
    theirs = subprocess.run([EMULATOR, "-cpu", "max", there], capture_output=True, check=True)
    assert ours.count(b"\n") == 5456 and theirs.stdout == ours
