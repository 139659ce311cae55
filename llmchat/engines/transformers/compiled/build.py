"""Finds the library of csrc/step.c: one that the wheel carries, or one compiled on this machine.

Where the wheel has none for the processor, or the sources have changed, the machine's own C
compiler builds it once. Its name is a hash of the sources, the compiler, the flags and the
processor: after a change of any of them a new library is built. Later starts load the existing
file.
"""

import hashlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch

from llmchat.engines.transformers.compiled.carried import (
    FLAGS,
    SOURCES,
    carried_libraries,
    sources_hash,
)
from llmchat.engines.transformers.compiled.kernels import Kernels, Unavailable
from llmchat.engines.transformers.quantised.packed import pack
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.process.programs import which

_NATIVE_FLAGS = (*FLAGS, "-march=native")
# LLMCHAT_NATIVE=checked: assertions and sanitizers (assertions.h).
_CHECKED_FLAGS = (
    "-DLLMCHAT_CHECKED",
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
_COMPILE_S = 300


@cache
def find_kernels(folder: Path) -> Kernels | None:
    """The kernels of the wheel, or those built in `folder`, now if they are not there yet.

    None if there are none and they cannot be built; the log has the reason.
    """
    try:
        return load_kernels(folder)
    except Unavailable as error:
        logging.getLogger(__name__).info("no compiled step: %s", error)
        return None


def can_build() -> bool:
    """Whether this machine can have kernels: nothing is compiled."""
    try:
        _require_machine()
        return bool(_carried()) or bool(_compiler())
    except Unavailable:
        return False


def load_kernels(folder: Path, flags: Sequence[str] = ()) -> Kernels:
    """As `find_kernels`, but raises Unavailable. flags: additional flags, for which it compiles."""
    _require_machine()
    wanted = os.environ.get("LLMCHAT_NATIVE")
    if wanted == "checked":
        _require_sanitizer()
        flags = (*flags, *_CHECKED_FLAGS)
    if not flags and wanted != "compile" and (kernels := _first_that_works(_carried())):
        return kernels
    return _compiled(folder, flags)


def _carried() -> list[Path]:
    """The libraries of the wheel that this processor runs, the fastest first."""
    return carried_libraries(_read(Path("/proc/cpuinfo")).splitlines())


def _first_that_works(libraries: Iterable[Path]) -> Kernels | None:
    for path in libraries:
        try:
            return _verified(path)
        except Unavailable as error:
            logging.getLogger(__name__).warning("the compiled step of the wheel: %s", error)
    return None


def _compiled(folder: Path, flags: Sequence[str]) -> Kernels:
    """The kernels that this machine's compiler builds, or has built."""
    compiler = _compiler()
    path = folder / f"step-{_key(compiler, flags)}.so"
    if path.exists():
        try:
            return _verified(path)
        except Unavailable:
            path.unlink(missing_ok=True)
    return _build(compiler, flags, path)


def _require_machine() -> None:
    if os.environ.get("LLMCHAT_NATIVE") == "0":
        raise Unavailable("LLMCHAT_NATIVE=0")
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise Unavailable(f"not supported on {sys.platform} {platform.machine()}")


def _require_sanitizer() -> None:
    """Loading an instrumented library without its runtime would end the process."""
    if "libasan" not in _read(Path("/proc/self/maps")):
        preload = "LD_PRELOAD=$(gcc -print-file-name=libasan.so)"
        raise Unavailable(f"LLMCHAT_NATIVE=checked needs {preload}")


def _compiler() -> str:
    wanted = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for name in wanted:
        if path := which(name, os.environ):
            return path
    raise Unavailable(f"no C compiler ({', '.join(wanted)})")


def _key(compiler: str, flags: Sequence[str]) -> str:
    parts = [
        sources_hash(),
        _compiler_version(compiler),
        " ".join((*_NATIVE_FLAGS, *flags)),
        *_processor(_read(Path("/proc/cpuinfo")).splitlines()),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor(cpuinfo: Iterable[str]) -> list[str]:
    described = ("flags", "features", "model name")
    return sorted({line for line in cpuinfo if line.lower().startswith(described)})


def _compiler_version(compiler: str) -> str:
    """Identifies the compiler by its file: running it takes longer than the rest of a start."""
    path = Path(compiler).resolve()
    facts = path.stat()
    return f"{path} {facts.st_size} {facts.st_mtime_ns}"


def _build(compiler: str, flags: Sequence[str], path: Path) -> Kernels:
    """Compile and verify the library, then move it to `path`, readable by its owner only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as build:
            out = Path(build, path.name)
            _compile(compiler, flags, out)
            kernels = _verified(out)
            out.chmod(0o700)
            out.replace(path)
            return kernels
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{compiler} failed: {error}") from error


def _compile(compiler: str, flags: Sequence[str], out: Path) -> None:
    command = [compiler, *_NATIVE_FLAGS, *flags, "-o", str(out), str(SOURCES / "step.c"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[0]
        raise Unavailable(f"{compiler} failed: {reason}")


def _verified(path: Path) -> Kernels:
    """The library, if it computes small products correctly."""
    kernels = Kernels(path)
    weight = (torch.arange(48 * 80) * 37 % 255 - 127).to(torch.int8).view(48, 80)
    codes = weight.view(torch.uint8) & 15
    grouped = GroupedWeight(codes, 4, 80, 80, torch.ones(48, 1), zero=8)
    x = (torch.arange(9 * 80) * 61 % 201 - 100).float().view(9, 80)
    for one, exact in (((weight, torch.full((48,), 127.0)), weight), (pack(grouped), codes - 8.0)):
        products = x.double() @ exact.double().T
        for rows in (1, 5, 9):
            product = kernels.multiply([one], x[:rows].contiguous())[0]
            if (product - products[:rows]).abs().max() > 0.02 * products.abs().max():
                raise Unavailable(f"{path} computes wrong products")
    return kernels


def _read(path: Path) -> str:
    return path.read_text("utf-8")
