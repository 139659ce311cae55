"""Copy files of a checkpoint folder, but not through links that lead out of it.

A link in a folder from somebody else could point at any file of the user.
"""

import shutil
from pathlib import Path

from llmchat.errors import Mismatch


def copy_beside(path: Path, target: Path) -> None:
    """Copy a small file into the folder `target`. Raises Mismatch as `check_inside` does."""
    check_inside(path)
    shutil.copyfile(path, target / path.name)


def check_inside(path: Path) -> None:
    """Raise Mismatch for a link that leads out of its folder.

    Snapshots of the Hub's cache may link to its blobs.
    """
    folder, real = path.parent.resolve(), path.resolve()
    if real.is_relative_to(folder):
        return
    if folder.parent.name == "snapshots" and real.parent == folder.parents[1] / "blobs":
        return
    raise Mismatch(
        f"{path.name} in {path.parent} is a link to a file outside that folder",
        "put the file itself there, or remove the link",
    )
