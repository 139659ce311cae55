"""The libraries that a wheel carries: which one a processor gets, and what happens without one."""

from pathlib import Path

import pytest
import torch
from support.compiled_models import needs_compiler

from llmchat.engines.transformers.compiled import build, carried
from llmchat.engines.transformers.compiled.build import can_build, load_kernels
from llmchat.engines.transformers.compiled.kernels import Unavailable
from llmchat.engines.transformers.pytorch.int8 import quantise_rows

AVX2 = "avx2 fma f16c bmi1 bmi2 abm movbe"
AVX512 = f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl"


def folder_of_all(folder: Path, sources: str) -> Path:
    for one in carried.INSTRUCTION_SETS:
        (folder / carried.library_name(one, sources)).touch()
    return folder


def chosen(cpuinfo: str, machine: str, folder: Path) -> list[str]:
    found = carried.carried_libraries(cpuinfo.splitlines(), folder, machine)
    return [path.name.removeprefix("step-").rpartition("-")[0] for path in found]


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "expected"),
    [
        (f"flags\t\t: {AVX512} avx512_vnni avx512_bf16 amx_int8", "x86_64",
         ["avx512-bf16", "avx512-vnni", "avx512", "avx2"]),
        (f"flags\t\t: {AVX512} avx512_vnni", "x86_64", ["avx512-vnni", "avx512", "avx2"]),
        (f"flags\t\t: {AVX512}", "x86_64", ["avx512", "avx2"]),
        (f"flags\t\t: {AVX2} avx_vnni", "x86_64", ["avx2"]),
        (f"flags\t\t: {AVX2}\nflags\t\t: sse4_2", "x86_64", []),
        ("flags\t\t: sse4_2", "x86_64", []),
        ("", "x86_64", []),
        ("Features\t: fp asimd asimddp i8mm bf16", "aarch64", ["i8mm", "dotprod", "neon"]),
        ("Features\t: fp asimd asimddp", "aarch64", ["dotprod", "neon"]),
        ("Features\t: fp asimd", "aarch64", ["neon"]),
        ("Features\t: fp asimd", "riscv64", []),
    ],
)  # fmt: skip
def test_processor_gets_the_libraries_that_all_of_its_cores_run(
    cpuinfo: str, machine: str, expected: list[str], tmp_path: Path
) -> None:
    folder_of_all(tmp_path, carried.sources_hash())
    assert chosen(cpuinfo, machine, tmp_path) == expected


def test_library_of_other_sources_is_not_used(tmp_path: Path) -> None:
    folder_of_all(tmp_path, "0" * 16)
    assert chosen(f"flags: {AVX512}", "x86_64", tmp_path) == []
    assert chosen(f"flags: {AVX512}", "x86_64", tmp_path / "none") == []


@pytest.mark.parametrize("one", carried.INSTRUCTION_SETS, ids=lambda one: one.name)
def test_library_is_built_for_an_old_c_library_without_contraction(
    one: carried.InstructionSet, tmp_path: Path
) -> None:
    command = carried.build_command(("zig", "cc"), one, tmp_path / "step.so")
    assert command[:2] == ["zig", "cc"]
    assert f"{one.machine}-linux-gnu.2.17" in command and "-ffp-contract=off" in command


@pytest.fixture
def only_carried(
    kernel_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """A machine without a compiler, and a wheel with one library."""
    build._compiled(kernel_folder, ())
    (library, *_) = kernel_folder.glob("*.so")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build, "_carried", lambda: [library])
    return monkeypatch


@pytest.mark.usefixtures("only_carried")
class TestWithoutACompiler:
    pytestmark = needs_compiler

    def test_carried_library_runs_and_nothing_is_written(self, tmp_path: Path) -> None:
        assert can_build()
        weight, scb = quantise_rows(torch.ones(16, 64))
        product = load_kernels(tmp_path / "kernels").multiply([(weight, scb)], torch.ones(2, 64))
        assert torch.allclose(product, torch.full((1, 2, 16), 64.0), rtol=0.01)
        assert not (tmp_path / "kernels").exists()

    @pytest.mark.parametrize("wish", ["compile", "checked"])
    def test_compiling_on_this_machine_requires_a_compiler(
        self, wish: str, tmp_path: Path, only_carried: pytest.MonkeyPatch
    ) -> None:
        only_carried.setenv("LLMCHAT_NATIVE", wish)
        with pytest.raises(Unavailable, match=r"no C compiler|LD_PRELOAD"):
            load_kernels(tmp_path / "kernels")


def test_carried_library_that_fails_its_check_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "damaged.so").write_bytes(b"\x7fELF and nothing else")
    monkeypatch.setattr(build, "_carried", lambda: [tmp_path / "damaged.so"])
    monkeypatch.setenv("CC", str(tmp_path / "no compiler"))
    with pytest.raises(Unavailable, match="no C compiler"):
        load_kernels(tmp_path / "kernels")
    assert "damaged.so cannot be loaded" in caplog.text
