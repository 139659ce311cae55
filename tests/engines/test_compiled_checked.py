"""The compiled step with assertions, under AddressSanitizer and UBSan.

It reads and writes only its own memory, whatever a checkpoint holds.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def compiler() -> tuple[str, str]:
    """A compiler with gcc's AddressSanitizer, and the library of that. `cc` keeps what it builds
    (support/kept_builds.py).
    """
    for name in filter(None, map(shutil.which, ("cc", "gcc"))):
        found = subprocess.run(
            [name, "-print-file-name=libasan.so"], capture_output=True, text=True
        )
        if Path(found.stdout.strip()).is_absolute():
            return name, found.stdout.strip()
    pytest.skip("no gcc with AddressSanitizer is here")


def run_checked(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with the checked build of the step."""
    program, library = compiler()
    env = os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "LLMCHAT_NATIVE": "checked",
        "CC": program,
    }
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env=env,
        cwd=TESTS.parent,
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("test_checkpoint_shapes.py", marks=pytest.mark.long),
        "test_compiled.py",
        "test_compiled_sampling.py",
        "test_grouped_models.py",
        "test_grouped_products.py",
        "families/test_chatglm.py",
    ],
)
def test_sanitizers_report_nothing(name: str) -> None:
    # Output is not captured: a sanitizer ends the process, and what pytest holds back is lost.
    options = ["-q", "-x", "-s", "-p", "no:cacheprovider", "-m", "not slow"]
    done = run_checked("-m", "pytest", *options, str(TESTS / "engines" / name))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize(
    ("speed", "cases"),
    [("not slow", "in_pieces"), ("slow", "in_pieces and gemma4 and experts")],
    ids=["ordinary variants", "experts with norms"],
)
def test_sanitizers_report_nothing_for_any_kind_of_block(speed: str, cases: str) -> None:
    """Every family reads its text in pieces: each block runs on few tokens and on many."""
    options = ["-q", "-x", "-s", "-p", "no:cacheprovider", "-m", speed, "-k", cases]
    file = TESTS / "engines" / "families" / "test_family_numbers.py"
    done = run_checked("-m", "pytest", *options, str(file))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import torch
from support.compiled_models import make_config, make_tensors
from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.executor import SequenceInput
torch.set_num_threads(1)
config = make_config()
model = CompiledForward(config, make_tensors(config), load_kernels(Path({folder!r})))
{fault}
model.run([SequenceInput(model.new_cache(), [1, 2, 3])])
"""


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        ("pass", ()),
        ("model._model.head.out = 5000", ("assertion failed",)),
        ("model._model.hidden = 24", ("assertion failed",)),
        (
            "model._model.norm.weight = torch.ones(8).data_ptr()",
            ("heap-buffer-overflow", "heap-use-after-free"),
        ),
    ],
)
def test_checked_build_notices_wrong_structures(
    fault: str, reported: tuple[str, ...], tmp_path: Path
) -> None:
    done = run_checked("-c", SCRIPT.format(tests=str(TESTS), folder=str(tmp_path), fault=fault))
    assert (done.returncode == 0) == (not reported), done.stderr[-2000:]
    assert not reported or any(word in done.stderr for word in reported), done.stderr[-2000:]
