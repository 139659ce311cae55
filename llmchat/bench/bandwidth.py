"""Measure the memory bandwidth, which limits decoding: each token reads every weight."""

import statistics
import time
from collections.abc import Callable
from typing import Any

# More than any cache holds.
BYTES = 2**29
# Each way of reading is timed for this long, because decoding takes seconds too: on a shared
# machine the fastest hundredth of a second is not sustained.
_SECONDS = 0.4
_LEAST_PASSES = 3


class Memory:
    """A buffer in the memory of a device, and several ways to read it with all threads.

    The fastest way counts, because each has limits of its own.
    """

    def __init__(self, device: str, size: int = BYTES):
        import torch

        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._device = torch.device(name)
        self._size = size
        numbers = torch.ones(size // 8, dtype=torch.int64, device=self._device)
        self._ways = _on_cpu(numbers) if self._device.type == "cpu" else _on_gpu(numbers)

    def read_rate(self) -> float:
        """Bytes per second of the fastest way, by the median of its passes over the buffer."""
        return max(self._size / self._typical(way) for way in self._ways)

    def _typical(self, way: Callable[[], Any]) -> float:
        passes: list[float] = []
        while len(passes) < _LEAST_PASSES or sum(passes) < _SECONDS:
            passes.append(self._seconds(way))
        return statistics.median(passes)

    def _seconds(self, way: Callable[[], Any]) -> float:
        self._wait()
        started = time.perf_counter()
        way()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)


def _on_cpu(numbers: Any) -> list[Callable[[], Any]]:
    import torch

    floats = numbers.view(torch.float32)
    rows, vector = floats.view(-1, 8192), torch.ones(8192)
    halves = floats.view(2 * torch.get_num_threads(), -1)
    return [
        floats.sum,
        numbers.sum,
        numbers.view(torch.float64).sum,
        lambda: halves.sum(1),
        lambda: torch.mv(rows, vector),
    ]


def _on_gpu(numbers: Any) -> list[Callable[[], Any]]:
    # A copy reads half of what it moves and writes the other half.
    source, target = numbers.chunk(2)
    return [lambda: target.copy_(source)]
