"""Converts a LoRA adapter from safetensors to GGUF for llama.cpp, once, and keeps it in the cache.

The file is like that of llama.cpp's convert_lora_to_gguf.py; tensor names come from its gguf
package.
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

# GGUF architectures with the linear layers of the checkpoint; only "llama" reorders the rows of q
# and k.
_CONVERTIBLE = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3")
_NAME = "adapter.gguf"


def adapter_as_gguf(adapter: Checkpoint, facts: Path, world: World) -> Path:
    """The adapter as a GGUF file for the model that the folder `facts` describes.

    Raises Mismatch for an adapter that is more than LoRA on linear layers, does not fit, or is for
    an architecture whose weights GGUF stores in another layout.
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
    if kind not in _CONVERTIBLE:
        raise Mismatch(
            f"adapters for llama.cpp's architecture `{kind}` are not supported",
            f"supported are {', '.join(_CONVERTIBLE)}; {_OTHERWISE}",
        )
    lora = Adapter(adapter)
    if needs_peft(lora.config) or lora.embeddings:
        raise Mismatch(
            f"the adapter {adapter.name} is more than LoRA on linear layers,"
            " which llama.cpp does not support",
            _OTHERWISE,
        )
    names = _names(kind, int(config["num_hidden_layers"]))
    writer = GGUFWriter(target, kind)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp multiplies by alpha / rank. The scale, which can differ by layer, goes into B.
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


_OTHERWISE = "`llmchat merge` merges base and adapter into one model"


def _names(kind: str, layers: int) -> Any:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == kind), None)
    if arch is None:
        raise IntegrityError(f"the gguf package does not support the architecture `{kind}`")
    return get_tensor_name_map(arch, layers)


def _interleaved(rows: "numpy.ndarray", heads: int) -> "numpy.ndarray":
    """[out, rank] with each head's rows in GGUF's order: the two rotary halves interleaved."""
    out, rank = rows.shape
    if out % (2 * heads):
        raise Mismatch(
            f"the adapter has {out} rows, which {heads} heads cannot share",
            "is it for another base?",
        )
    return rows.reshape(heads, 2, out // heads // 2, rank).swapaxes(1, 2).reshape(out, rank).copy()
