"""A LoRA adapter in safetensors written once more as GGUF, so that llama.cpp can put it on. Made once, kept in the cache.

The file's form is that of llama.cpp's convert_lora_to_gguf.py; the names of tensors come from its gguf package.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchat.engines.checkpoint_files import read_json
from llmchat.errors import IntegrityError, Mismatch
from llmchat.hub import Checkpoint, local_store
from llmchat.presets import Source
from llmchat.settings import World

if TYPE_CHECKING:
    import numpy

# Architectures of GGUF whose linears are those of the checkpoint, but for the order of rows in q and k of "llama".
_ALIKE = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3")
_NAME = "adapter.gguf"


def adapter_as_gguf(adapter: Checkpoint, facts: Path, world: World) -> Path:
    """The adapter as a GGUF file for the model that `facts` (hub.gguf_facts) describes.

    Raises Mismatch for one that goes beyond LoRA on linears, does not fit, or is for an architecture whose weights GGUF lays out differently.
    """
    stamp = (
        (adapter.path / "adapter_model.safetensors").stat().st_mtime_ns
        if not adapter.revision
        else ""
    )
    folder = (
        world.cache
        / "gguf"
        / local_store.key(
            Source("path", str(adapter.path), f"{adapter.revision}{stamp}-{facts.name}")
        )
    )
    if not folder.exists():
        with local_store.fresh_folder(folder, private=True) as fresh:
            _write(adapter.path, read_json(facts / "config.json"), fresh / _NAME)
    return folder / _NAME


def _write(adapter: Path, config: dict[str, Any], target: Path) -> None:
    import torch
    from gguf import GGUFWriter

    from llmchat.engines.transformers.lora import Adapter, needs_peft

    kind = str(config.get("model_type"))
    if kind not in _ALIKE:
        raise Mismatch(
            f"an adapter cannot be written for llama.cpp's `{kind}` here",
            f"it can for {', '.join(_ALIKE)}; {_OTHERWISE}",
        )
    lora = Adapter(adapter)
    if needs_peft(lora.config) or lora.embeddings:
        raise Mismatch(
            f"the adapter {adapter.name} is more than LoRA on linears, which llama.cpp cannot put on",
            _OTHERWISE,
        )
    names = _names(kind, int(config["num_hidden_layers"]))
    writer = GGUFWriter(target, kind)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp multiplies with alpha / rank; the scale, which may differ from layer to layer, goes into B.
    writer.add_float32("adapter.lora.alpha", 1.0)
    for module in lora.modules:
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise Mismatch(
                f"the adapter {adapter.name} changes `{module}`, which the model does not have",
                f"is it for another base? {_OTHERWISE}",
            )
        a, b, scale = lora.matrices(module, torch.float32)
        down, up = a.numpy(), (b * scale * a.shape[0]).numpy()
        if kind == "llama" and module.endswith(("q_proj", "k_proj")):
            up = _interleaved(
                up,
                int(
                    config[
                        "num_attention_heads"
                        if module.endswith("q_proj")
                        else "num_key_value_heads"
                    ]
                ),
            )
        writer.add_tensor(f"{name}.lora_a", down)
        writer.add_tensor(f"{name}.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_OTHERWISE = "`llmchat merge` makes one model of base and adapter"


def _names(kind: str, layers: int) -> Any:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == kind), None)
    if arch is None:
        raise IntegrityError(f"the gguf package knows no architecture `{kind}`")
    return get_tensor_name_map(arch, layers)


def _interleaved(rows: "numpy.ndarray", heads: int) -> "numpy.ndarray":
    """[out, rank] with the rows of each head in the order of GGUF's llama: the two halves that rotate together taken in turn."""
    out, rank = rows.shape
    if out % (2 * heads):
        raise Mismatch(
            f"the adapter's rows ({out}) are not those of {heads} heads", "is it for another base?"
        )
    return rows.reshape(heads, 2, out // heads // 2, rank).swapaxes(1, 2).reshape(out, rank).copy()
