"""What a GGUF file is, and which engine runs it: llmchat's own where its family has a plan.

A header has megabytes, so what was read of a file on this machine is kept until the file changes.
"""

import hashlib
import importlib.util
import re
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from llmchat import __version__
from llmchat.errors import Mismatch
from llmchat.gguf_file import GgufHeader, parts_of, read_model
from llmchat.gguf_file.config import config_of
from llmchat.hub.base_tokenizer import base_of
from llmchat.settings import World

OWN, LLAMA_CPP = "transformers", "gguf"
# Architectures of llama.cpp that turn text into vectors, or are parts of other models.
_NO_WRITER = re.compile(r".*(?:bert|encoder|embedding|clip|wavtokenizer).*")


class GgufSummary(Struct, frozen=True):
    """architecture: as llama.cpp calls it. quantisation: Q4_K_M, for example. planned: whether our
    engine has a plan for the family. vocabulary, template: whether the file has a vocabulary and a
    chat template. base: the repo of the model that it was made from, whose tokenizer is fetched.
    """

    architecture: str
    quantisation: str
    parameters: int
    size: int
    planned: bool
    is_model: bool = True
    vocabulary: bool = True
    base: str = ""
    template: bool = True

    @property
    def problem(self) -> str:
        """Why nothing here runs it; "" where an engine does."""
        if not self.is_model:
            return f"it holds no language model: its architecture is `{self.architecture}`"
        if self.planned and not (self.vocabulary or self.base):
            return "it has no tokenizer, and names no base model on the Hub"
        if self.planned or (self.vocabulary and _has_llama_cpp(self.architecture)):
            return ""
        return f"llmchat has no plan for its architecture `{self.architecture}`"

    @property
    def engine(self) -> str:
        """The engine that runs it. Raises Mismatch where none does."""
        if self.problem:
            raise Mismatch(self.problem, self.way_out)
        return OWN if self.planned else LLAMA_CPP

    @property
    def runs(self) -> str:
        """How it runs, in a few words."""
        if self.problem:
            return "no"
        return "yes" if self.planned else "llama.cpp"

    @property
    def way_out(self) -> str:
        if not self.is_model:
            return "name a GGUF file of a model that writes text"
        if importlib.util.find_spec("xllamacpp") is None:
            return 'pip install "llmchat[gguf]" installs llama.cpp, which may run it'
        return "use another model"


def summarised(header: GgufHeader, size: int) -> GgufSummary:
    """The summary of a header. size: bytes of the model's files."""
    from llmchat.engines.transformers.families import has_plan

    facts = header.facts
    architecture = str(facts.get("general.architecture", "unknown"))
    is_model = (
        facts.get("general.type", "model") == "model"
        and not _NO_WRITER.fullmatch(architecture)
        and f"{architecture}.context_length" in facts
        and "token_embd.weight" in header.tensors
    )
    config = config_of(header) if is_model else None
    return GgufSummary(
        architecture,
        header.kind,
        header.parameters,
        size,
        planned=config is not None and has_plan(config),
        is_model=is_model,
        vocabulary="tokenizer.ggml.tokens" in facts,
        base=str(base_of(facts) or ""),
        template=bool(facts.get("tokenizer.chat_template")),
    )


def engine_note(found: GgufSummary) -> str:
    """Which engine runs a file, in one line."""
    kind = f"{found.architecture} {found.quantisation}"
    if found.engine == OWN:
        tokenizer = "" if found.vocabulary else f", with the tokenizer of {found.base}"
        return f"{kind}: runs in llmchat's own engine{tokenizer}"
    return f"{kind}: runs in llama.cpp; llmchat has no plan for the architecture"


def summary_of(file: Path, world: World) -> GgufSummary:
    """The summary of a file on this machine, or of the parts of which it is the first.

    Raises IntegrityError for a damaged file.
    """
    files = parts_of(file)
    place = world.cache / "headers" / f"{_state(files)}.json"
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(place.read_bytes(), type=GgufSummary)
    found = summarised(read_model(file), sum(part.stat().st_size for part in files))
    # Without a writable cache the header is read each time.
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(msgspec.json.encode(found))
    return found


def _state(files: tuple[Path, ...]) -> str:
    facts = [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\0".join((__version__, *facts)).encode()).hexdigest()[:20]


def _has_llama_cpp(architecture: str) -> bool:
    """Whether llama.cpp is installed and its release knows an architecture."""
    if importlib.util.find_spec("xllamacpp") is None:
        return False
    from gguf.constants import MODEL_ARCH_NAMES

    return architecture in MODEL_ARCH_NAMES.values()
