"""Tries a `.gguf` file in a separate process first, since llama.cpp aborts on some damaged files.

Each state of the files is tried once; a marker in the folder of its facts records the success.
"""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llmchat.errors import Mismatch
from llmchat.process.programs import python

# Enough to read a batch and to choose a token.
_CONTEXT = 64
_NOISY = "LLMCHAT_TRACEBACK"
_RUN = "from llmchat.engines.gguf.probe import main; main()"


def check(model: Path, facts: Path, adapters: Sequence[tuple[Path, float]]) -> None:
    """Raise Mismatch for files that llama.cpp cannot load and run.

    facts: the folder that `hub.gguf_header` wrote for the model.
    """
    marker = facts / f"runs-{_state(model, adapters)}"
    if marker.exists():
        return
    command = python("-c", _RUN, str(model), *(f"{strength}:{path}" for path, strength in adapters))
    # Otherwise llama.cpp starts a debugger on itself when it aborts.
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if _NOISY in env else subprocess.DEVNULL,
    )
    if done.returncode:
        names = " with ".join([model.name, *(path.name for path, _ in adapters)])
        raise Mismatch(
            f"llama.cpp cannot load {names}" + (": it crashes" if done.returncode < 0 else ""),
            f"the file is damaged or of an unsupported kind; {_NOISY}=1 shows llama.cpp's messages",
        )
    # Without a writable cache the file is tried each time.
    with suppress(OSError):
        marker.touch()


def main() -> None:
    """In the separate process: load the file, read a batch, choose a token."""
    from llmchat.engines.gguf.llama import Llama, Settings

    # A crash is expected here, and its core file would have gigabytes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    model, *others = sys.argv[1:]
    adapters = tuple(
        (Path(path), float(strength))
        for strength, _, path in (one.partition(":") for one in others)
    )
    llama = Llama(Settings(Path(model), _CONTEXT, adapters, "cpu"), noisy=_NOISY in os.environ)
    try:
        ids = [token for token, _ in llama.tokenize("a b", special=True)]
        with llama.complete({"prompt": ids[:8] or [0], "n_predict": 1}) as events:
            for _ in events:
                pass
    finally:
        llama.close()


def _state(model: Path, adapters: Sequence[tuple[Path, float]]) -> str:
    files = [model, *(path for path, _ in adapters)]
    facts = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
