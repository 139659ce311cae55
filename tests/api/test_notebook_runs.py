"""docs/llmchat.ipynb runs from the first cell to the last on the default model."""

import os
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs/llmchat.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(smol_home: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/llmchat").symlink_to(smol_home / "cache")
    env = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    client = NotebookClient(
        notebook, timeout=800, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=env)
    text = "\n".join(map(_text, notebook.cells))
    assert "The capital of France is Paris." in text and "Animal(name=" in text
    assert "Ahoy, notebook!" in text and "better" in text
    kinds = {kind for cell in notebook.cells for kind in _kinds(cell)}
    assert {"text/markdown", "text/html", "image/svg+xml"} <= kinds


def _text(cell: Any) -> str:
    found = (one.get("text") or one.get("data", {}).get("text/plain", "") for one in _outputs(cell))
    return "\n".join(found)


def _kinds(cell: Any) -> set[str]:
    return {kind for one in _outputs(cell) for kind in one.get("data", {})}


def _outputs(cell: Any) -> list[Any]:
    return list(cell.get("outputs", []))
