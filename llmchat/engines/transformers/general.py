"""Every other causal architecture transformers knows: its own module tree, with the linears replaced by ours.

Memory stays low where the checkpoint's tensor names are those of the module tree: the tree is built without weights and filled tensor by
tensor. Where they are not (older names, fused experts), transformers loads the whole model first.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmchat.engines import Weights
from llmchat.engines.transformers.linear import Scratch, compute_dtype, make_linear
from llmchat.engines.transformers.weights import MemoryTensors, Tensors
from llmchat.errors import Mismatch


class GeneralForward:
    """A transformers model and its cache behind the same two calls as LlamaForward."""

    def __init__(
        self,
        folder: Path,
        tensors: Tensors,
        kind: Weights,
        device: torch.device,
        device_map: str | None = None,
        trust_remote_code: bool = False,
    ):
        self.dtype = compute_dtype(kind)
        self._device = device
        self._model = _build(folder, tensors, kind, device if device_map is None else torch.device("cpu"), trust_remote_code)
        if device_map is not None:
            self._spread(device_map)
        self._cache: Any = None

    def read(self, ids: list[int], *, every: bool = False) -> Tensor:
        """Read more tokens, behind those in the cache. Returns logits for what follows the last, [1, vocab], or each of them, [T, vocab]."""
        if self._cache is None:
            self._cache = self._new_cache()
        try:
            out = self._model(
                input_ids=torch.tensor([ids], device=self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=0 if every else 1,  # 0: of every token
            )
        except BaseException:
            # Interrupted between two layers, the cache holds these tokens in some of them only.
            self._cache = None
            raise
        return out.logits[0]  # type: ignore[no-any-return]

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept: none where the cache cannot be cut."""
        held = self._cache.get_seq_length() if self._cache is not None else 0
        if held <= length:
            return int(held)
        try:
            self._cache.crop(length - held)
        except (ValueError, NotImplementedError, AttributeError, RuntimeError):
            self._cache = None
            return 0
        return length

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def _spread(self, device_map: str) -> None:
        """Layers over several GPUs by accelerate: one GPU works at a time, which buys memory, not speed."""
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        unsplit = list(getattr(self._model, "_no_split_modules", None) or [])
        memory = get_balanced_memory(self._model, no_split_module_classes=unsplit) if device_map == "balanced" else None
        self._model = dispatch_model(self._model, infer_auto_device_map(self._model, memory, no_split_module_classes=unsplit))
        self._device = next(self._model.parameters()).device


def _build(folder: Path, tensors: Tensors, kind: Weights, device: torch.device, trust_remote_code: bool) -> nn.Module:
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with init_empty_weights(include_buffers=False):
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=compute_dtype(kind), trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, ImportError) as error:
        raise Mismatch(f"transformers cannot build the model in {folder.name}: {str(error).splitlines()[0]}") from error
    model.eval()
    if not _names_agree(model, tensors):
        tensors = _loaded_by_transformers(folder, tensors, kind, trust_remote_code)
    _fill(model, tensors, kind, device)
    return model


def _names_agree(model: nn.Module, tensors: Tensors) -> bool:
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name not in tied}
    return all(tensors.shapes.get(name) == shape for name, shape in wanted.items())


def _loaded_by_transformers(folder: Path, tensors: Tensors, kind: Weights, trust_remote_code: bool) -> Tensors:
    from transformers import AutoModelForCausalLM

    from llmchat.engines.transformers.weights import MergedTensors

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=compute_dtype(kind), trust_remote_code=trust_remote_code)
    loaded = MemoryTensors(dict(model.state_dict()))
    return MergedTensors(loaded, tensors.adapters) if isinstance(tensors, MergedTensors) else loaded


def _fill(model: nn.Module, tensors: Tensors, kind: Weights, device: torch.device) -> None:
    """Give every parameter its tensor, linears in their kind; the output head stays 16 bit, as bitsandbytes leaves it."""
    scratch = Scratch()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not head:
            bias = tensors.get(f"{path}.bias") if module.bias is not None else None
            _replace(model, path, make_linear(tensors.get(f"{path}.weight"), bias, kind, device, scratch))
    for path, parameter in list(model.named_parameters()):
        if parameter.is_meta and path in tensors.shapes:
            parent = model.get_submodule(path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], nn.Parameter(tensors.get(path).to(device, compute_dtype(kind)), requires_grad=False))
    model.tie_weights()  # type: ignore[operator]
    for buffer_path, buffer in list(model.named_buffers()):
        if buffer.device != device:
            parent = model.get_submodule(buffer_path.rpartition(".")[0])
            parent._buffers[buffer_path.rpartition(".")[2]] = buffer.to(device)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent = model.get_submodule(path.rpartition(".")[0])
    setattr(parent, path.rpartition(".")[2], module)
