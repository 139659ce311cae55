"""A quantised model as a 16-bit checkpoint, for programs that read nothing else.

Training needs one, and the libraries that `llmchat bench` compares with; a chat does not.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from llmchat.engines.checkpoint_files import GGUF_POINTER, PACKED_KEY, PACKED_TABLE, read_json
from llmchat.engines.transformers.mapped_safetensors import Entry, Writer
from llmchat.engines.transformers.weights import open_tensors
from llmchat.quantisation import declared, method_of
from llmchat.quantisation.config import KEYS

_KEPT = ("tokenizer*", "*.jinja", "LICENSE*")


@contextmanager
def plain_checkpoint(base: Path) -> Iterator[Path]:
    """The folder itself, or a temporary one with the dequantised weights."""
    if not _is_quantised(base):
        yield base
        return
    with tempfile.TemporaryDirectory(prefix=".plain-", dir=base.parent) as name:
        write_plain(base, Path(name))
        yield Path(name)


def _is_quantised(base: Path) -> bool:
    """Whether transformers cannot load the weights on every machine. It reads bitsandbytes' int8,
    and dequantises MXFP4 itself, under its own names.
    """
    if (base / GGUF_POINTER).exists() or (base / PACKED_TABLE).exists():
        return True
    table = declared(read_json(base / "config.json"))
    if table is None or table.get("load_in_8bit"):
        return False
    return method_of(table) != "mxfp4"


def write_plain(base: Path, target: Path) -> None:
    """Write the weights in bf16, one tensor at a time, with config and tokenizer."""
    tensors = open_tensors(base, ())
    entries = [Entry(name, torch.bfloat16, shape) for name, shape in tensors.shapes.items()]
    writer = Writer(target / "model.safetensors", entries)
    for entry in entries:
        writer.put(entry.name, tensors.get(entry.name).to(torch.bfloat16))
    writer.close()
    for path in (path for pattern in _KEPT for path in base.glob(pattern)):
        (target / path.name).write_bytes(path.read_bytes())
    config = read_json(base / "config.json") | {"dtype": "bfloat16"}
    config = {name: value for name, value in config.items() if name not in (*KEYS, PACKED_KEY)}
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
