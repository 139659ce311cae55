"""A first try of a `.gguf` file in a process of its own: llama.cpp ends the process it is in where a file is not what it takes it for.

It is made once for each state of the files; a marker beside what is known of the model tells that it went well.
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

# Enough for a batch that is read and a token that is chosen.
_CONTEXT = 64
_NOISY = "LLMCHAT_TRACEBACK"
_RUN = "from llmchat.engines.gguf.probe import main; main()"


def check(model: Path, facts: Path, adapters: Sequence[tuple[Path, float]]) -> None:
    """Raise Mismatch for files that llama.cpp cannot load and run. facts: the folder that `hub.gguf_facts` wrote of the model."""
    marker = facts / f"runs-{_state(model, adapters)}"
    if marker.exists():
        return
    command = python("-c", _RUN, str(model), *(f"{strength}:{path}" for path, strength in adapters))
    # Otherwise it starts a debugger on itself to show where it stopped.
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
            f"llama.cpp cannot load {names}" + (": it stops" if done.returncode < 0 else ""),
            f"the file is damaged, or of a kind that it does not know; {_NOISY}=1 shows what llama.cpp says",
        )
    # Where the cache cannot be written it is tried each time.
    with suppress(OSError):
        marker.touch()


def main() -> None:
    """In the other process: load, read a little, choose a token; the exit status tells how it went."""
    from llmchat.engines.gguf.llama import Llama, Settings

    # No file of gigabytes for what is expected to end badly.
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
