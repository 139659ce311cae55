"""Loads a checkpoint: checks that it fits, opens its tensors and chooses the executor for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmchat.engines.checkpoint_files import context_of, read_json
from llmchat.engines.guide import Guides
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.transformers import compiled, memory_check
from llmchat.engines.transformers.bitsandbytes_format import is_int8
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.executor import Forward
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.cache_shapes import bytes_of_token, cache_shapes
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.modules import self_test
from llmchat.engines.transformers.modules.causal import ModulesForward
from llmchat.engines.transformers.prepared_checkpoint import open_prepared
from llmchat.engines.transformers.pytorch import cuda, forward
from llmchat.engines.transformers.pytorch.encoder_decoder import TorchEncoderDecoder
from llmchat.engines.transformers.quantised.few_bits import in_few_bits
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.tied_heads import with_ties
from llmchat.engines.transformers.vocabulary import vocabulary_of
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import UsageError
from llmchat.memory_estimate import kv_bytes
from llmchat.parse_guard import reading
from llmchat.prompt import Prompt
from llmchat.settings.types import KvKind, Weights

# What transformers raises for a model that it cannot build or fill.
_BUILD_ERRORS = (
    KeyError, IndexError, TypeError, AttributeError, AssertionError, NotImplementedError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What to load. base: a checkpoint's folder; adapters: merged into it, the last one with
    `adapter_scale`. See TransformersEngine for `prepared`, `kernels`, `proven` and `kv`.
    """

    base: Path
    adapters: Sequence[Path]
    weights: Weights
    device: torch.device
    adapter_scale: float = 1.0
    trust_remote_code: bool = False
    prepared: Path | None = None
    kernels: Path | None = None
    proven: Path | None = None
    kv: KvKind = "full"


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory. config: its config.json in today's words; shapes: of its tensors;
    guides: enforce the structure of its answers; token_bytes: of a token in its cache.
    """

    tokens: Tokenizer
    guides: Guides
    forward: Forward
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    context: int
    token_bytes: int


def load(source: Source) -> LoadedModel:
    """Raises OutOfResources for a model that cannot fit, and Mismatch for one that cannot run."""
    base = source.base
    with reading(f"the model in {base.name}"):
        tokens = Tokenizer(base)
        config, context = modern_config(read_json(base / "config.json")), context_of(base)
        raw = _open(source, config)
        config = with_ties(config, raw.untied)
        plan = _plan(source, config, raw)
        _check_kv(source, config, plan)
        tensors = raw if plan is None else viewed(config, raw)
        mapped = source.weights in ("int8", "int4") and (
            source.prepared is not None or (is_int8(config) and not source.adapters)
        )
        stored = _stored(tensors) if plan is not None and _kernels(source, config) else {}
        memory_check.check(tensors.shapes, source.weights, source.device, mapped, config, stored)
        with memory_check.reported(), torch.inference_mode():
            if plan is not None and source.weights == "int4" and not source.prepared:
                tensors = in_few_bits(plan, tensors, base)
            executor = _executor(source, config, plan, tensors)
    if isinstance(executor, ModulesForward):
        ids = tokens.encode(Prompt(self_test.TEXT, ()))
        self_test.check(executor, ids, str(config.get("model_type")), source.proven)
    shapes, one = _shapes(raw, tensors), kv_bytes(config, 1)
    if plan is not None:
        one = bytes_of_token(cache_shapes(plan), executor.dtype.itemsize, source.kv)
    count = vocabulary_of(shapes) or int(config.get("vocab_size") or 0)
    return LoadedModel(tokens, Guides(tokens, count), executor, config, shapes, context, one)


def _stored(tensors: Tensors) -> dict[str, int]:
    """Bytes of the weights that the compiled step reads as their file has them."""
    sizes = {name: tensors.stored_size(name) for name in tensors.shapes}
    return {name: size for name, size in sizes.items() if size is not None}


def _shapes(raw: Tensors, tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Of the tensors that the executor reads: as in the file where it has that name, since adapters
    are for those.
    """
    return {name: raw.shapes.get(name, shape) for name, shape in tensors.shapes.items()}


def device_named(name: str) -> torch.device:
    """The device `name`; "auto" is the GPU if there is one. Raises UsageError for a missing one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"there is no device `{name}`", "cpu, cuda, cuda:1 and mps are devices"
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type):
        raise UsageError(
            f"the device `{name}` is not available: torch does not see it",
            "--device cpu runs without one",
        )
    return device


def _open(source: Source, config: dict[str, Any]) -> Tensors:
    if source.prepared:
        return open_prepared(source.prepared, config)
    return open_tensors(source.base, source.adapters, source.adapter_scale)


def _plan(source: Source, config: dict[str, Any], tensors: Tensors) -> Plan | None:
    """The plan that an executor of ours runs; None for transformers' modules."""
    plan = plan_of(config)
    if plan is None or not (forward.supports(plan) or _kernels(source, config)):
        return None
    spread = _spread_over_gpus(tensors.shapes, source.weights, source.device)
    return plan if spread is None else None


def _check_kv(source: Source, config: dict[str, Any], plan: Plan | None) -> None:
    """Raise UsageError for a KV cache that the executor of this model does not have."""
    if source.kv == "full":
        return
    way = "--kv full stores keys and values as the model computes them"
    if source.device.type != "cpu":
        raise UsageError(f"--kv {source.kv} is not supported on {source.device}", way)
    if plan is None:
        kind = config.get("model_type")
        raise UsageError(
            f"--kv {source.kv} is not supported for `{kind}`: transformers' modules run it", way
        )


def _executor(
    source: Source, config: dict[str, Any], plan: Plan | None, tensors: Tensors
) -> Forward:
    """The fastest executor that runs this architecture on this device."""
    if plan is not None:
        return _of_plan(source, config, plan, tensors)
    if config.get("is_encoder_decoder"):
        from llmchat.engines.transformers.modules.encoder_decoder import EncoderDecoderForward

        return EncoderDecoderForward(source.base, config, tensors, source.weights, source.device)
    spread = _spread_over_gpus(tensors.shapes, source.weights, source.device)
    try:
        return ModulesForward(
            source.base, config, tensors, source.weights, source.device, spread,
            source.trust_remote_code,
        )  # fmt: skip
    except _BUILD_ERRORS as error:
        raise self_test.refusal(str(config.get("model_type")), error) from error


def _kernels(source: Source, config: dict[str, Any]) -> Kernels | None:
    """The compiled step, where it runs this model."""
    on_cpu = source.weights in ("int8", "int4") and source.device.type == "cpu"
    if not source.kernels or not on_cpu or not compiled.supports(config):
        return None
    return compiled.find_kernels(source.kernels)


def _of_plan(source: Source, config: dict[str, Any], plan: Plan, tensors: Tensors) -> Forward:
    if kernels := _kernels(source, config):
        compiled_executor = compiled.CompiledForward
        if plan.encoder:
            compiled_executor = compiled.CompiledEncoderDecoder
        return compiled_executor(config, tensors, kernels, source.kv)
    executor: type[forward.TorchForward] = forward.TorchForward
    if plan.encoder:
        executor = TorchEncoderDecoder
    elif source.weights != "fp32" and cuda.usable(source.device) and cuda.is_plain(plan):
        from llmchat.engines.transformers.pytorch.cuda.graphs import CudaForward

        return CudaForward(plan, tensors, source.weights, source.device)
    return executor(plan, tensors, source.weights, source.device, source.kv)


def _spread_over_gpus(
    shapes: dict[str, tuple[int, ...]], weights: Weights, device: torch.device
) -> str | None:
    """ "balanced" if the model is too large for one of several GPUs and none was named."""
    if device.type != "cuda" or device.index is not None or torch.cuda.device_count() < 2:
        return None
    too_large = memory_check.needed(shapes, weights) > torch.cuda.mem_get_info(0)[0]
    return "balanced" if too_large else None
