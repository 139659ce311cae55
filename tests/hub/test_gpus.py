"""GPUs as NVML lists them, with a stand-in for the library: names, memory, CUDA_VISIBLE_DEVICES."""

import sys
from types import SimpleNamespace

import pytest
from support.worlds import make_world

from llmchat.hub.gpus import Gpu, list_gpus
from llmchat.hub.machine import installed, this_machine

H200 = Gpu("NVIDIA H200", 143 << 30, 144 << 30)
T4 = Gpu("Tesla T4", 14 << 30, 15 << 30)
SLICE = Gpu("NVIDIA H200 MIG 1g.18gb", 17 << 30, 18 << 30)
UUIDS = {"GPU-aaaa-1": H200, "GPU-bbbb-2": T4}


class FakeNvml:
    """The part of pynvml that is used; handles are the UUIDs."""

    class NVMLError(Exception):
        pass

    def __init__(self, broken: str = ""):
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:
        self._fail_in("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return list(UUIDS)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "MIG-cccc":
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:
        return self._gpu(handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self._fail_in("memory")
        gpu = self._gpu(handle)
        return SimpleNamespace(free=gpu.free, total=gpu.total)

    def _gpu(self, handle: str) -> Gpu:
        return UUIDS.get(handle, SLICE)

    def _fail_in(self, step: str) -> None:
        if step == self.broken:
            raise self.NVMLError("not supported")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, (H200, T4)),
        ("", ()),
        ("-1", ()),
        ("1", (T4,)),
        ("1,0", (T4, H200)),
        ("GPU-bbbb", (T4,)),
        ("0, GPU-bbbb-2", (H200, T4)),
        ("MIG-cccc", (SLICE,)),
        ("MIG-dddd", ()),
        ("0,7,1", (H200,)),
        ("0,none,1", (H200,)),
    ],
)
def test_cuda_visible_devices_chooses(
    nvml: FakeNvml, visible: str | None, gpus: tuple[Gpu, ...]
) -> None:
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert list_gpus(env) == gpus
    assert nvml.open == 0


@pytest.mark.parametrize("step", ["init", "memory"])
def test_a_machine_whose_driver_fails_has_no_gpus(nvml: FakeNvml, step: str) -> None:
    nvml.broken = step
    assert list_gpus({}) == () and nvml.open == 0


def test_a_machine_without_the_library_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert list_gpus({}) == ()


@pytest.mark.usefixtures("nvml")
def test_the_machine_has_the_memory_of_its_gpus(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = make_world(tmp_path_factory.mktemp("home"))
    assert this_machine(world).gpus == ((H200.name, H200.free), (T4.name, T4.free))
    assert installed(world)[1:] == (H200.total, T4.total)
