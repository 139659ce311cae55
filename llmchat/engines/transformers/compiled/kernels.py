"""The functions of the compiled library, on tensors.

It knows nothing of models or checkpoints (forward.py) or of compilers (build.py).
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.guide import Mask
from llmchat.engines.transformers.compiled.grouped import grouped_matrix
from llmchat.engines.transformers.compiled.structs import (
    Candidate,
    Matrix,
    Model,
    OpenMP,
    SamplingParams,
    SequenceRows,
    TensorRefs,
)
from llmchat.engines.transformers.quantised.types import PackedWeight

# probes.h: MAX_THREADS.
_MAX_THREADS = 256
# Function → type of its result, types of its arguments.
_SIGNATURES = {
    "llmchat_workspace_bytes": (c_int64, [POINTER(Model), POINTER(SequenceRows), c_int64, c_int]),
    "llmchat_step": (
        None,
        [POINTER(Model), POINTER(SequenceRows), c_int64, c_int, c_int, c_void_p, c_void_p,
         POINTER(OpenMP)],
    ),
    "llmchat_multiply": (
        c_int,
        [POINTER(Matrix), c_int64, c_void_p, c_int64, c_void_p, c_int, POINTER(OpenMP)],
    ),
    "llmchat_read_memory": (c_int, [c_void_p, c_int64, c_int, POINTER(OpenMP)]),
    "llmchat_sample": (
        c_int64,
        [c_void_p, c_int64, POINTER(SamplingParams), c_void_p, POINTER(c_int64),
         POINTER(c_int64)],
    ),
    "llmchat_mask": (None, [c_void_p, c_void_p, c_int64, c_void_p]),
}  # fmt: skip

# int8 [out, in] and SCB [out], or a weight in groups.
Weight = tuple[Tensor, Tensor] | PackedWeight


class Unavailable(Exception):
    """There are no kernels on this machine; the message is the reason."""


class Kernels:
    """A loaded library. Raises Unavailable for a file that is not one."""

    def __init__(self, path: Path):
        try:
            library = ctypes.CDLL(str(path))
            # Keeps the interpreter's lock: sampling ends before another thread could take it over.
            holding_lock = ctypes.PyDLL(str(path))
            self._workspace_bytes = _function(library, "llmchat_workspace_bytes")
            self._step = _function(library, "llmchat_step")
            self._multiply = _function(library, "llmchat_multiply")
            self._read_memory = _function(library, "llmchat_read_memory")
            self._sample = _function(holding_lock, "llmchat_sample")
            self._mask = _function(holding_lock, "llmchat_mask")
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{path} cannot be loaded ({error})") from error
        self._candidates = (Candidate * 0)()
        self._masked = torch.empty(0)
        self._first, self._end = c_int64(), c_int64()
        self._openmp = _openmp()
        self._workspace = torch.empty(0, dtype=torch.uint8)

    def step(
        self,
        model: Model,
        sequences: "ctypes.Array[SequenceRows]",
        logits: Tensor,
        encodes: bool = False,
    ) -> None:
        """Run the new tokens of the sequences.

        Fills logits, float32 [rows that want them, vocabulary], and appends to the caches. encodes:
        run the encoder over whole texts; logits: [sequences], NaN where its numbers are not finite.
        """
        count, threads = len(sequences), self._threads()
        size = self._workspace_bytes(byref(model), sequences, count, threads)
        if size > self._workspace.numel():
            self._workspace = torch.empty(size, dtype=torch.uint8)
        buffers = logits.data_ptr(), self._workspace.data_ptr()
        self._step(byref(model), sequences, count, threads, encodes, *buffers, byref(self._openmp))

    def sample(self, logits: Tensor, params: SamplingParams, mask: Mask | None = None) -> int:
        """A token from contiguous float32 [vocabulary]; -1 if the largest logit is not finite.

        mask: the tokens that may be chosen; those beyond its count may not.
        """
        logits = logits if mask is None else self._allowed(logits, mask)
        count = logits.shape[-1]
        if count > len(self._candidates):
            self._candidates = (Candidate * count)()
        bounds = byref(self._first), byref(self._end)
        token = self._sample(logits.data_ptr(), count, byref(params), self._candidates, *bounds)
        return int(token)

    def _allowed(self, logits: Tensor, mask: Mask) -> Tensor:
        """The logits without the tokens that are not in a mask, until the next call."""
        count = min(logits.shape[-1], mask.count)
        if count > len(self._masked):
            self._masked = torch.empty(count)
        self._mask(logits.data_ptr(), mask.address, count, self._masked.data_ptr())
        return self._masked[:count]

    def candidates(self) -> dict[int, float]:
        """The tokens among which the last one was drawn, with their relative weights.

        {} if there was one alone, or if they were all tokens.
        """
        kept = self._candidates[self._first.value : self._end.value]
        return {candidate.id: candidate.weight for candidate in kept}

    def multiply(self, weights: Sequence[Weight], x: Tensor) -> Tensor:
        """x: float32 [rows, in], times each of the weights, all of one shape and order.

        Returns [matrices, rows, out].
        """
        result = torch.empty(len(weights), x.shape[0], _shape(weights[0])[0])
        self.product(weights, x, result)()
        return result

    def product(self, weights: Sequence[Weight], x: Tensor, result: Tensor) -> Callable[[], None]:
        """A function that fills `result` as `multiply` does, each time it is called."""
        refs, (out, in_), rows = TensorRefs(), _shape(weights[0]), x.shape[0]
        if any(_shape(weight) != (out, in_) for weight in weights):
            raise ValueError("matrices of different shapes")
        count = len(weights)
        matrices = (Matrix * count)(*(_matrix(refs, weight) for weight in weights))
        source = refs.pointer(x, torch.float32, (rows, in_))
        target = refs.pointer(result, torch.float32, (count, rows, out))

        def run(refs: TensorRefs = refs) -> None:
            threads = self._threads()
            if self._multiply(matrices, count, source, rows, target, threads, byref(self._openmp)):
                raise MemoryError

        return run

    def read_memory(self, buffer: Tensor) -> int:
        """Read the whole mebibytes of an int32 tensor, to measure the speed of memory.

        Returns the sum of their numbers.
        """
        address = TensorRefs().pointer(buffer, torch.int32, tuple(buffer.shape))
        size = buffer.numel() * buffer.element_size()
        return int(self._read_memory(address, size, self._threads(), byref(self._openmp)))

    def _threads(self) -> int:
        return min(torch.get_num_threads(), _MAX_THREADS) if self._openmp.parallel else 1


def _shape(weight: Weight) -> tuple[int, int]:
    out, in_ = weight.shape if isinstance(weight, PackedWeight) else weight[0].shape
    return out, in_


def _matrix(refs: TensorRefs, weight: Weight) -> Matrix:
    if isinstance(weight, PackedWeight):
        return grouped_matrix(refs, weight, shape=weight.shape)
    return refs.matrix(*weight, shape=_shape(weight))


def _function(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = _SIGNATURES[name]
    return function


def _openmp() -> OpenMP:
    """The OpenMP runtime that torch uses; without one the kernels run on one thread."""
    try:
        loaded = ctypes.CDLL(None)
        functions = loaded.GOMP_parallel, loaded.omp_get_num_threads
    except AttributeError:
        return OpenMP(None, None)
    return OpenMP(*(ctypes.cast(function, c_void_p).value for function in functions))
