#!/usr/bin/env python3
"""Write the documents of the retrieval benchmark: manual pages and Python's documentation.

usage: python benchmarks/retrieval_corpus.py FOLDER

Needs Debian 12 (or its package sources) and `groff-base`; nothing is installed. The packages are
listed with their versions in data/retrieval/corpus.toml. They are not part of this repository:
their licences are their own (Python's, GPL, MIT and others), and they are 30 MB.
"""

import gzip
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "retrieval"
# Wide enough for the tables of most pages; the search does not depend on it.
GROFF = ["groff", "-t", "-mandoc", "-Tutf8", "-P-cbuo", "-rHY=0", "-rLL=90n", "-dAD=l"]


def packages() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((DATA / "corpus.toml").read_text("utf-8"))[
        "package"
    ]
    return found


def sources(names: Collection[str] | None = None) -> list[str]:
    """The names of the documents of some packages, or of all, as write_corpus writes them."""
    found = [one for one in packages() if names is None or one["name"] in names]
    return [_name(page) for package in found for page in package["pages"]]


def write_corpus(folder: Path) -> None:
    """Write every document below folder. Leaves those alone that are there."""
    for package in packages():
        pages = [page for page in package["pages"] if not (folder / _name(page)).is_file()]
        if pages:
            with tempfile.TemporaryDirectory() as room:
                _unpack(package, Path(room))
                for page in pages:
                    _write_page(Path(room) / "files" / package["folder"], page, folder)


def _name(page: str) -> str:
    return f"{page}.txt" if page.startswith("man") else f"{page}.rst"


def _unpack(package: dict[str, Any], room: Path) -> None:
    wanted = f"{package['name']}={package['version']}"
    fetched = subprocess.run(
        ["apt-get", "download", wanted], cwd=room, capture_output=True, text=True
    )
    archives = list(room.glob("*.deb"))
    if not archives:
        raise SystemExit(
            f"error: cannot download {wanted}: {fetched.stderr.strip()}\n"
            "hint: use Debian 12, and run apt-get update"
        )
    subprocess.run(["dpkg-deb", "-x", archives[0], room / "files"], check=True)


def _write_page(root: Path, page: str, folder: Path) -> None:
    target = folder / _name(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    if page.startswith("man"):
        target.write_text(_manual(root / f"{page}.gz"), "utf-8")
    else:
        target.write_bytes((root / f"{page}.rst.txt").read_bytes())


def _manual(path: Path) -> str:
    """A manual page as plain text. Follows one `.so` line to the page that it names."""
    source = gzip.decompress(path.read_bytes())
    if source.startswith(b".so "):
        named = source.split()[1].decode()
        source = gzip.decompress((path.parent.parent / f"{named}.gz").read_bytes())
    return subprocess.run(GROFF, input=source, capture_output=True, check=True).stdout.decode(
        "utf-8"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write_corpus(Path(sys.argv[1]))
