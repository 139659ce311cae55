"""The frequencies of a rotary embedding, from the words of a config.json.

The scalings are those of transformers: linear, llama3, yarn (Peng et al. 2023), longrope (Ding et
al. 2024), proportional (Gemma 4), and Hunyuan's fixed NTK. Dynamic NTK, which has other frequencies
for each length of a text, has no plan.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    invalid,
    number,
    size,
)
from llmchat.errors import Mismatch

Scaling = Mapping[str, Any]


def scaling_of(config: Config) -> dict[str, Any]:
    """rope_scaling and rope_theta (old) or rope_parameters (new), with `rope_type`."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(found, dict):
        raise invalid("rope_scaling", found)
    scaling = dict(found)
    if scaling.get("rope_theta") is None:
        scaling["rope_theta"] = config.get("rope_theta") or 10000.0
    part = config.get("partial_rotary_factor")
    if scaling.get("partial_rotary_factor") is None and part is not None:
        scaling["partial_rotary_factor"] = part
    return _with_length(config, scaling)


def scaling_of_kind(
    config: Config, kind: str, theta: str = "", default: float = 10000.0
) -> dict[str, Any]:
    """The same for one kind of layers (`full_attention`, …), whose values rope_parameters may hold
    by kind.

    theta, default: the old key of its base frequency, and its value. Only layers with full
    attention have the old rope_scaling.
    """
    of_kinds = config.get("rope_parameters") or {}
    found = of_kinds.get(kind) if isinstance(of_kinds, dict) else None
    scaling = dict(found) if isinstance(found, dict) else {}
    if kind == "full_attention" and isinstance(config.get("rope_scaling"), dict):
        scaling |= config["rope_scaling"]
    if scaling.get("rope_theta") is None:
        scaling["rope_theta"] = config.get(theta) or default
    return _with_length(config, scaling)


def _with_length(config: Config, scaling: dict[str, Any]) -> dict[str, Any]:
    """With `rope_type` and the trained length, which transformers reads from the config first."""
    scaling.setdefault("rope_type", scaling.get("type") or "default")
    name = "original_max_position_embeddings"
    lengths = config.get(name), scaling.get(name), config.get("max_position_embeddings")
    scaling[name] = next((length for length in lengths if length is not None), None)
    return scaling


def rotary(
    config: Config,
    head_dim: int,
    scaling: Scaling | None = None,
    *,
    interleaved: bool = False,
    first: int = 0,
) -> Rotary:
    """The rotary embedding of heads of `head_dim` numbers, of which partial_rotary_factor turns.

    scaling: as from `scaling_of`, if not the config's own. Raises NoPlan for a kind that has no
    plan, Mismatch for numbers that give no finite frequencies.
    """
    scaling = scaling_of(config) if scaling is None else scaling
    kind = _kind(scaling)
    make = _KINDS.get(kind)
    if make is None:
        raise NoPlan(kind)
    part = number(scaling, "partial_rotary_factor", 1.0, least=0.0)
    width = head_dim if make is _proportional else int(head_dim * part)
    if width < 2 or width % 2 or width > head_dim:
        raise Mismatch(f"config.json: {width} of {head_dim} numbers of a head cannot be rotated")
    values = make(config, scaling, width)
    for name in ("frequencies", "long"):
        if name in values and not bool(torch.isfinite(values[name]).all()):
            raise Mismatch("config.json: rope_theta or rope_scaling gives invalid frequencies")
    return Rotary(**values, interleaved=interleaved, first=first)


def _kind(scaling: Scaling) -> str:
    kind = str(scaling.get("rope_type") or "default")
    return "fixed_ntk" if kind == "dynamic" and scaling.get("alpha") else kind


def _plain(scaling: Scaling, width: int) -> Tensor:
    theta = number(scaling, "rope_theta", 10000.0, least=0.0)
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    return 1.0 / theta**exponents


def _default(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    return {"frequencies": _plain(scaling, width)}


def _linear(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    return {"frequencies": _plain(scaling, width) / _required(scaling, "factor")}


def _llama3(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    frequencies = _plain(scaling, width)
    low, high = _required(scaling, "low_freq_factor"), _required(scaling, "high_freq_factor")
    trained = _required(scaling, "original_max_position_embeddings")
    wavelengths = 2 * math.pi / frequencies
    blend = ((trained / wavelengths - low) / (high - low)).clamp(0, 1)
    slow = (1 - blend) / _required(scaling, "factor")
    return {"frequencies": frequencies * (blend + slow)}


def _fixed_ntk(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    """Hunyuan's "dynamic" scaling, whose `alpha` makes it the same for every length of a text."""
    theta = number(scaling, "rope_theta", 10000.0, least=0.0)
    stretched = theta * _required(scaling, "alpha") ** (width / (width - 2))
    return {"frequencies": _plain(dict(scaling) | {"rope_theta": stretched}, width)}


def _proportional(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    part = number(scaling, "partial_rotary_factor", 1.0, least=0.0)
    turning = int(part * width // 2)
    frequencies = _plain(scaling, width)
    frequencies[turning:] = 0.0
    return {"frequencies": frequencies / number(scaling, "factor", 1.0)}


def _yarn(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    trained = _required(scaling, "original_max_position_embeddings")
    factor = _positive(scaling, "factor") or size(config, "max_position_embeddings") / trained
    plain = _plain(scaling, width)
    keeps = 1 - _ramp(scaling, width, trained)
    frequencies = plain / factor * (1 - keeps) + plain * keeps
    return {"frequencies": frequencies, "scale": _yarn_scale(scaling, factor)}


def _ramp(scaling: Scaling, width: int, trained: float) -> Tensor:
    """0 for frequencies that stay as they are, 1 for those that are divided by the factor."""
    theta = number(scaling, "rope_theta", 10000.0, least=0.0)
    if theta in (0, 1):
        raise invalid("rope_theta", theta)

    def turning(times: float) -> float:
        """The pair that turns so many times in the trained length."""
        return width * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = turning(_positive(scaling, "beta_fast") or 32)
    high = turning(_positive(scaling, "beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    high += 0.001 if low == high else 0
    return ((torch.arange(width // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)


def _yarn_scale(scaling: Scaling, factor: float) -> float:
    given = _positive(scaling, "attention_factor")
    if given is not None:
        return given
    mscale, all_dims = number(scaling, "mscale", 0.0), number(scaling, "mscale_all_dim", 0.0)
    if mscale and all_dims:
        return yarn_magnitude(factor, mscale) / yarn_magnitude(factor, all_dims)
    return yarn_magnitude(factor)


def yarn_magnitude(factor: float, mscale: float = 1.0) -> float:
    """How much YaRN enlarges scores that are stretched by `factor`, as a factor of each side."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _longrope(config: Config, scaling: Scaling, width: int) -> dict[str, Any]:
    longest = size(config, "max_position_embeddings")
    trained = int(_required(scaling, "original_max_position_embeddings"))
    if trained < 2:
        raise invalid("original_max_position_embeddings", trained)
    factor = _positive(scaling, "factor") or longest / trained
    scale = _positive(scaling, "attention_factor")
    if scale is None:
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(trained))
    plain = _plain(scaling, width)
    short, long = (plain / _factors(scaling, name, width) for name in ("short", "long"))
    return {
        "frequencies": short, "long": long, "scale": scale, "long_scale": scale, "trained": trained,
    }  # fmt: skip


def _factors(scaling: Scaling, kind: str, width: int) -> Tensor:
    values = scaling.get(f"{kind}_factor")
    if (
        not isinstance(values, list)
        or len(values) != width // 2
        or not all(type(value) in (int, float) for value in values)
    ):
        raise invalid(f"{kind}_factor", values)
    return torch.tensor(values, dtype=torch.float32)


def _required(scaling: Scaling, name: str) -> float:
    value = _positive(scaling, name)
    if value is None:
        raise invalid(name, value)
    return value


def _positive(scaling: Scaling, name: str) -> float | None:
    """A finite number above zero; None where it is missing or null."""
    value = number(scaling, name, 1.0)
    if value <= 0:
        raise invalid(name, value)
    return None if scaling.get(name) is None else value


_KINDS: dict[str, Callable[[Config, Scaling, int], dict[str, Any]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,
    "proportional": _proportional,
    "fixed_ntk": _fixed_ntk,
}
