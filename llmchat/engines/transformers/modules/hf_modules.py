"""Builds a model of transformers with its linears replaced by ours.

If the checkpoint's tensor names are those of the module tree, the tree is built without weights and
filled tensor by tensor, which needs little memory. Otherwise (fused experts) transformers loads the
whole model first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmchat.engines.transformers.live_lora import AdaptedLinear, Part, Switch
from llmchat.engines.transformers.modules.auto_classes import (
    auto_class,
    language_part,
    load_whole,
    quiet,
    settings_of,
)
from llmchat.engines.transformers.modules.quantisable import (
    quantisable,
    shared_weights,
    sixteen_bit,
)
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer
from llmchat.engines.transformers.pytorch.linear import compute_dtype, int8_linear, make_linear
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.tied_heads import HEAD, embedding_of, with_ties
from llmchat.engines.transformers.weights import (
    MemoryTensors,
    MergedTensors,
    RenamedTensors,
)
from llmchat.errors import Mismatch
from llmchat.settings.types import Weights

# Exponents of exponents: in 16 bits they would change how long an RWKV model remembers.
_EXACT = ("time_decay", "time_first")


def build(
    folder: Path,
    config: dict[str, Any],
    tensors: Tensors,
    kind: Weights,
    device: torch.device,
    trust: bool = False,
    *,
    switch: Switch,
) -> Any:
    """The model in `folder`, filled with `tensors` on `device`, ready to run.

    config: its config.json in today's words. trust: run code of the checkpoint. switch: selects the
    live adapters. Raises Mismatch for an architecture that transformers does not support.
    """
    with quiet():
        model = _skeleton(folder, config, kind, trust, tensors)
        if not _names_agree(model, tensors):
            tensors = _loaded_whole(folder, config, tensors, kind, trust)
            if not _names_agree(model, tensors):
                raise Mismatch(
                    f"the weights in {folder.name} are not those of {type(model).__name__}"
                )
        _fill(model, tensors, kind, device, switch)
    return model


@dataclass(frozen=True)
class Outline:
    """What an int8 copy of a model consists of.

    linears: groups of quantised modules, each group used as one matrix. plain: every other tensor
    with its type. head: the module that computes the logits. config: the config.json. shared:
    transformers and bitsandbytes quantise the same linears. skipped: linears that stay in 16 bits.
    """

    linears: list[list[str]]
    plain: dict[str, torch.dtype]
    head: str
    config: dict[str, Any]
    shared: bool = True
    skipped: tuple[str, ...] = ()


def outline(folder: Path, config: dict[str, Any], tensors: Tensors, trust: bool = False) -> Outline:
    """The outline of the model that transformers builds from `folder`.

    Raises Mismatch if its files do not hold the tensors of the module tree.
    """
    from transformers.pytorch_utils import Conv1D

    with quiet():
        model = _skeleton(folder, config, "int8", trust, tensors)
        settings = settings_of(folder, config, trust)
    if not _names_agree(model, tensors):
        raise Mismatch(
            f"transformers assembles the tensors of {type(model).__name__} while it loads them"
        )
    head = next(
        (name for name, module in model.named_modules() if module is model.get_output_embeddings()),
        "",
    )
    modules = quantisable(model)
    linears = [name for name in modules if f"{name}.weight" in tensors.shapes]
    quantised = {f"{name}.weight" for name in linears}
    saved = set(model.state_dict())
    plain = {
        name: plain_dtype(name, "int8")
        for name, _ in model.named_parameters(remove_duplicate=False)
    }
    plain |= {name: buffer.dtype for name, buffer in model.named_buffers() if name in saved}
    # transformers replaces exactly these, and none that a family wants in fp32 (of T5: wo).
    exact = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    shared = all(
        type(modules[name]) in (nn.Linear, Conv1D) and not any(part in name for part in exact)
        for name in linears
    )
    inner = language_part(settings)
    return Outline(
        [[name] for name in linears],
        {
            name: dtype
            for name, dtype in plain.items()
            if name in tensors.shapes and name not in quantised
        },
        head,
        with_ties(config if inner is settings else inner.to_dict(), tensors.untied),
        shared,
        tuple(name for name in sixteen_bit(model) if name != head),
    )


def _skeleton(
    folder: Path, config: dict[str, Any], kind: Weights, trust: bool, tensors: Tensors
) -> Any:
    """The module tree without weights.

    The tensors, not config.json, decide whether head and embedding are two matrices.
    """
    from accelerate import init_empty_weights

    try:
        settings = language_part(settings_of(folder, config, trust))
        if tensors.untied:
            settings.tie_word_embeddings = False
        elif (
            "text_config" in config and HEAD not in tensors.shapes and embedding_of(tensors.shapes)
        ):
            # Two parts of a multimodal config may disagree.
            settings.tie_word_embeddings = True
        with init_empty_weights(include_buffers=False):
            model = auto_class(config).from_config(
                settings, dtype=compute_dtype(kind), trust_remote_code=trust
            )
    except (ValueError, KeyError, ImportError) as error:
        raise Mismatch(
            f"transformers cannot build the model in {folder.name}: {str(error).splitlines()[0]}"
        ) from error
    return model.eval()


def _names_agree(model: nn.Module, tensors: Tensors) -> bool:
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    wanted = {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if name not in tied
    }
    return all(tensors.shapes.get(name) == shape for name, shape in wanted.items())


def _loaded_whole(
    folder: Path, config: dict[str, Any], tensors: Tensors, kind: Weights, trust: bool
) -> Tensors:
    model = load_whole(folder, config, compute_dtype(kind), trust)
    loaded = RenamedTensors(MemoryTensors(dict(model.state_dict())), config)
    return (
        MergedTensors(loaded, tensors.adapters, config)
        if isinstance(tensors, MergedTensors)
        else loaded
    )


def _fill(
    model: Any, tensors: Tensors, kind: Weights, device: torch.device, switch: Switch
) -> None:
    """Give every parameter its tensor, linears as `kind`. The output head stays in 16 bits, as in
    bitsandbytes.
    """
    saved = model.state_dict()
    for path, buffer in list(model.named_buffers()):
        if path in saved and path in tensors.shapes:
            _owner(model, path)._buffers[path.rpartition(".")[2]] = tensors.get(path).to(
                buffer.dtype
            )
    _fill_linears(model, tensors, kind, device, switch)
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        if parameter.is_meta and path in tensors.shapes:
            _set(
                model,
                path,
                nn.Parameter(
                    tensors.get(path).to(device, plain_dtype(path, kind)), requires_grad=False
                ),
            )
    # Two matrices that config.json ties and the file holds both are tied only if they are equal:
    # the config of T5 1.1 is wrong.
    missing = {
        path
        for path, _ in model.named_parameters(remove_duplicate=False)
        if path not in tensors.shapes
    }
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear):
        path = next(name for name, module in model.named_modules() if module is head)
        _set(model, path, AdaptedLinear(head, [Part(path, head.out_features)], switch))
    for path, buffer in list(model.named_buffers()):
        _owner(model, path)._buffers[path.rpartition(".")[2]] = buffer.to(device)


def _fill_linears(
    model: Any, tensors: Tensors, kind: Weights, device: torch.device, switch: Switch
) -> None:
    """Replace the linears by our layers; those that share a weight share a layer."""
    from transformers.pytorch_utils import Conv1D

    scratch, made, tied = DequantBuffer(), dict[str, AdaptedLinear](), shared_weights(model)
    for path, module in quantisable(model).items():
        source = (
            path
            if f"{path}.weight" in tensors.shapes
            else tied.get(f"{path}.weight", "").removesuffix(".weight")
        )
        if source not in made:
            made[source] = _layer(
                source,
                isinstance(module, Conv1D),
                module.bias is not None,
                tensors,
                kind,
                device,
                scratch,
                switch,
            )
        _set(model, path, made[source])
        for name in ("weight", "bias"):
            # transformers would look for their parameters.
            model.all_tied_weights_keys.pop(f"{path}.{name}", None)


def _layer(
    name: str,
    turned: bool,
    has_bias: bool,
    tensors: Tensors,
    kind: Weights,
    device: torch.device,
    scratch: DequantBuffer,
    switch: Switch,
) -> AdaptedLinear:
    """A linear layer of the checkpoint. turned: its weight is stored as [in, out]."""
    bias = tensors.get(f"{name}.bias") if has_bias else None
    pair = tensors.int8(f"{name}.weight") if kind == "int8" else None
    if pair is not None:
        layer = int8_linear(*pair, bias, device, scratch)
    else:
        weight = tensors.get(f"{name}.weight")
        layer = make_linear(
            weight.T.contiguous() if turned else weight, bias, kind, device, scratch
        )
    return AdaptedLinear(
        layer, [Part(name, tensors.shapes[f"{name}.weight"][1 if turned else 0])], switch
    )


def plain_dtype(name: str, kind: Weights) -> torch.dtype:
    """The type of a parameter other than the weight of a linear."""
    return torch.float32 if name.endswith(_EXACT) else compute_dtype(kind)


def _set(model: nn.Module, path: str, value: nn.Module | nn.Parameter) -> None:
    setattr(_owner(model, path), path.rpartition(".")[2], value)


def _owner(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path.rpartition(".")[0])
