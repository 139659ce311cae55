"""The libraries of the compiled step that a wheel carries: one for each instruction set.

hatch_build.py runs this file by its path, where neither llmchat nor torch is installed, so it
imports the standard library alone.
"""

import hashlib
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).with_name("csrc")
FOLDER = Path(__file__).with_name("carried")
FLAGS = (
    "-std=gnu11",
    "-O3",
    # Row invariance needs it, see vectors.h.
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-Wno-psabi",
)
# The oldest C library of the wheels: manylinux_2_17 of both machines.
GLIBC = "2.17"


class InstructionSet(NamedTuple):
    """features: what /proc/cpuinfo must list; cpu: the processor, as zig's -mcpu names it."""

    name: str
    machine: str
    features: frozenset[str]
    cpu: str


_AVX2 = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# LLVM would split vectors of 512 bits into halves for these processors.
_WIDE = "x86_64_v4-prefer_256_bit"
# The best first: vectors.h has a path for each.
INSTRUCTION_SETS = (
    InstructionSet("avx512-bf16", "x86_64", _AVX512 | {"avx512_vnni", "avx512_bf16"},
                   f"{_WIDE}+avx512vnni+avx512bf16"),
    InstructionSet("avx512-vnni", "x86_64", _AVX512 | {"avx512_vnni"}, f"{_WIDE}+avx512vnni"),
    InstructionSet("avx512", "x86_64", _AVX512, _WIDE),
    InstructionSet("avx2", "x86_64", _AVX2, "x86_64_v3"),
    InstructionSet("i8mm", "aarch64", frozenset({"asimd", "asimddp", "i8mm"}),
                   "generic+v8_2a+dotprod+i8mm"),
    InstructionSet("dotprod", "aarch64", frozenset({"asimd", "asimddp"}), "generic+v8_2a+dotprod"),
    InstructionSet("neon", "aarch64", frozenset({"asimd"}), "generic"),
)  # fmt: skip


def carried_libraries(
    cpuinfo: Iterable[str], folder: Path = FOLDER, machine: str = platform.machine()
) -> list[Path]:
    """The libraries that this processor runs, the fastest first, if they were built from SOURCES.

    cpuinfo: the lines of /proc/cpuinfo.
    """
    if not folder.is_dir():
        return []
    features = features_of(cpuinfo)
    fitting = [one for one in for_machine(machine) if one.features <= features]
    sources = sources_hash()
    return [path for one in fitting if (path := folder / library_name(one, sources)).exists()]


def for_machine(machine: str) -> list[InstructionSet]:
    """The instruction sets of a machine, the best first; empty for an unknown one."""
    return [one for one in INSTRUCTION_SETS if one.machine == machine]


def library_name(one: InstructionSet, sources: str) -> str:
    """sources: of `sources_hash`; a library of other sources has another name."""
    return f"step-{one.name}-{sources}.so"


def features_of(cpuinfo: Iterable[str]) -> frozenset[str]:
    """What every core can do: x86 lists `flags`, arm64 `Features`."""
    listed = [
        frozenset(line.partition(":")[2].split())
        for line in cpuinfo
        if line.lower().startswith(("flags", "features"))
    ]
    return frozenset.intersection(*listed) if listed else frozenset()


def build_command(compiler: Iterable[str], one: InstructionSet, out: Path) -> list[str]:
    """The command with which zig's C compiler builds the library of an instruction set."""
    target = f"{one.machine}-linux-gnu.{GLIBC}"
    flags = [*FLAGS, "-target", target, f"-mcpu={one.cpu}", "-g0", "-s"]
    return [*compiler, *flags, "-o", str(out), str(SOURCES / "step.c"), "-lm"]


def sources_hash(folder: Path = SOURCES) -> str:
    """Names the sources and the flags of all builds."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".c", ".h"))
    parts = [f"{path.name}\n{path.read_text('utf-8')}" for path in files]
    parts.append(" ".join(FLAGS))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
