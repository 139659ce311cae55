"""Which files of a checkpoint folder may be copied: those that lie in it. A link in a folder of somebody else's can point at any file of the user's."""

import shutil
from pathlib import Path

from llmchat.errors import Mismatch


def copy_beside(path: Path, target: Path) -> None:
    """Copy a small file of a checkpoint into the folder `target`. Raises Mismatch for a link that leads out of its folder."""
    check_inside(path)
    shutil.copyfile(path, target / path.name)


def check_inside(path: Path) -> None:
    """Raises Mismatch for a link that leads out of its folder, unless it is the Hub's cache, whose snapshots link to its blobs."""
    folder, real = path.parent.resolve(), path.resolve()
    if real.is_relative_to(folder):
        return
    if folder.parent.name == "snapshots" and real.parent == folder.parents[1] / "blobs":
        return
    raise Mismatch(
        f"{path.name} in {path.parent} is a link to a file outside that folder",
        "put the file itself there, or remove the link",
    )
