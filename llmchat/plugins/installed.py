"""Reads the plugins from the metadata of installed packages, without importing them.

importlib.metadata reads the same files, but importing it and parsing METADATA as mail costs 45 ms,
a fifth of `llmchat --help`. The layout is that of
https://packaging.python.org/en/latest/specifications/entry-points/
"""

import os
from collections.abc import Iterator, Sequence

from msgspec import Struct

GROUP = "llmchat.plugins"
_FOLDERS = (".dist-info", ".egg-info")


class Offer(Struct, frozen=True):
    """One thing that a plugin adds: its entry point `KIND.NAME`, and the package that has it.

    target: what implements the hook KIND, `module` or `module:object`. summary: of the package.
    """

    kind: str
    name: str
    target: str
    package: str
    version: str = ""
    summary: str = ""

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}" if self.name else self.kind

    @property
    def module(self) -> str:
        return self.target.partition(":")[0].strip()


def offers_on(path: Sequence[str]) -> list[Offer]:
    """The entry points of all packages on a path such as sys.path, by kind, name and package."""
    found = (offer for facts in _packages(path) for offer in _offers(facts))
    return sorted(found, key=lambda one: (one.kind, one.name, one.package))


def _packages(path: Sequence[str]) -> Iterator[str]:
    """The folders of metadata on a path. Of a package that is there twice, the first one."""
    seen = set()
    for folder in path:
        for name in _names_in(folder or "."):
            package = name.partition("-")[0].lower()
            if package not in seen:
                seen.add(package)
                yield os.path.join(folder or ".", name)


def _names_in(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(_FOLDERS)]
    except OSError:
        return []


def _offers(facts: str) -> Iterator[Offer]:
    text = _read(facts, "entry_points.txt")
    if GROUP not in text:
        return
    told = _headers(_read(facts, "METADATA") or _read(facts, "PKG-INFO"))
    package = told.get("Name") or os.path.basename(facts).partition("-")[0]
    for entry, target in _entries(text):
        kind, _, name = entry.partition(".")
        version, summary = told.get("Version", ""), told.get("Summary", "")
        yield Offer(kind, name, target.partition("[")[0].strip(), package, version, summary)


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """The names and objects in the group of plugins."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group == GROUP and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield name.strip(), target.strip()


def _headers(text: str) -> dict[str, str]:
    """The headers of a METADATA file, up to its first empty line. Those of one line count."""
    head = text.replace("\r\n", "\n").partition("\n\n")[0]
    pairs = (line.partition(": ") for line in head.split("\n"))
    return {name: value.strip() for name, colon, value in reversed(list(pairs)) if colon}
