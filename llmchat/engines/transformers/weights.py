"""The tensors of a checkpoint, one at a time, with adapters merged.

Adapters are merged in float32 before a weight is quantised, so it is rounded once. Peak memory is
that of one tensor.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.checkpoint_files import (
    GGUF_POINTER,
    PACKED_KEY,
    PACKED_TABLE,
    PACKED_VERSION,
    read_json,
)
from llmchat.engines.transformers.bitsandbytes_format import HEAD_FILE, Int8Tensors, is_int8
from llmchat.engines.transformers.checkpoint_names import modern_config, modern_name
from llmchat.engines.transformers.lora import Adapter, check, needs_peft, read_adapter_config
from llmchat.engines.transformers.mapped_safetensors import MappedFile
from llmchat.engines.transformers.modules.auto_classes import load_whole
from llmchat.engines.transformers.quantised.checkpoint import QuantisedTensors
from llmchat.engines.transformers.quantised.gguf_tensors import open_gguf
from llmchat.engines.transformers.quantised.packed_file import PackedTensors
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.tensors import FloatTensors, Tensors
from llmchat.engines.transformers.tied_heads import HEAD, embedding_of, is_tied, with_head
from llmchat.errors import IntegrityError, Mismatch, first_line
from llmchat.quantisation import declared
from llmchat.quantisation.config import OWN_TABLE, refuse_tensors, with_own_table

# The name of files that other programs would misread under the usual one.
OWN_STEM = "llmchat"


class FileTensors(FloatTensors):
    """The safetensors files of a folder.

    Each tensor is mapped separately, so that the pages of used ones are freed.
    """

    def __init__(self, folder: Path):
        files = [MappedFile(path) for path in weight_files(folder)]
        self._files = {name: file for file in files for name in file.shapes}
        self.shapes: dict[str, tuple[int, ...]] = {
            name: shape for file in files for name, shape in file.shapes.items()
        }

    def get(self, name: str) -> Tensor:
        return self._files[name].mapped_again().get(name)


class MergedTensors(FloatTensors):
    """Tensors with plain adapters added in order. An 8-bit weight that none changes stays 8-bit.

    If an adapter changes a head or embedding that the base ties, the head becomes a separate
    matrix.
    """

    def __init__(self, base: Tensors, adapters: Sequence[Adapter], config: dict[str, Any]):
        self.shapes = base.shapes
        self._base = base
        self.adapters = adapters
        self._embedding = embedding_of(base.shapes)
        changed = {f"{module}.weight" for adapter in adapters for module in adapter.modules}
        if is_tied(config, base.shapes) and changed & {HEAD, self._embedding}:
            self.shapes, self.untied = with_head(base.shapes, config), True
        for adapter in adapters:
            check(adapter, self.shapes)

    def get(self, name: str) -> Tensor:
        tensor = self._base.get(
            self._embedding if self.untied and name == HEAD and self._embedding else name
        )
        for adapter in self.adapters:
            tensor = adapter.add_to(tensor, name.removesuffix(".weight"))
        return tensor

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        changed = {f"{module}.weight" for adapter in self.adapters for module in adapter.modules}
        return None if changed.intersection(names) else self._base.int8(*names)

    def grouped(self, name: str) -> GroupedWeight | None:
        return None if self._changes(name) else self._base.grouped(name)

    def packed(self, name: str) -> PackedWeight | None:
        return None if self._changes(name) else self._base.packed(name)

    def stored_size(self, name: str) -> int | None:
        return None if self._changes(name) else self._base.stored_size(name)

    def _changes(self, name: str) -> bool:
        """Whether a tensor is not the base's own: an adapter adds to it, or it is a head that the
        base ties."""
        module = name.removesuffix(".weight")
        is_new = self.untied and name == HEAD
        return is_new or any(module in adapter.modules for adapter in self.adapters)


class RenamedTensors:
    """Tensors of an old or multimodal checkpoint under today's names, those of the language model
    only.
    """

    def __init__(self, tensors: Tensors, config: dict[str, Any]):
        self._tensors = tensors
        named = {name: modern for name in tensors.shapes if (modern := modern_name(name, config))}
        self._old = {modern: name for name, modern in named.items()}
        self.shapes = {modern: tensors.shapes[name] for name, modern in named.items()}
        self.untied = tensors.untied

    def get(self, name: str) -> Tensor:
        return self._tensors.get(self._old[name])

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        return self._tensors.int8(*(self._old[name] for name in names))

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors.head_int8()

    def grouped(self, name: str) -> GroupedWeight | None:
        return self._tensors.grouped(self._old[name])

    def packed(self, name: str) -> PackedWeight | None:
        return self._tensors.packed(self._old[name])

    def stored_size(self, name: str) -> int | None:
        return self._tensors.stored_size(self._old[name])


class MemoryTensors(FloatTensors):
    """Tensors that are in memory already."""

    def __init__(self, state: dict[str, Tensor], untied: bool = False):
        self._state = state
        self.untied = untied
        self.shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def get(self, name: str) -> Tensor:
        return self._state[name]


def open_tensors(base: Path, adapters: Iterable[Path], scale: float = 1.0) -> Tensors:
    """The tensors of a base checkpoint with its adapters merged, the last one with strength
    `scale`.

    Their names are those of transformers' causal (or encoder-decoder) model. A weight of an 8-bit
    base that an adapter changes is dequantised first.
    """
    config = modern_config(read_json(base / "config.json"))
    scaled = with_scales(list(adapters), scale)
    if any(needs_peft(read_adapter_config(folder)) for folder, _ in scaled):
        if declared(config) or (base / GGUF_POINTER).exists():
            raise Mismatch(
                "an adapter that is more than LoRA matrices cannot be merged into quantised"
                " weights",
                "name a 16-bit base with --base",
            )
        return RenamedTensors(merged_by_peft(base, config, scaled), config)
    files = RenamedTensors(_open_files(base, config), config)
    if not scaled:
        return files
    loaded = [Adapter(folder, strength, config) for folder, strength in scaled]
    return MergedTensors(files, loaded, config)


def _open_files(base: Path, config: dict[str, Any]) -> Tensors:
    """The tensors of a folder as config.json, or an older file of its own, describes them; those of
    the GGUF file that it points to.
    """
    if (base / GGUF_POINTER).exists():
        # A plan is needed, whose modules import this one.
        return open_gguf(base, config)
    if (base / PACKED_TABLE).exists():
        return _open_packed(base, config)
    config = with_own_table(config, read_json(base / OWN_TABLE))
    if is_int8(config):
        return Int8Tensors(weight_files(base), config)
    if declared(config):
        return QuantisedTensors(weight_files(base), config)
    files = FileTensors(base)
    refuse_tensors(files.shapes)
    return files


def _open_packed(base: Path, config: dict[str, Any]) -> Tensors:
    """The tensors of a folder that `llmchat convert` wrote."""
    if config.get(PACKED_KEY) != PACKED_VERSION:
        raise IntegrityError(
            f"{base.name} has int4 weights in another layout than this version of llmchat reads",
            "convert the model again",
        )
    head = base / HEAD_FILE
    found = head if head.exists() else None
    return PackedTensors(base, weight_files(base), config, found, untied=False)


def with_scales(adapters: list[Path], scale: float) -> list[tuple[Path, float]]:
    """Adapters with their strengths: `scale` for the last one, 1 for the others."""
    return [(folder, scale if folder is adapters[-1] else 1.0) for folder in adapters]


def merged_by_peft(
    base: Path, config: dict[str, Any], adapters: Sequence[tuple[Path, float]]
) -> MemoryTensors:
    """The whole model in memory, merged by peft: for adapters that change more than A and B.

    Raises Mismatch for one that peft cannot merge.
    """
    model = load_whole(base, config, torch.float32)
    together = any(read_adapter_config(folder).get("ensure_weight_tying") for folder, _ in adapters)
    untied = not together and _untie(model)
    for folder, strength in adapters:
        try:
            model = _merge_one(model, folder, strength)
        except (RuntimeError, ValueError, KeyError, TypeError, NotImplementedError) as error:
            raise Mismatch(
                f"peft cannot merge the adapter {folder.name}: {first_line(error)}"
            ) from error
    state = dict(model.state_dict())
    if untied and torch.equal(
        model.get_output_embeddings().weight, model.get_input_embeddings().weight
    ):
        return MemoryTensors({name: tensor for name, tensor in state.items() if name != HEAD})
    return MemoryTensors(state, untied)


def _merge_one(model: Any, folder: Path, strength: float) -> Any:
    import peft

    tuned = peft.PeftModel.from_pretrained(model, folder)
    for module in tuned.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.set_scale("default", strength)
    return tuned.merge_and_unload()


def _untie(model: Any) -> bool:
    """Separate a tied head from the embedding, as in training; returns whether it was tied."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return False
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    return True


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint. Raises IntegrityError if there are none."""
    for stem in ("model", OWN_STEM):
        index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
        if index.exists():
            return [
                folder / name
                for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            ]
        if single.exists():
            return [single]
    raise IntegrityError(f"{folder} has no model.safetensors")
