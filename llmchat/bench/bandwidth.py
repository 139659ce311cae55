"""How fast this machine's memory can be read: the limit of decoding, which reads every weight for every token."""

import time
from collections.abc import Callable
from typing import Any

# Far more than any cache holds, and a third of it on a GPU.
BYTES = 2**29
_TRIES = 3


class Memory:
    """A buffer in the memory of `device`, and several ways to read it with all threads. The best one counts: none of them is a limit by itself."""

    def __init__(self, device: str, size: int = BYTES):
        import torch

        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._device = torch.device(name)
        self._size = size
        numbers = torch.ones(size // 8, dtype=torch.int64, device=self._device)
        self._ways = _on_cpu(numbers) if self._device.type == "cpu" else _on_gpu(numbers)

    def read_rate(self) -> float:
        """Bytes a second, the best of a few passes over the buffer in each way."""
        return max(self._size / self._fastest(way) for way in self._ways)

    def _fastest(self, way: Callable[[], Any]) -> float:
        return min(self._seconds(way) for _ in range(_TRIES))

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
    return [floats.sum, numbers.sum, numbers.view(torch.float64).sum, lambda: halves.sum(1), lambda: torch.mv(rows, vector)]


def _on_gpu(numbers: Any) -> list[Callable[[], Any]]:
    # A copy reads half of what it moves and writes the other half.
    source, target = numbers.chunk(2)
    return [lambda: target.copy_(source)]
