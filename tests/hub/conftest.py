"""Worlds whose Hub is the one on loopback."""

from pathlib import Path

import pytest
from support.loopback_hub import Hub, Repo
from support.worlds import MakeWorld, make_world


@pytest.fixture(scope="module")
def files(folders: tuple[Path, Path]) -> dict[str, bytes]:
    """The files of `org/base`."""
    return Repo.of_folder(folders[0]).files


@pytest.fixture
def at(hub: Hub, tmp_path: Path) -> MakeWorld:
    """Make a world whose Hub is the loopback's; variables can be added."""
    return lambda **env: make_world(
        tmp_path / "home", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), **env
    )


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr("llmchat.hub.retry.WAITS", (0.0,) * 4)
