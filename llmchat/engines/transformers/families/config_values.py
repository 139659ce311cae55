"""Values of a config.json, checked. Everything here raises Mismatch for a value that is invalid."""

from collections.abc import Mapping
from typing import Any

from llmchat.errors import Mismatch

Config = Mapping[str, Any]

# Larger than in any model, and small enough for 32 bits.
_MAX_SIZE = 2**31 - 1
_MAX_NUMBER = 1e30
# A plan has an object for each layer and each expert.
_MAX_LAYERS, _MAX_EXPERTS, _MAX_OBJECTS = 1_000, 5_000, 200_000
_LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layers", "n_layer")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class NoPlan(Exception):
    """The config is valid, but the blocks cannot express what it asks for."""


def check_counts(config: Config) -> None:
    """Raise Mismatch for more layers and experts than a plan should be made of."""
    layers, experts = (
        max([config[name] for name in names if type(config.get(name)) is int], default=1)
        for names in (_LAYERS, _EXPERTS)
    )
    if layers > _MAX_LAYERS or experts > _MAX_EXPERTS or layers * experts > _MAX_OBJECTS:
        raise Mismatch(
            f"config.json: {layers:,} layers of {experts:,} experts are more than any model has"
            if experts > 1
            else f"config.json: {layers:,} layers are more than any model has"
        )


def with_defaults(
    config: Config, defaults: Config, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The config with its family's values for the keys that are missing. names: old key → the key
    by which plans know it.
    """
    renamed = {new: config[old] for old, new in (names or {}).items() if old in config}
    return {**defaults, **config, **renamed}


def size(config: Config, name: str, default: int | None = None) -> int:
    """A positive integer. default: for a key that is missing or null."""
    value = config.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_SIZE:
        raise invalid(name, value)
    return value


def count(config: Config, name: str, default: int = 0) -> int:
    """An integer of at least zero; null and a missing key are `default`."""
    return 0 if config.get(name) == 0 else size(config, name, default)


def number(config: Config, name: str, default: float, least: float = -_MAX_NUMBER) -> float:
    """A number that is not below `least`, and that a float32 holds."""
    value = config.get(name)
    if value is None:
        return default
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= _MAX_NUMBER:
        raise invalid(name, value)
    return float(value)


def epsilon(config: Config, name: str = "rms_norm_eps", default: float = 1e-6) -> float:
    return number(config, name, default, least=0.0)


def flag(config: Config, name: str, default: bool = False) -> bool:
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(name, value)
    return value


def names(config: Config, name: str, length: int) -> list[str] | None:
    """A list of so many strings (`layer_types`); None where it is missing or null."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise invalid(name, value)
    if len(value) < length:
        raise Mismatch(f"config.json: `{name}` has {len(value)} entries for {length} layers")
    return value[:length]


def sizes(config: Config, name: str) -> list[int]:
    """A list of integers that are not negative; empty where it is missing or null."""
    value = config.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise invalid(name, value)
    return value


def numbers(config: Config, name: str) -> list[float]:
    """A list of numbers that a float32 holds; empty where it is missing or null."""
    value = config.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(one) in (int, float) for one in value):
        raise invalid(name, value)
    return [number({name: one}, name, 0.0) for one in value]


def check_divides(part: int, whole: int, what: str) -> None:
    """Raise Mismatch unless `part` divides `whole`."""
    if whole % part:
        raise Mismatch(f"config.json: {part} does not divide {whole} ({what})")


def invalid(name: str, value: Any) -> Mismatch:
    text = repr(value)
    return Mismatch(
        f"config.json: invalid `{name}`: {text if len(text) <= 40 else text[:40] + '…'}"
    )
