"""Which other programs take part in a benchmark, and the files they need of a model."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmchat.bench import peer_protocol, q8_0
from llmchat.bench.cost import read_per_token
from llmchat.bench.interleave import Competitor, python_file
from llmchat.bench.report import Row
from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError, UsageError
from llmchat.hub import inspect_folder
from llmchat.memory_estimate import OVERHEAD, parameters
from llmchat.models.locate import Model
from llmchat.process.programs import python
from llmchat.prompt import Prompt
from llmchat.settings import World

# What each keeps a weight as, see cost.KINDS.
_KINDS = {
    "llama.cpp Q8_0": "Q8_0",
    "CTranslate2 int8": "int8",
    "transformers bf16": "bf16",
    "transformers + bitsandbytes int8": "int8",
}
# Bytes a weight takes at most while it is loaded.
_MEMORY = {
    "llama.cpp Q8_0": 1.1,
    "CTranslate2 int8": 2.2,
    "transformers bf16": 2.0,
    "transformers + bitsandbytes int8": 3.0,
}


class Peers:
    """The peers of `python`, or of the Python that runs this; `python` goes first. note: hears what takes its time."""

    def __init__(self, world: World, python: str | None = None):
        self._world = world
        self._pythons = [*([python] if python else []), sys.executable]
        self._installed = {name: _installed(name, world) for name in self._pythons}

    def competitors(
        self, model: Model, device: str, room: int, tokens: Tokenizer
    ) -> tuple[list[tuple[Competitor, Row]], list[str], dict[str, str]]:
        """Those that can be measured with their empty rows, the others in a line each, and the versions of their packages."""
        assert model.base is not None
        here, folder = inspect_folder(model.base), model.base.path
        short, long = (
            tokens.encode(Prompt(text, ())) for text in (peer_protocol.SHORT, peer_protocol.LONG)
        )
        found, absent = [], []
        versions: dict[str, str] = {}
        for peer, packages in peer_protocol.NEEDS.items():
            python = next((name for name in self._pythons if peer in self._installed[name]), None)
            memory = int(_MEMORY[peer] * parameters(here.shapes)) + OVERHEAD
            if python is None:
                absent.append(
                    f"{peer}: {packages[-1 if 'bitsandbytes' in packages else 0]} is not installed"
                )
                continue
            if memory > room:
                absent.append(
                    f"{peer}: it needs {memory / 1e9:.1f} GB, {room / 1e9:.1f} GB are free"
                )
                continue
            task = {
                "peer": peer,
                "folder": str(folder),
                "device": device,
                "short": short,
                "long": long,
            }
            try:
                task |= self._files(peer, folder, device)
            except LlmchatError as error:
                absent.append(f"{peer}: {error.message}")
                continue
            read = int(
                read_per_token(
                    here.shapes, here.config, _KINDS[peer], 4 + peer_protocol.DECODE // 2
                )
            )
            row = Row(peer, _KINDS[peer], bytes_per_token=read or None)
            found.append(
                (
                    Competitor(
                        peer,
                        python_file(python, Path(peer_protocol.__file__), "serve"),
                        memory,
                        task=json.dumps(task),
                    ),
                    row,
                )
            )
            versions |= self._installed[python][peer]
        return found, absent, versions

    def _files(self, peer: str, folder: Path, device: str) -> dict[str, Any]:
        """What a peer reads in place of the checkpoint. Raises UsageError where it cannot be had."""
        if peer == "llama.cpp Q8_0":
            if device != "cpu":
                raise UsageError("it is measured on the CPU alone")
            return {"gguf": str(self._q8_0(folder))}
        if peer == "CTranslate2 int8":
            return {"converted": str(self._kept(folder) / "ctranslate2-int8")}
        return {}

    def _q8_0(self, folder: Path) -> Path:
        """The file beside the checkpoint, or one written from it."""
        beside = next(
            (file for file in sorted(folder.glob("*.gguf")) if "q8_0" in file.name.lower()), None
        )
        file = beside or self._kept(folder) / "Q8_0.gguf"
        if not file.exists():
            if not q8_0.supports(read_json(folder / "config.json")):
                raise UsageError(
                    "there is no *Q8_0.gguf beside the model, and only Llama's architecture can be written as one"
                )
            done = subprocess.run(
                python("-m", "llmchat.bench.q8_0", str(folder), str(file)),
                capture_output=True,
                text=True,
                env=dict(self._world.env),
            )
            if done.returncode:
                raise UsageError(
                    f"no Q8_0 file can be written: {(done.stderr.strip().splitlines() or ['it ended early'])[-1]}"
                )
        return file

    def _kept(self, folder: Path) -> Path:
        """Where what is made of a checkpoint is kept for the next benchmark of it; other weights in the same folder are another checkpoint."""
        weights = sorted(folder.glob("*.safetensors"))
        stamp = json.dumps(
            [
                str(folder.resolve()),
                *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weights),
            ]
        )
        kept = self._world.cache / "bench" / hashlib.sha256(stamp.encode()).hexdigest()[:16]
        kept.mkdir(parents=True, exist_ok=True)
        return kept


def _installed(python: str, world: World) -> dict[str, dict[str, str]]:
    """Peer → versions of its packages. Raises UsageError where that is no Python."""
    try:
        done = subprocess.run(
            [python, peer_protocol.__file__],
            capture_output=True,
            text=True,
            env=dict(world.env),
            stdin=subprocess.DEVNULL,
        )
        found: dict[str, dict[str, str]] = json.loads(done.stdout)
        return found
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{python} is no Python that can be run",
            "--peers-python takes the python of a virtual environment",
        ) from error
