"""The compiled step with assertions, under AddressSanitizer and UBSan: it reads and writes nothing that is not its own, whatever a checkpoint holds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GCC = shutil.which("gcc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(GCC is None, reason="the sanitizers are those of gcc"),
]


def sanitized(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with the checked build of the step."""
    assert GCC
    library = subprocess.run(
        [GCC, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("gcc has no AddressSanitizer here")
    env = os.environ | {
        "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "LLMCHAT_NATIVE": "checked", "CC": GCC,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env=env,
        cwd=HERE.parent.parent,
    )


@pytest.mark.parametrize(
    "tests", [("engines/test_checkpoint_shapes.py",), ("engines/test_compiled.py", "-k", "compiled and not products")], ids=" ".join
)  # fmt: skip
def test_the_sanitizers_have_nothing_to_say(tests: tuple[str, ...]) -> None:
    # Without capturing: a sanitizer ends the process, and what pytest holds back would be lost.
    done = sanitized(
        "-m",
        "pytest",
        "-q",
        "-x",
        "-s",
        "-p",
        "no:cacheprovider",
        str(HERE.parent / tests[0]),
        *tests[1:],
        "-m",
        "not slow",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


LIE = """
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
{lie}
model.run([SequenceInput(model.new_cache(), [1, 2, 3])])
"""


@pytest.mark.parametrize(
    ("lie", "told"),
    [("pass", ""), ("model._model.head.out = 5000", "assertion failed"), ("model._model.head_dim = 24", "assertion failed"),
     ("model._model.norm = torch.ones(8).data_ptr()", "heap-buffer-overflow|heap-use-after-free")],
)  # fmt: skip
def test_the_checked_build_sees_what_python_did_not(lie: str, told: str, tmp_path: Path) -> None:
    script = LIE.format(tests=str(HERE.parent), folder=str(tmp_path), lie=lie)
    done = sanitized("-c", script)
    assert (done.returncode == 0) == (not told), done.stderr[-2000:]
    assert not told or any(word in done.stderr for word in told.split("|")), done.stderr[-2000:]
