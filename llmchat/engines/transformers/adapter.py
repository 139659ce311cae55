"""LoRA adapters as files: what they change, whether they fit the base, and their share of a weight.

A plain adapter (LoRA, rsLoRA, rank and alpha patterns) is merged tensor by tensor: W + scale * B @ A in float32, so that a model of any
size is merged with the memory of one tensor. Whatever goes beyond that (DoRA, trained embeddings, …) is left to peft, see `needs_peft`.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from llmchat.engines.transformers.layout import is_transposed, modern_name
from llmchat.errors import IntegrityError, Mismatch

_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight$")


@dataclass(frozen=True)
class _Delta:
    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    scale: float


class Adapter:
    """A plain LoRA adapter in memory (adapters are small). `modules` names the linears it changes; strength 1 is as trained.

    base: the config.json of the model it is put on, which decides how modules are called and laid out.
    """

    def __init__(self, folder: Path, strength: float = 1.0, base: dict[str, Any] | None = None):
        self.folder = folder
        self._strength = strength
        self._base = base or {}
        self.config = read_adapter_config(folder)
        self._deltas = self._read()

    @property
    def modules(self) -> list[str]:
        return list(self._deltas)

    def shape(self, module: str) -> tuple[int, int]:
        """Shape of the weight that this adapter was made for: [out, in], or [in, out] of a Conv1D."""
        delta = self._deltas[module]
        shape = (delta.b.shape[0], delta.a.shape[1])
        return shape[::-1] if is_transposed(module, self._base) else shape

    def matrices(self, module: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
        """A [rank, in], B [out, rank] and their scale: the change of a linear layer is scale * B @ A."""
        delta = self._deltas[module]
        return delta.a.to(dtype).contiguous(), delta.b.to(dtype).contiguous(), delta.scale

    def add_to(self, weight: Tensor, module: str) -> Tensor:
        """weight + this adapter's change of it, in float32; the weight itself where the adapter leaves it alone."""
        delta = self._deltas.get(module)
        if delta is None:
            return weight
        change = delta.b.float() @ delta.a.float()
        # The layer decides, as in peft: `fan_in_fan_out` of the config tells it of the last layer only.
        return torch.add(weight.float(), change.T if is_transposed(module, self._base) else change, alpha=delta.scale)

    def _read(self) -> dict[str, _Delta]:
        path = self.folder / "adapter_model.safetensors"
        if not path.exists():
            raise IntegrityError(f"the adapter {self.folder.name} has no adapter_model.safetensors")
        sides: dict[str, dict[str, Tensor]] = {}
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                match = _KEY.match(key)
                name = modern_name(match["module"], self._base) if match else None
                if match and name:
                    sides.setdefault(name, {})[match["side"]] = file.get_tensor(key)
        deltas = {
            module: _Delta(pair["A"], pair["B"], self._scale(module, pair["A"].shape[0]))
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

    def _scale(self, module: str, rank: int) -> float:
        alpha = float(_by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", rank)))
        return self._strength * alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Mismatch(f"{folder} is not a LoRA adapter: it has no adapter_config.json") from error
    except ValueError as error:
        raise IntegrityError(f"{folder / 'adapter_config.json'} is not valid JSON: {error}") from error
    return config


def needs_peft(config: dict[str, Any]) -> bool:
    """Whether an adapter is more than matrices A and B beside linears. Fields of early-2023 files (enable_lora, merge_weights) say nothing."""
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
    return config.get("peft_type", "LORA") != "LORA" or config.get("bias", "none") != "none" or any(config.get(name) for name in special)


def check(adapter: Adapter, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse an adapter that was made for another base. shapes: of every weight of the base, by tensor name."""
    base = adapter.config.get("base_model_name_or_path") or "unknown"
    for module in adapter.modules:
        shape = shapes.get(f"{module}.weight")
        if shape is None:
            raise Mismatch(
                f"the adapter {adapter.folder.name} changes `{module}`, which the base model does not have", f"it was trained on {base}"
            )
        wanted = adapter.shape(module)
        if shape != wanted:
            raise Mismatch(
                f"the adapter {adapter.folder.name} is for a base whose `{module}` is {wanted[0]} x {wanted[1]}; here it is {shape[0]} x {shape[1]}",
                f"it was trained on {base}",
            )


def _by_pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """peft's rule for rank_pattern and alpha_pattern: the first pattern that is the end of the module's name."""
    return next((value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", module)), default)
