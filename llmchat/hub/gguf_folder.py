"""A checkpoint folder for a GGUF file: config, tokenizer, and a pointer to the file, which keeps
the weights. Nothing is dequantised.
"""

import json
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from struct import unpack
from typing import Any

from llmchat.engines.checkpoint_files import GGUF_POINTER, read_json
from llmchat.errors import LlmchatError, Mismatch
from llmchat.gguf_file import GgufHeader, TensorInfo, joined, read_header, read_model
from llmchat.gguf_file.config import config_of
from llmchat.gguf_file.names import checkpoint_name
from llmchat.hub.convert import tokenizer_by_transformers
from llmchat.hub.gguf_header import numbers_of, tokenizer_config
from llmchat.hub.headers import Shapes
from llmchat.hub.weights import Quantised
from llmchat.parse_guard import reading, silenced
from llmchat.quantisation.kinds import counted

# Writes a tokenizer into a folder; returns a note.
Fetch = Callable[[Path], str]
# Types whose tensors are not in few bits.
_PLAIN = ("F32", "F16", "BF16", "F64")


def write_folder(files: Sequence[Path], target: Path, fetch: Fetch | None = None) -> str | None:
    """Write the folder of a GGUF file, or of its parts; returns a note.

    fetch: writes a tokenizer into a folder, for a file that has none. None for an architecture that
    has no plan: then nothing is written. Files in `target` are pointed to by their names alone.
    """
    headers = [read_header(file) for file in files]
    whole = joined(headers)
    config = config_of(whole, _reader(files, headers))
    if config is None:
        return None
    size = sum(info.size for info in whole.tensors.values())
    places = [file.name if file.parent == target else str(file.resolve()) for file in files]
    _write(target / "config.json", config)
    table = {
        checkpoint_name(name): {"shape": info.shape, "type": info.type.name, "size": info.size}
        for name, info in whole.tensors.items()
    }
    pointer = {"files": places, "kind": whole.kind, "size": size, "tensors": table}
    (target / GGUF_POINTER).write_text(json.dumps(pointer), "utf-8")
    with reading(files[0]):
        fetched = _write_tokenizer(files[0], whole.facts, target, fetch)
    return "; ".join((f"{files[0].name} runs as it is ({whole.kind})", *fetched))


def is_known(path: Path) -> bool:
    """Whether the model of a GGUF file has a plan, so that its weights stay in the file."""
    try:
        return config_of(read_header(path)) is not None
    except LlmchatError:
        return False


def size_of_weights(folder: Path) -> int:
    """Bytes of the weights that a folder points to; 0 for a folder without a pointer."""
    return int(read_json(folder / GGUF_POINTER).get("size", 0))


def _reader(files: Sequence[Path], headers: Sequence[GgufHeader]) -> Callable[[str], list[float]]:
    def numbers(name: str) -> list[float]:
        for file, header in zip(files, headers, strict=True):
            if name in header.tensors:
                return _floats(file, header.tensors[name])
        return []

    return numbers


def _floats(path: Path, info: TensorInfo) -> list[float]:
    if info.type.name != "F32" or info.size > 1 << 20:
        raise ValueError("its rotary factors are not numbers of 32 bits")
    with path.open("rb") as file:
        file.seek(info.offset)
        return list(unpack(f"<{info.size // 4}f", file.read(info.size)))


def _write_tokenizer(
    path: Path, facts: dict[str, Any], target: Path, fetch: Fetch | None
) -> list[str]:
    """Write the tokenizer of a header; `fetch` one where it has none. Returns notes."""
    if "tokenizer.ggml.tokens" in facts:
        _write_own_tokenizer(path, facts, target)
        return []
    if fetch is None:
        raise Mismatch(
            f"{path.name} has no tokenizer", "`llmchat pull` fetches that of its base model"
        )
    notes = [fetch(target)]
    if template := facts.get("tokenizer.chat_template"):
        (target / "chat_template.jinja").write_text(str(template), "utf-8")
    return notes


def _write_own_tokenizer(path: Path, facts: dict[str, Any], target: Path) -> None:
    """From the header where that is exact, else as transformers converts it, which takes longer."""
    from llmchat.engines.tokenizer import rwkv_world
    from llmchat.engines.tokenizer.gguf import tokenizer_of

    if facts.get("tokenizer.ggml.model") == "rwkv":
        tokens, kinds = (facts[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
        lines = rwkv_world.lines_of(tokens, kinds, normal=1)
        (target / rwkv_world.FILE).write_text(lines, "utf-8")
        _write_tokenizer_config(facts, target)
        return
    with silenced():
        made = tokenizer_of(facts)
        if made is None:
            tokenizer_by_transformers(path, target)
        else:
            made.save(str(target / "tokenizer.json"), pretty=False)
    _write_tokenizer_config(facts, target)


def _write_tokenizer_config(facts: dict[str, Any], target: Path) -> None:
    config = tokenizer_config(facts)
    if template := config.pop("chat_template", None):
        (target / "chat_template.jinja").write_text(template, "utf-8")
    _write(target / "tokenizer_config.json", config)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def weights_of_pointer(folder: Path) -> tuple[Shapes, Quantised] | None:
    """The tensors of the GGUF file that a folder points to; None for a folder without a pointer."""
    pointer = read_json(folder / GGUF_POINTER)
    if not pointer:
        return None
    with reading(folder / GGUF_POINTER):
        facts = {
            name: (tuple(fact["shape"]), fact["type"], fact["size"])
            for name, fact in pointer["tensors"].items()
        }
        return _weights(facts, pointer["kind"])


def inspect_header(path: Path) -> tuple[dict[str, Any], Shapes, Quantised]:
    """Config, shapes and weights of a GGUF file; nothing for an unreadable one, whose pull reports
    the reason.
    """
    try:
        return facts_of_header(read_model(path))
    except LlmchatError:
        return {}, {}, Quantised()


def facts_of_header(header: GgufHeader) -> tuple[dict[str, Any], Shapes, Quantised]:
    """Config, shapes and weights of a header."""
    facts = {
        checkpoint_name(name): (info.shape, info.type.name, info.size)
        for name, info in header.tensors.items()
    }
    return config_of(header) or numbers_of(header), *_weights(facts, header.kind)


def _weights(
    facts: dict[str, tuple[tuple[int, ...], str, int]], kind: str
) -> tuple[Shapes, Quantised]:
    """facts: name → shape, type and bytes."""
    kinds = counted((type_, prod(shape), size) for shape, type_, size in facts.values())
    stored = {
        name: size
        for name, (shape, type_, size) in facts.items()
        if len(shape) > 1 and type_ not in _PLAIN
    }
    shapes = {name: shape for name, (shape, _, _) in facts.items()}
    return shapes, Quantised(kind if stored else "", stored, kinds)
