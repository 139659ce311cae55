"""Install small packages with plugins on sys.path, as a wheel would."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmchat import plugins

HEAD = "from llmchat.plugins.hooks import hookimpl\n"


class Packages:
    """A folder on sys.path with packages of one module each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.modules: list[str] = []

    def install(self, package: str, code: str, *entries: str, summary: str = "") -> None:
        """entries: names of entry points, whose object is the module, or `NAME = OBJECT`."""
        module = package.replace("-", "_")
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(HEAD + code, "utf-8")
        facts = self.folder / f"{module}-1.0.dist-info"
        facts.mkdir()
        head = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nSummary: {summary}\n"
        (facts / "METADATA").write_text(f"{head}\nSummary: not this one\n", "utf-8")
        lines = (one if "=" in one else f"{one} = {module}" for one in entries)
        text = "\n".join(["[console_scripts]", "other = x:y", "[llmchat.plugins]", *lines])
        (facts / "entry_points.txt").write_text(text, "utf-8")
        plugins._installed.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made = Packages(folder)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)
