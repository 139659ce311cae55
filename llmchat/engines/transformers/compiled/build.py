"""Builds step.c for the processor it runs on, with the machine's own C compiler, once; later starts load what was built.

The library is kept under a name that tells source, compiler, flags and processor, so that none of them can change unnoticed.
"""

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled.structs import (
    Candidate,
    Choosing,
    Kept,
    Matrix,
    Model,
    OpenMP,
    Text,
)
from llmchat.process.programs import which

_SOURCES = ("step.c", "attention.h", "checked.h", "choice.h", "products.h", "team.h", "vectors.h")
_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-Wno-psabi",
)
# LLMCHAT_NATIVE=checked: with assertions (checked.h) and the sanitizers, whose library must be preloaded.
_CHECKED_FLAGS = (
    "-DLLMCHAT_CHECKED",
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
_COMPILE_S = 120


class Unavailable(Exception):
    """Why there are no kernels here."""


class Kernels:
    """The functions of step.c."""

    def __init__(self, path: Path):
        try:
            library = ctypes.CDLL(str(path))
            self._room, self._step, self._multiply = (
                library.llmchat_room,
                library.llmchat_step,
                library.llmchat_multiply,
            )
            self._read = library.llmchat_read
            # Over sooner than another thread would give the interpreter back.
            self._choose = ctypes.PyDLL(str(path)).llmchat_choose
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{path} cannot be loaded ({error})") from error
        self._room.argtypes, self._room.restype = (
            [POINTER(Model), POINTER(Text), c_int64, c_int],
            c_int64,
        )
        self._step.argtypes = [
            POINTER(Model),
            POINTER(Text),
            c_int64,
            c_int,
            c_void_p,
            c_void_p,
            POINTER(OpenMP),
        ]
        self._step.restype = None
        self._multiply.argtypes = [
            POINTER(Matrix),
            c_int64,
            c_void_p,
            c_int64,
            c_void_p,
            c_int,
            POINTER(OpenMP),
        ]
        self._read.argtypes = [c_void_p, c_int64, c_int, POINTER(OpenMP)]
        self._choose.argtypes = [
            c_void_p,
            c_int64,
            POINTER(Choosing),
            c_void_p,
            POINTER(c_int64),
            POINTER(c_int64),
        ]
        self._choose.restype = c_int64
        self._found, self._from, self._to = (Candidate * 0)(), c_int64(), c_int64()
        self._openmp = _openmp()
        self._workspace = torch.empty(0, dtype=torch.uint8)

    def step(self, model: Model, texts: "ctypes.Array[Text]", logits: Tensor) -> None:
        """Read the new tokens of `texts`; fills logits, float32 [wanted rows, vocabulary]."""
        threads = self._threads()
        size = self._room(byref(model), texts, len(texts), threads)
        if size > self._workspace.numel():
            self._workspace = torch.empty(size, dtype=torch.uint8)
        self._step(
            byref(model),
            texts,
            len(texts),
            threads,
            logits.data_ptr(),
            self._workspace.data_ptr(),
            byref(self._openmp),
        )

    def choose(self, logits: Tensor, how: Choosing) -> int:
        """A token from contiguous float32 [vocab]."""
        count = logits.shape[-1]
        if count > len(self._found):
            self._found = (Candidate * count)()
        return int(
            self._choose(
                logits.data_ptr(),
                count,
                byref(how),
                self._found,
                byref(self._from),
                byref(self._to),
            )
        )

    def candidates(self) -> dict[int, float]:
        """The tokens that might have come instead of the last one, with their chances against the likeliest; {} for every token, or one alone."""
        return {one.id: one.chance for one in self._found[self._from.value : self._to.value]}

    def multiply(self, weights: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        """x: float32 [rows, in], times each of (int8 [out, in], SCB [out]), all of one shape → [matrices, rows, out]."""
        result = torch.empty(len(weights), x.shape[0], weights[0][0].shape[0])
        self.product(weights, x, result)()
        return result

    def product(
        self, weights: Sequence[tuple[Tensor, Tensor]], x: Tensor, result: Tensor
    ) -> Callable[[], None]:
        """What fills `result` as `multiply` does, each time it is called."""
        kept, (out, in_), rows = Kept(), weights[0][0].shape, x.shape[0]
        if any(weight.shape != (out, in_) for weight, _ in weights):
            raise ValueError("matrices of different shapes")
        matrices = (Matrix * len(weights))(
            *(kept.matrix(*pair, shape=(out, in_)) for pair in weights)
        )
        source = kept.pointer(x, torch.float32, (rows, in_))
        target = kept.pointer(result, torch.float32, (len(weights), rows, out))

        def run(kept: Kept = kept) -> None:
            if self._multiply(
                matrices, len(weights), source, rows, target, self._threads(), byref(self._openmp)
            ):
                raise MemoryError

        return run

    def read(self, room: Tensor) -> int:
        """Read the whole mebibytes of a tensor, and do nothing else; returns the sum of their 32-bit numbers, for measurements of memory."""
        address, size = (
            Kept().pointer(room, torch.int32, tuple(room.shape)),
            room.numel() * room.element_size(),
        )
        return int(self._read(address, size, self._threads(), byref(self._openmp)))

    def _threads(self) -> int:
        return min(torch.get_num_threads(), 256) if self._openmp.parallel else 1


@cache
def find_kernels(folder: Path) -> Kernels | None:
    """The kernels, built in `folder` if they are not there yet. None where that cannot be; the log says why."""
    try:
        return load_kernels(folder)
    except Unavailable as error:
        logging.getLogger(__name__).info("no compiled step: %s", error)
        return None


def load_kernels(folder: Path, flags: Sequence[str] = ()) -> Kernels:
    """As `find_kernels`, but raises Unavailable. flags: for the compiler, beside the usual ones."""
    if os.environ.get("LLMCHAT_NATIVE") == "0":
        raise Unavailable("LLMCHAT_NATIVE=0")
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise Unavailable(f"not for {sys.platform} on {platform.machine()}")
    if os.environ.get("LLMCHAT_NATIVE") == "checked":
        if "libasan" not in _read(Path("/proc/self/maps")):
            # Opening it would end the process.
            raise Unavailable(
                "LLMCHAT_NATIVE=checked needs LD_PRELOAD=$(gcc -print-file-name=libasan.so)"
            )
        flags = (*flags, *_CHECKED_FLAGS)
    compiler = _compiler()
    path = folder / f"step-{_key(compiler, flags)}.so"
    if path.exists():
        try:
            return _checked(path)
        except Unavailable:
            path.unlink(missing_ok=True)
    return _built(compiler, flags, path)


def _compiler() -> str:
    wanted = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for name in wanted:
        if path := which(name, os.environ):
            return path
    raise Unavailable(f"no C compiler ({', '.join(wanted)})")


def _key(compiler: str, flags: Sequence[str]) -> str:
    processor = [
        line
        for line in _read(Path("/proc/cpuinfo")).splitlines()
        if line.lower().startswith(("flags", "features", "model name"))
    ]
    parts = [
        *map(_read, _paths()),
        _version(compiler),
        " ".join((*_FLAGS, *flags)),
        *sorted(set(processor)),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(compiler: str) -> str:
    # Asking the compiler takes longer than all the rest of a start: its file tells as much.
    facts = Path(compiler).resolve().stat()
    return f"{Path(compiler).resolve()} {facts.st_size} {facts.st_mtime_ns}"


def _built(compiler: str, flags: Sequence[str], path: Path) -> Kernels:
    """The library, compiled and tried before it is put in its place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as build:
            out = Path(build, path.name)
            command = [compiler, *_FLAGS, *flags, "-o", str(out), str(_paths()[0]), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S)
            if done.returncode:
                raise Unavailable(
                    f"{compiler} failed: {(done.stderr.strip() or 'no message').splitlines()[0]}"
                )
            kernels = _checked(out)
            out.chmod(0o700)
            out.replace(path)
            return kernels
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{compiler} failed: {error}") from error


def _checked(path: Path) -> Kernels:
    """The library, when a small product of its is right."""
    kernels = Kernels(path)
    weight = (torch.arange(48 * 80) * 37 % 255 - 127).to(torch.int8).view(48, 80)
    x = (torch.arange(5 * 80) * 61 % 201 - 100).float().view(5, 80)
    right = x.double() @ weight.double().T
    for rows in (1, 5):
        difference = (
            kernels.multiply([(weight, torch.full((48,), 127.0))], x[:rows].contiguous())[0]
            - right[:rows]
        )
        if difference.abs().max() > 0.02 * right.abs().max():
            raise Unavailable(f"{path} gives wrong numbers")
    return kernels


def _openmp() -> OpenMP:
    """The threads that torch's own operations run on; without them there is one."""
    names = ("GOMP_parallel", "omp_get_num_threads")
    try:
        loaded = ctypes.CDLL(None)
        return OpenMP(*(ctypes.cast(getattr(loaded, name), c_void_p).value for name in names))
    except AttributeError:
        return OpenMP(None, None)


def _paths() -> list[Path]:
    return [Path(__file__).with_name(name) for name in _SOURCES]


def _read(path: Path) -> str:
    return path.read_text("utf-8")
