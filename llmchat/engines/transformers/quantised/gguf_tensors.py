"""The tensors of a GGUF file under the names of a plan, mapped from the file.

gguf-py knows which name of llama.cpp belongs to a name of a checkpoint. What llama.cpp's converter
does to a tensor is undone here: the rows of rotary heads are put back in order, which moves whole
rows and rounds nothing, and norms that multiply with 1 + weight lose the 1.
"""

import mmap
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmchat.engines.checkpoint_files import GGUF_POINTER, read_json
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.mapped_safetensors import map_file
from llmchat.engines.transformers.quantised import gguf_types
from llmchat.engines.transformers.quantised.packing import pack_by_parts
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.tensors import FloatTensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.gguf_file import GgufHeader, TensorInfo, read_header

# Architectures whose converter makes rotary pairs adjacent, and those whose norms have the 1.
_ROTATED = ("llama", "granite", "granitemoe", "mistral3", "smollm3")
_SHIFTED = ("gemma", "gemma2", "gemma3", "nemotron")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
# Names that gguf-py does not know: a pattern of ours, and llama.cpp's name within the layer.
_ALIASES = (
    (re.compile(r"\.e_score_correction_bias$|\.feed_forward\.expert_bias$"), "exp_probs_b.bias"),
    (re.compile(r"\.self_attn\.sinks$"), "attn_sinks.weight"),
    (re.compile(r"\.experts\.\d+\.(?:gate_proj|w1)\.weight$"), "ffn_gate_exps.weight"),
    (re.compile(r"\.experts\.\d+\.(?:up_proj|w3)\.weight$"), "ffn_up_exps.weight"),
    (re.compile(r"\.experts\.\d+\.(?:down_proj|w2)\.weight$"), "ffn_down_exps.weight"),
)
_LAYER = re.compile(r"\.(\d+)\.")


class Stored(NamedTuple):
    """Where a tensor of the plan is. expert: its place in a stack; heads: whose rotary rows are
    interleaved; shift: what the converter added; is_kernel: one of a convolution, whose dimension
    of 1 it left out.
    """

    name: str
    expert: int | None = None
    heads: int = 0
    shift: float = 0.0
    is_kernel: bool = False


def open_gguf(base: Path, config: Mapping[str, Any]) -> "GgufTensors":
    """The tensors of the file that a folder points to."""
    pointer = read_json(base / GGUF_POINTER)
    return GgufTensors([base / name for name in pointer["files"]], config)


class GgufTensors(FloatTensors):
    """files: one, or the parts of a file in their order. config: as gguf_file.config makes it.

    Raises Mismatch for a model that has no plan.
    """

    def __init__(self, files: Sequence[Path], config: Mapping[str, Any]):
        headers = [read_header(file) for file in files]
        self._files = {
            name: file
            for file, header in zip(files, headers, strict=True)
            for name in header.tensors
        }
        self._infos = {name: info for header in headers for name, info in header.tensors.items()}
        self._stored = _stored(headers[0], self._infos, config)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: self._shape(stored) for name, stored in self._stored.items()
        }

    def get(self, name: str) -> Tensor:
        stored = self._stored[name]
        info = self._infos[stored.name]
        values = gguf_types.plain(info.type, self._rows(stored), self.shapes[name])
        return values - stored.shift if stored.shift else values

    def grouped(self, name: str) -> GroupedWeight | None:
        if self.stored_size(name) is None:
            return None
        return self._grouped(name, self._rows(self._stored[name]))

    def packed(self, name: str) -> PackedWeight | None:
        """Brought into the layout now, a part of the rows after the other."""
        if self.stored_size(name) is None:
            return None
        rows = self._rows(self._stored[name])
        return pack_by_parts(lambda part: self._grouped(name, rows[part]), self.shapes[name], name)

    def _grouped(self, name: str, rows: Tensor) -> GroupedWeight:
        weight = gguf_types.grouped(self._infos[self._stored[name].name].type, rows)
        assert weight is not None
        if not _is_finite(weight):
            raise IntegrityError(
                f"the tensor `{self._stored[name].name}` has scales that are not finite numbers",
                "download the file again, or another one",
            )
        return weight

    def stored_size(self, name: str) -> int | None:
        stored = self._stored[name]
        info = self._infos[stored.name]
        if len(self.shapes[name]) != 2 or not gguf_types.has_groups(info.type):
            return None
        return info.size if stored.expert is None else info.size // info.shape[0]

    def _shape(self, stored: Stored) -> tuple[int, ...]:
        shape = self._infos[stored.name].shape
        if stored.is_kernel and len(shape) == 2:
            return shape[0], 1, shape[1]
        return shape if stored.expert is None else shape[1:]

    def _rows(self, stored: Stored) -> Tensor:
        """The bytes of a tensor: uint8 [rows, bytes of a row], in the order of the checkpoint."""
        info = self._infos[stored.name]
        data = _bytes(map_file(self._files[stored.name]), info)
        if stored.expert is not None:
            data = data.view(info.shape[0], -1)[stored.expert]
        shape = self._shape(stored)
        rows = data.view(shape[0] if len(shape) > 1 else 1, -1)
        if not stored.heads:
            return rows
        flat = rows.view(shape[0], -1)
        order = torch.arange(shape[0]).view(stored.heads, -1, 2).transpose(1, 2).flatten()
        return flat[order].view(rows.shape)


def _bytes(data: mmap.mmap, info: TensorInfo) -> Tensor:
    if not info.size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8, count=info.size, offset=info.offset)


def _is_finite(weight: GroupedWeight) -> bool:
    parts = (weight.scale, weight.minimum)
    return all(part is None or bool(torch.isfinite(part).all()) for part in parts)


def _stored(
    header: GgufHeader, infos: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> dict[str, Stored]:
    """The place of each tensor of the plan that the file has."""
    plan, arch = plan_of(config), str(header.facts.get("general.architecture"))
    if plan is None:
        raise Mismatch(
            f"GGUF files of the architecture `{arch}` do not run in this engine",
            "`--engine gguf` runs them in llama.cpp",
        )
    table = _name_table(arch, int(config["num_hidden_layers"]))
    found: dict[str, Stored] = {}
    for name in tensor_names(plan):
        theirs = _theirs(name, table)
        if theirs in infos:
            found[name] = _place(name, theirs, arch, infos[theirs], config)
    return found


def _name_table(arch: str, layers: int) -> Any:
    import gguf

    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if arch not in numbers:
        raise Mismatch(f"the installed gguf package does not know the architecture `{arch}`")
    return gguf.get_tensor_name_map(numbers[arch], layers)


def _theirs(name: str, table: Any) -> str:
    """llama.cpp's name of a tensor; "" where it has none."""
    module, _, suffix = name.rpartition(".")
    found = table.get_name(module) or table.get_name(_EXPERT.sub(".experts.", module))
    if found and suffix in ("weight", "bias"):
        return f"{found}.{suffix}"
    layer = _LAYER.search(name)
    for pattern, theirs in _ALIASES:
        if layer and pattern.search(name):
            return f"blk.{layer[1]}.{theirs}"
    return ""


def _place(
    name: str, theirs: str, arch: str, info: TensorInfo, config: Mapping[str, Any]
) -> Stored:
    expert = _EXPERT.search(name)
    is_stack = "_exps." in theirs
    number = int(expert[1]) if expert and is_stack else None
    if number is not None and (len(info.shape) < 2 or number >= info.shape[0]):
        raise IntegrityError(f"the tensor `{theirs}` has no expert {number}")
    return Stored(
        theirs,
        number,
        _heads(theirs, config) if arch in _ROTATED else 0,
        1.0 if arch in _SHIFTED and theirs.endswith("norm.weight") else 0.0,
        name.endswith(".conv.weight"),
    )


def _heads(theirs: str, config: Mapping[str, Any]) -> int:
    heads = int(config["num_attention_heads"])
    if ".attn_q." in theirs:
        return heads
    return int(config.get("num_key_value_heads") or heads) if ".attn_k." in theirs else 0
