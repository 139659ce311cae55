"""Puts the compiled step into the wheel, one library for each instruction set.

The compiler is zig's, from the package ziglang: `pip install .` needs no other, and one machine
builds the wheels of all. Without zig the wheel is pure, and llmchat compiles the step when it is
first used.

LLMCHAT_WHEEL_MACHINE: x86_64 or aarch64 for a wheel of another machine, `any` for a pure one.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "llmchat/engines/transformers/compiled"


class CompiledStep(BuildHookInterface[Any]):
    """hatchling finds it by its base class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable install gets libraries only where the machine has no compiler of its own."""
        self._made = Path(tempfile.mkdtemp(prefix="llmchat-step-"))
        is_editable = version == "editable"
        if is_editable and any(map(shutil.which, ("cc", "gcc", "clang"))):
            return
        machine = os.environ.get("LLMCHAT_WHEEL_MACHINE") or _own_machine()
        carried = _carried(Path(self.root))
        libraries = self._build(carried, machine)
        if is_editable:
            for library in libraries:
                carried.FOLDER.mkdir(exist_ok=True)
                shutil.copy(library, carried.FOLDER)
        elif libraries:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-manylinux_{carried.GLIBC.replace('.', '_')}_{machine}"
            for library in libraries:
                build_data["force_include"][str(library)] = f"{PACKAGE}/carried/{library.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._made, ignore_errors=True)

    def _build(self, carried: ModuleType, machine: str) -> list[Path]:
        """The libraries of a machine; none without zig, or for a machine without kernels."""
        wanted = carried.for_machine(machine)
        if wanted and importlib.util.find_spec("ziglang") is None:
            self.app.display_warning("ziglang is not installed: the wheel carries no compiled step")
            return []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda one: self._compile(carried, one), wanted))

    def _compile(self, carried: ModuleType, one: Any) -> Path:
        out = self._made / carried.library_name(one, carried.sources_hash())
        zig = (sys.executable, "-m", "ziglang", "cc")
        caches = {name: str(self._made / name) for name in _CACHES}
        subprocess.run(
            carried.build_command(zig, one, out), check=True, env={**os.environ, **caches}
        )
        return out


_CACHES = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")


def _own_machine() -> str:
    return platform.machine() if sys.platform == "linux" else "any"


def _carried(root: Path) -> ModuleType:
    """compiled/carried.py, without importing llmchat, whose dependencies are not here."""
    path = root / PACKAGE / "carried.py"
    spec = importlib.util.spec_from_file_location("carried", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
