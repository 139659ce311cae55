"""Choose the other programs of a benchmark, and prepare the files they need of a model."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmchat.bench import peer_protocol
from llmchat.bench.cost import read_per_token
from llmchat.bench.interleave import Competitor, python_file
from llmchat.bench.machine import memory_missing
from llmchat.bench.report import Row
from llmchat.engines.checkpoint_files import GGUF_POINTER
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError, UsageError
from llmchat.hub import inspect_folder
from llmchat.hub.inspection import Inspection
from llmchat.hub.local_store import fresh_folder
from llmchat.memory_estimate import OVERHEAD, parameters
from llmchat.models.locate import Model
from llmchat.process.programs import python
from llmchat.prompt import Prompt
from llmchat.settings import World

# The format each keeps its weights in, see cost.KINDS.
_KINDS = {
    peer_protocol.LLAMA_CPP: "Q8_0",
    peer_protocol.OPENVINO: "Q8_0",
    "CTranslate2 int8": "int8",
    "transformers bf16": "bf16",
    "transformers + bitsandbytes int8": "int8",
}
# The most bytes a weight takes while it is loaded.
_MEMORY = {
    peer_protocol.LLAMA_CPP: 1.1,
    peer_protocol.OPENVINO: 3.2,
    "CTranslate2 int8": 2.2,
    "transformers bf16": 2.0,
    "transformers + bitsandbytes int8": 3.0,
}


class Peers:
    """The peers installed for `python`, if given, and for the Python that runs this."""

    def __init__(self, world: World, python: str | None = None):
        self._world = world
        self._pythons = [*([python] if python else []), sys.executable]
        self._installed = {name: _installed(name, world) for name in self._pythons}

    def competitors(
        self, model: Model, device: str, room: int, tokens: Tokenizer
    ) -> tuple[list[tuple[Competitor, Row]], list[str], dict[str, str]]:
        """The peers that can be measured, with empty rows; a line for each other one; versions."""
        assert model.base is not None
        inspected, folder = inspect_folder(model.base), self._plain(model.base.path)
        task = {
            "folder": str(folder),
            "device": device,
            "short": tokens.encode(Prompt(peer_protocol.SHORT, ())),
            "long": tokens.encode(Prompt(peer_protocol.LONG, ())),
        }
        found, absent = [], []
        versions: dict[str, str] = {}
        for peer in peer_protocol.NEEDS:
            memory = int(_MEMORY[peer] * parameters(inspected.shapes)) + OVERHEAD
            try:
                python = self._python_for(peer)
                if memory > room:
                    raise UsageError(memory_missing(memory, room))
                files = self._files(peer, folder, device)
            except LlmchatError as error:
                absent.append(f"{peer}: {error.message}")
                continue
            command = python_file(python, Path(peer_protocol.__file__), "serve")
            full_task = json.dumps({"peer": peer} | task | files)
            reports_build = peer == peer_protocol.LLAMA_CPP
            competitor = Competitor(
                peer, command, memory, reports_build=reports_build, task=full_task
            )
            found.append((competitor, _row(peer, inspected)))
            versions |= self._installed[python][peer]
        return found, absent, versions

    def _python_for(self, peer: str) -> str:
        """The Python that has the peer in the best of its ways, see NEEDS."""
        ways = peer_protocol.NEEDS[peer]
        ranks = {
            name: list(map(set, ways)).index(set(self._installed[name][peer]))
            for name in self._pythons
            if peer in self._installed[name]
        }
        if ranks:
            return min(ranks, key=lambda name: ranks[name])
        missing = "bitsandbytes" if "bitsandbytes" in ways[0] else ways[0][0]
        raise UsageError(f"{missing} is not installed")

    def _files(self, peer: str, folder: Path, device: str) -> dict[str, Any]:
        """The files a peer reads instead of the checkpoint. Raises UsageError if there are none."""
        if peer in peer_protocol.OF_GGUF:
            if device != "cpu":
                raise UsageError("it is only measured on the CPU")
            return {"gguf": str(self._q8_0(folder))}
        if peer == "CTranslate2 int8":
            return {"converted": str(self._kept(folder) / "ctranslate2-int8")}
        return {}

    def _q8_0(self, folder: Path) -> Path:
        """The Q8_0 file next to the checkpoint, or one that is written from it."""
        for file in sorted(folder.glob("*.gguf")):
            if "q8_0" in file.name.lower():
                return file
        file = self._kept(folder) / "Q8_0.gguf"
        if not file.exists():
            self._write_q8_0(folder, file)
        return file

    def _write_q8_0(self, folder: Path, file: Path) -> None:
        """In a process of its own, whose memory ends with it."""
        command = ("-m", "llmchat", "convert", str(folder), "--to", "gguf:Q8_0", "-o", str(file))
        done = subprocess.run(
            python(*command), capture_output=True, text=True, env=dict(self._world.env)
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["the writer ended early"])[0]
            raise UsageError(f"no Q8_0 file can be written: {reason.removeprefix('error: ')}")

    def _plain(self, folder: Path) -> Path:
        """The checkpoint in 16 bits: other programs do not read what points to a GGUF file."""
        if not (folder / GGUF_POINTER).exists():
            return folder
        plain = self._kept(folder) / "plain"
        if not plain.exists():
            from llmchat.engines.transformers.plain_checkpoint import write_plain

            with fresh_folder(plain) as fresh:
                write_plain(folder, fresh)
        return plain

    def _kept(self, folder: Path) -> Path:
        """The folder for files made from a checkpoint, kept for its next benchmark.

        Other weights in the same folder are another checkpoint.
        """
        files = [*folder.glob("*.safetensors"), *folder.glob(GGUF_POINTER)]
        stats = [(file.name, file.stat()) for file in sorted(files)]
        weights = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        stamp = json.dumps([str(folder.resolve()), *weights])
        kept = self._world.cache / "bench" / hashlib.sha256(stamp.encode()).hexdigest()[:16]
        kept.mkdir(parents=True, exist_ok=True)
        return kept


def _row(peer: str, inspected: Inspection) -> Row:
    context = 4 + peer_protocol.DECODE // 2
    read = int(read_per_token(inspected.shapes, inspected.config, _KINDS[peer], context))
    return Row(peer, _KINDS[peer], bytes_per_token=read or None)


def _installed(python: str, world: World) -> dict[str, dict[str, str]]:
    """Peer → versions of its packages. Raises UsageError if `python` is not a Python."""
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
            f"{python} is not a Python that can be run",
            "--peers-python takes the python of a virtual environment",
        ) from error
