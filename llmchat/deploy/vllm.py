"""Build the `vllm serve` command of a preset.

Flags and rules are those of vLLM 0.32, from its source and from runs of its CPU build.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.deploy.facts import ServedModel
from llmchat.deploy.sizing import Layout
from llmchat.engines import Sampling
from llmchat.engines.parameter_names import PARAMETER_NAMES
from llmchat.errors import Mismatch
from llmchat.settings.sampling import DISTRIBUTION

VERSION = "0.32.0"
# vllm/config/lora.py, MaxLoRARanks: the ranks that --max-lora-rank may have.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# vllm/lora/peft_helper.py: what an adapter may not use. The value is what makes it plain.
_PLAIN: dict[str, Any] = {
    "use_dora": False,
    "lora_bias": False,
    "use_qalora": False,
    "bias": "none",
}
_EMPTY = ("modules_to_save", "layer_replication", "alora_invocation_tokens", "use_bdlora")
_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
# vllm/model_executor/models/registry.py has no place for these.
_REFUSED = {
    "rwkv": "vLLM has no recurrent RWKV models",
    "rwkv7": "vLLM has no recurrent RWKV models",
    "mpt": "vLLM dropped MPT after 0.28",
}
# What vLLM reads from a generation config (ModelConfig.get_diff_sampling_param).
_DEFAULTS = (*DISTRIBUTION, "repetition_penalty")


class Request(Struct, frozen=True):
    """What the user asked for.

    lora: adapters stay live; model: otherwise the folder of the merged checkpoint; code: whether
    the checkpoint may run Python code of its own.
    """

    lora: bool
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str = "auto"
    model: str = ""
    flags: tuple[str, ...] = ()
    code: bool = False


def check_served(name: str, architecture: str, config: Mapping[str, Any]) -> None:
    """Raise Mismatch for a model that vLLM does not run.

    config: {} if only the preset's architecture is known.
    """
    reason = next(
        (line for family, line in _REFUSED.items() if architecture.lower().startswith(family)), ""
    )
    if config.get("is_encoder_decoder") or architecture.startswith(("T5", "MT5", "UMT5", "Bart")):
        reason = f"vLLM runs no encoder-decoders such as {architecture or 'this one'}"
    if reason:
        raise Mismatch(
            f"{name} cannot be served by vLLM: {reason}",
            "`llmchat chat` and `llmchat serve` run it",
        )


def lora_problem(served: ServedModel) -> str:
    """Why the adapters cannot stay live in vLLM, in words; "" when they can."""
    if len(served.adapters) > 1:
        return "vLLM puts one adapter on a request, and this preset stacks several"
    if served.preset.adapter_scale != 1:
        return "vLLM cannot scale an adapter"
    return next(
        (problem for part in served.adapters if (problem := _config_problem(part.config))), ""
    )


def _config_problem(config: Mapping[str, Any]) -> str:
    if config.get("peft_type", "LORA") != "LORA":
        return f"vLLM puts on LoRA alone, and this is {config['peft_type']}"
    wrong = [name for name, plain in _PLAIN.items() if config.get(name, plain) not in (plain, None)]
    wrong += [name for name in _EMPTY if config.get(name)]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in _INITS:
        wrong.append(f"init_lora_weights={start}")
    if rank_of(config) > RANKS[-1]:
        wrong.append(f"rank {rank_of(config)}")
    return f"vLLM has no {', '.join(wrong)} in an adapter" if wrong else ""


def rank_of(config: Mapping[str, Any]) -> int:
    """The largest rank of an adapter's matrices."""
    return max(int(config.get("r") or 0), *map(int, (config.get("rank_pattern") or {}).values()), 0)


def largest_rank(models: Sequence[ServedModel]) -> int:
    """--max-lora-rank for these adapters: the largest rank, rounded up to one that vLLM knows."""
    rank = max(rank_of(part.config) for served in models for part in served.adapters)
    return next(size for size in RANKS if size >= rank)


def sampling_defaults(sampling: Sampling) -> dict[str, float]:
    """A preset's sampling as vLLM's generation config.

    Complete, so that none of the checkpoint's values apply. Without a length, which would limit
    every request.
    """
    names = PARAMETER_NAMES["vllm"]
    return {names[ours]: getattr(sampling, ours) for ours in _DEFAULTS}


def engine_arguments(
    models: Sequence[ServedModel], request: Request, layout: Layout, folder: Path
) -> dict[str, Any]:
    """Flag → value of the engine, by vLLM's names, in the order of the printed command.

    True: a flag without a value.
    """
    first = models[0]
    values: dict[str, Any] = {}
    if not request.model and first.base.revision:
        values["revision"] = first.base.revision
    if request.code:
        values["trust-remote-code"] = True
        if "revision" in values:
            # vLLM would run the newest code of the repo instead of the code of these weights.
            values["code-revision"] = first.base.revision
    if request.dtype != "auto":
        values["dtype"] = request.dtype
    if first.context:
        values["max-model-len"] = first.context
    values |= {
        "tokenizer": str(folder / "tokenizer"),
        "chat-template": str(folder / "chat_template.jinja"),
    }
    values["generation-config"] = str(folder)
    values["override-generation-config"] = sampling_defaults(first.preset.sampling)
    if request.lora:
        values |= {
            "enable-lora": True,
            "max-lora-rank": largest_rank(models),
            "max-loras": len(models),
        }
    if layout.tensor > 1:
        values["tensor-parallel-size"] = layout.tensor
    if layout.pipeline > 1:
        values |= {"pipeline-parallel-size": layout.pipeline, "distributed-executor-backend": "ray"}
    if layout.data > 1:
        values["data-parallel-size"] = layout.data
    return values


def command(
    models: Sequence[ServedModel],
    request: Request,
    layout: Layout,
    folder: Path,
    program: str = "vllm",
) -> list[str]:
    """The whole command, one argument an entry."""
    first = models[0]
    words = [
        program,
        "serve",
        request.model or first.base.place,
        "--host",
        request.host,
        "--port",
        str(request.port),
    ]
    words += ["--served-model-name", first.base.title if request.lora else first.preset.name]
    for name, value in engine_arguments(models, request, layout, folder).items():
        words += (
            [f"--{name}"]
            if value is True
            else [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
        )
    if request.lora:
        words += [
            "--lora-modules",
            *(json.dumps(module) for module in lora_modules(models, folder)),
        ]
    return [*words, *request.flags]


def lora_modules(models: Sequence[ServedModel], folder: Path) -> list[dict[str, str]]:
    """Each preset's adapter by the preset's name: a copy in `folder`, or its repo."""
    modules = []
    for served in models:
        part = served.adapters[0]
        path = str(folder / "adapters" / served.preset.name) if part.here else part.place
        modules.append(
            {"name": served.preset.name, "path": path, "base_model_name": served.base.title}
        )
    return modules


def check_together(models: Sequence[ServedModel]) -> None:
    """Raise Mismatch unless the presets share base and format, and each has an adapter."""
    first, *others = models
    for other in others:
        if (other.base.place, other.base.revision) != (first.base.place, first.base.revision):
            raise Mismatch(
                f"{first.preset.name} and {other.preset.name} are of different bases",
                "one server each",
            )
        if other.preset.format != first.preset.format or other.preset.system != first.preset.system:
            raise Mismatch(
                f"{first.preset.name} and {other.preset.name} have different prompt formats;"
                " a server has one chat template",
                "one server each",
            )
    for served in models if others else ():
        if not served.adapters:
            raise Mismatch(
                f"{served.preset.name} has no adapter: it is served as {served.base.title}",
                "leave it out",
            )
