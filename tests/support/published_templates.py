"""Chat templates as their makers published them, for slow tests."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

# The source distribution contains llama.cpp, which collects the templates of many models.
_PACKAGE = "llama-cpp-python==0.3.36"
_FOLDER = "/models/templates/"


def published_templates(folder: Path) -> Path:
    """The folder with the templates: the one that CHAT_TEMPLATES names, or else `folder`, filled
    from the package index.
    """
    if named := os.environ.get("CHAT_TEMPLATES"):
        return Path(named)
    name = _PACKAGE.partition("==")[0]
    command = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name,
               "-d", str(folder), _PACKAGE)  # fmt: skip
    subprocess.run(command, check=False, capture_output=True)
    for archive in folder.glob("*.tar.gz"):
        _unpack(archive, folder)
        archive.unlink()
    return folder


def published_template(folder: Path, name: str) -> str:
    """A template by its file name. The test is skipped where it could not be had."""
    file = folder / f"{name}.jinja"
    if not file.exists():
        pytest.skip(f"the template {name} cannot be had here")
    return file.read_text("utf-8")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as members:
        for member in members:
            source = members.extractfile(member) if _FOLDER in member.name else None
            if source is not None:
                (folder / Path(member.name).name).write_bytes(source.read())
