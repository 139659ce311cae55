from pathlib import Path

import pytest
from support.fuzz_doors import Door


@pytest.fixture
def door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Door:
    """For models: one thread, since tests share the machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Door(tmp_path, monkeypatch, capfd)
