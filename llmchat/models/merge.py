"""`llmchat merge`: a base and its adapters as one checkpoint, in the memory of one shard."""

import json
from pathlib import Path

from llmchat.engines.checkpoint_files import GGUF_POINTER
from llmchat.errors import Mismatch
from llmchat.hub.local_store import fresh_folder
from llmchat.hub.safe_copy import copy_beside
from llmchat.models.locate import locate
from llmchat.presets import Preset
from llmchat.quantisation import declared
from llmchat.settings import World

SHARD_BYTES = 5_000_000_000
# The files of a checkpoint besides its weights; others, such as pickles, are the base's alone.
_KEPT = ("*.json", "*.model", "*.txt", "*.jinja", "LICENSE*", "USE_POLICY*")
_LEFT = (
    "model.safetensors.index.json", "adapter_config.json", "pytorch_model.bin.index.json",
    GGUF_POINTER,
)  # fmt: skip


def merge(preset: Preset, target: Path, world: World, shard_bytes: int = SHARD_BYTES) -> int:
    """Write the checkpoint to `target`, which appears when it is complete; returns its bytes.

    Weights keep the type of the base's files; the adapters are added in float32, then rounded.
    """
    model = locate(preset, world)
    if model.base is None or not model.adapters:
        raise Mismatch(f"{preset.name} has no adapter to merge", "--adapter names one")
    from llmchat.engines.checkpoint_files import read_json
    from llmchat.engines.transformers.weights import FileTensors, open_tensors

    if declared(read_json(model.base.path / "config.json")):
        raise Mismatch(
            f"the weights of {model.base.source} are quantised, so merging would round them twice",
            "--base names the 16-bit model",
        )
    tensors = open_tensors(
        model.base.path, [adapter.path for adapter in model.adapters], preset.adapter_scale
    )
    # Weights of a GGUF file become 16-bit ones.
    is_gguf = (model.base.path / GGUF_POINTER).exists()
    types = None if is_gguf else FileTensors(model.base.path)
    with fresh_folder(target) as folder:
        for pattern in _KEPT:
            for path in model.base.path.glob(pattern):
                if path.name not in _LEFT:
                    copy_beside(path, folder)
        if (
            model.preset.format.template is not None
            and not (folder / "chat_template.jinja").exists()
        ):
            (folder / "chat_template.jinja").write_text(model.preset.format.template, "utf-8")
        _untie(folder / "config.json", tensors.untied)
        return _write(tensors, types, folder, shard_bytes)


def _untie(path: Path, untied: bool) -> None:
    """Record in config.json that the adapter untied head and embedding."""
    if untied:
        path.write_text(
            json.dumps(
                json.loads(path.read_text("utf-8")) | {"tie_word_embeddings": False}, indent=2
            ),
            "utf-8",
        )


def _type_of(name: str, types: object) -> object:
    """The type that a tensor has in the base's files; bfloat16 without them."""
    import torch

    if types is None:
        return torch.bfloat16
    like = name if name in types.shapes else next(iter(types.shapes))  # type: ignore[attr-defined]
    return types.get(like).dtype  # type: ignore[attr-defined]


def _write(tensors: object, types: object, folder: Path, shard_bytes: int) -> int:
    """Write model-00001.safetensors … with their index, or a single file."""
    from safetensors.torch import save_file

    shards: list[list[str]] = [[]]
    size = total = 0
    pending: dict[str, object] = {}
    for name in tensors.shapes:  # type: ignore[attr-defined]
        tensor = tensors.get(name)  # type: ignore[attr-defined]
        tensor = tensor.to(_type_of(name, types))
        bytes_ = tensor.numel() * tensor.element_size()
        if pending and size + bytes_ > shard_bytes:
            save_file(pending, folder / f"part-{len(shards)}", metadata={"format": "pt"})
            shards.append([])
            pending, size = {}, 0
        pending[name] = tensor.contiguous().clone()
        shards[-1].append(name)
        size, total = size + bytes_, total + bytes_
    save_file(pending, folder / f"part-{len(shards)}", metadata={"format": "pt"})
    names = [
        f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
    ]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for number, name in enumerate(names, 1):
        (folder / f"part-{number}").rename(folder / name)
    if len(shards) > 1:
        index = {
            tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
        }
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index})
        )
    return total
