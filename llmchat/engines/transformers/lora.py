"""Reads LoRA adapters: what they change, whether they fit the base, and how they change a weight.

A plain adapter (LoRA, rsLoRA, rank and alpha patterns) is merged tensor by tensor, W + scale * B @
A in float32, so that a model of any size is merged with the memory of one tensor. Anything else
(DoRA, trained embeddings, …) is left to peft, see `needs_peft`.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.checkpoint_names import is_transposed, modern_name
from llmchat.errors import IntegrityError, Mismatch
from llmchat.parse_guard import reading, shown

# `lora_A.weight` for a linear, `lora_embedding_A` for an embedding; an adapter's name may follow.
_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)"
    r"\.lora_(?:(?P<side>[AB])(?:\.\w+)?\.weight|embedding_(?P<table>[AB])(?:\.\w+)?)$"
)
# A tensor of the base that peft saves with a changed embedding, see `save_embedding_layers`.
_WHOLE = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+?)(?:\.base_layer)?\.weight$")


@dataclass(frozen=True)
class _Delta:
    """The change of a weight: scale * B @ A, transposed for an embedding [vocab, hidden]."""

    a: Tensor  # [rank, in], or [rank, vocab]
    b: Tensor  # [out, rank], or [hidden, rank]
    scale: float
    embedding: bool = False


class Adapter:
    """A plain LoRA adapter in memory (adapters are small); strength 1 is as trained.

    modules: the linears and embeddings it changes; whole: frozen weights of the base that peft
    saves with an adapter on an embedding or head. base: the config.json of the model it is put on,
    which decides how modules are called and laid out. Raises Mismatch for a tensor that it could
    not apply.
    """

    def __init__(self, folder: Path, strength: float = 1.0, base: dict[str, Any] | None = None):
        self.folder = folder
        self._strength = strength
        self._base = base or {}
        self.config = read_adapter_config(folder)
        self.whole: dict[str, Tensor] = {}
        with reading(f"the adapter {folder.name}"):
            self._deltas = self._read()

    @property
    def modules(self) -> list[str]:
        return list(self._deltas)

    @property
    def embeddings(self) -> list[str]:
        """The modules among them that are embeddings."""
        return [module for module, delta in self._deltas.items() if delta.embedding]

    def shape(self, module: str) -> tuple[int, int]:
        """Shape of the weight that this adapter is for: [out, in], or [in, out] of a Conv1D."""
        delta = self._deltas[module]
        shape = (delta.b.shape[0], delta.a.shape[1])
        return shape[::-1] if self._turned(module, delta) else shape

    def matrices(self, module: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
        """A [rank, in], B [out, rank] and the scale of a linear layer's change, scale * B @ A."""
        delta = self._deltas[module]
        return delta.a.to(dtype).contiguous(), delta.b.to(dtype).contiguous(), delta.scale

    def add_to(self, weight: Tensor, module: str) -> Tensor:
        """The weight with this adapter's change added in float32; unchanged if there is none."""
        weight = self.whole.get(f"{module}.weight", weight)
        delta = self._deltas.get(module)
        if delta is None:
            return weight
        change = delta.b.float() @ delta.a.float()
        return torch.add(
            weight.float(), change.T if self._turned(module, delta) else change, alpha=delta.scale
        )

    def _turned(self, module: str, delta: _Delta) -> bool:
        # As in peft, the layer decides: `fan_in_fan_out` of the config is that of the last layer
        # only.
        return delta.embedding or is_transposed(module, self._base)

    def _read(self) -> dict[str, _Delta]:
        path = self.folder / "adapter_model.safetensors"
        if not path.exists():
            raise IntegrityError(f"the adapter {self.folder.name} has no adapter_model.safetensors")
        sides: dict[str, dict[str, Tensor]] = {}
        tables: set[str] = set()
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                if match := _KEY.match(key):
                    # Without a name: it is outside the language model, such as in a vision tower.
                    if name := modern_name(match["module"], self._base):
                        sides.setdefault(name, {})[match["side"] or match["table"]] = (
                            file.get_tensor(key)
                        )
                        tables |= {name} if match["table"] else set()
                elif "lora_" not in key and (match := _WHOLE.match(key)):
                    self.whole |= self._whole_weight(match["module"], file.get_tensor(key))
                elif not needs_peft(self.config):
                    raise Mismatch(
                        f"the adapter {self.folder.name} holds `{key}`, which llmchat cannot apply",
                        "without it the adapter would answer differently from how it was trained",
                    )
        deltas = {
            module: self._delta(module, pair["A"], pair["B"], module in tables)
            for module, pair in sides.items()
            if len(pair) == 2
        }
        if not deltas:
            raise Mismatch(
                f"the adapter {self.folder.name} is empty: it holds no LoRA matrices",
                "its training did not save them; use another revision or another adapter",
            )
        if not any(delta.b.any() for delta in deltas.values()):
            raise Mismatch(
                f"the adapter {self.folder.name} changes nothing: all its B matrices are zero",
                "it was saved before it was trained; use another revision or another adapter",
            )
        return deltas

    def _delta(self, module: str, a: Tensor, b: Tensor, embedding: bool) -> _Delta:
        """Raises IntegrityError for matrices that cannot be multiplied, or hold NaN or infinity."""
        whose = f"the adapter {self.folder.name}, at `{shown(module)}`,"
        if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or not a.numel():
            raise IntegrityError(
                f"{whose} has matrices of {list(a.shape)} and {list(b.shape)},"
                " which cannot be multiplied"
            )
        if not (a.is_floating_point() and b.is_floating_point()):
            raise IntegrityError(
                f"{whose} has matrices of {a.dtype} and {b.dtype}, not of floating-point numbers"
            )
        scale = self._scale(module, a.shape[0])
        if not (math.isfinite(scale) and bool(a.isfinite().all()) and bool(b.isfinite().all())):
            raise IntegrityError(f"{whose} holds NaN or infinity")
        return _Delta(a, b, scale, embedding)

    def _whole_weight(self, module: str, tensor: Tensor) -> dict[str, Tensor]:
        name = modern_name(module, self._base)
        return {f"{name}.weight": tensor} if name else {}

    def _scale(self, module: str, rank: int) -> float:
        default = self.config.get("lora_alpha", rank)
        alpha = float(_by_pattern(self.config.get("alpha_pattern"), module, default))
        return self._strength * alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    if not (folder / "adapter_config.json").exists():
        raise Mismatch(f"{folder} is not a LoRA adapter: it has no adapter_config.json")
    return read_json(folder / "adapter_config.json")


def needs_peft(config: dict[str, Any]) -> bool:
    """Whether an adapter changes more than linear layers by matrices A and B.

    Fields of early-2023 files (enable_lora, merge_weights) do not matter.
    """
    special = (
        "use_dora",
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "use_qalora",
        "target_parameters",
        "lora_bias",
        "alora_invocation_tokens",
    )
    return (
        config.get("peft_type", "LORA") != "LORA"
        or config.get("bias", "none") != "none"
        or any(config.get(name) for name in special)
    )


def check(adapter: Adapter, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise Mismatch for an adapter of another base. shapes: of the base's weights, by name."""
    base = adapter.config.get("base_model_name_or_path") or "unknown"
    wanted_shapes = {
        name.removesuffix(".weight"): tuple(tensor.shape) for name, tensor in adapter.whole.items()
    }
    wanted_shapes |= {module: adapter.shape(module) for module in adapter.modules}
    name = adapter.folder.name
    for module, wanted in wanted_shapes.items():
        shape = shapes.get(f"{module}.weight")
        if shape is None:
            raise Mismatch(
                f"the adapter {name} changes `{module}`, which the base model does not have",
                f"it was trained on {base}",
            )
        if shape != wanted:
            raise Mismatch(
                f"the adapter {name} is for a base whose `{module}` is {wanted[0]} x {wanted[1]};"
                f" here it is {shape[0]} x {shape[1]}",
                f"it was trained on {base}",
            )


def _by_pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """peft's rule for rank_pattern and alpha_pattern: the first pattern that matches the end of the
    module's name.
    """
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
