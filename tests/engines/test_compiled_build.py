"""Building the compiled step: the compiler, the file, and what happens where there is none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from support.compiled_models import needs_compiler

from llmchat.engines.transformers.compiled import build, carried, find_kernels
from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.kernels import Unavailable
from llmchat.engines.transformers.pytorch.int8 import quantise_rows

pytestmark = needs_compiler

# All functions of the library, with products that are always zero.
WRONG_LIBRARY = """
#include <string.h>
long llmchat_workspace_bytes() { return 0; }
void llmchat_step() {}
int llmchat_multiply(const void *matrices, long count, const void *x, long rows, float *out) {
    memset(out, 0, 48 * rows * sizeof *out);
    return 0;
}
int llmchat_read_memory() { return 0; }
long llmchat_sample() { return 0; }
void llmchat_mask() {}
"""


def test_missing_compiler_means_no_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level("INFO"):
        assert find_kernels(tmp_path / "kernels") is None
    assert "no C compiler (cc, gcc, clang)" in caplog.text


def test_compiler_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'error: no such processor' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(Unavailable, match="error: no such processor"):
        load_kernels(tmp_path / "kernels")
    assert not list((tmp_path / "kernels").iterdir())


def test_environment_variable_switches_the_kernels_off(
    kernel_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCHAT_NATIVE", "0")
    with pytest.raises(Unavailable, match="LLMCHAT_NATIVE=0"):
        load_kernels(kernel_folder)


def test_library_is_one_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    load_kernels(tmp_path)
    (library,) = tmp_path.iterdir()
    assert library.name.startswith("step-") and library.stat().st_mode & 0o077 == 0


def test_changing_any_source_changes_the_name_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = shutil.copytree(carried.SOURCES, tmp_path / "csrc")
    monkeypatch.setattr(build, "sources_hash", lambda: carried.sources_hash(sources))
    files = [path for path in sources.iterdir() if path.suffix in (".c", ".h")]
    keys = {build._key("/bin/sh", ())}
    for path in files:
        path.write_text(path.read_text() + "\n")
        keys.add(build._key("/bin/sh", ()))
    assert len(keys) == len(files) + 1


@pytest.mark.parametrize("content", ["damaged", "wrong"])
def test_library_that_fails_its_check_is_built_again(
    content: str, kernel_folder: Path, tmp_path: Path
) -> None:
    """Not the file that this process has mapped: the loader remembers paths."""
    load_kernels(kernel_folder)
    for library in kernel_folder.glob("*.so"):
        replace(tmp_path / library.name, content)
    weight, scb = quantise_rows(torch.ones(16, 64))
    product = load_kernels(tmp_path).multiply([(weight, scb)], torch.ones(2, 64))
    assert torch.allclose(product, torch.full((1, 2, 16), 64.0), rtol=0.01)
    assert any(library.stat().st_size > 20_000 for library in tmp_path.glob("*.so"))


def replace(library: Path, content: str) -> None:
    """By a damaged file, or by a library that loads and computes zeros."""
    if content == "damaged":
        library.write_bytes(b"\x7fELF and nothing else")
        return
    compile_wrong(library)


def compile_wrong(library: Path) -> None:
    source = library.with_suffix(".c")
    source.write_text(WRONG_LIBRARY)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, source], check=True)


def test_wrong_products_are_noticed(tmp_path: Path) -> None:
    compile_wrong(tmp_path / "wrong.so")
    with pytest.raises(Unavailable, match="computes wrong products"):
        build._verified(tmp_path / "wrong.so")


def test_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file"):
        load_kernels(tmp_path / "file" / "kernels")
