"""`import llmchat` imports nothing, and gives what the pages name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmchat

PAGE = Path(__file__).parents[2] / "docs/python.md"


def test_importing_llmchat_imports_no_other_module_of_it() -> None:
    code = (
        "import sys; before = set(sys.modules); import llmchat\n"
        "print(sorted(set(sys.modules) - before - {'typing'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout and re.findall(r"'llmchat[^']*'", done.stdout) == [
        "'llmchat'"
    ]


@pytest.mark.parametrize("name", llmchat.__all__)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    assert getattr(llmchat, name) is not None and name in dir(llmchat)


def test_importing_submodules_shadows_no_public_name() -> None:
    """A package of the same name would take the place of a function."""
    code = (
        "import llmchat, llmchat.cli, llmchat.api.batches, llmchat.api.pulling\n"
        "from llmchat.api import opening, async_chat\n"
        "print(all(callable(getattr(llmchat, name)) for name in ('batch', 'open', 'pull')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute `opne`"):
        _ = llmchat.opne  # type: ignore[attr-defined]


def test_the_page_names_only_what_exists() -> None:
    named = set(re.findall(r"\bllmchat\.([A-Za-z_]+)\b", PAGE.read_text("utf-8"))) - {"ipynb"}
    assert named and named <= set(llmchat.__all__)
