"""Rotary frequencies that depend on the length of a text: longrope (Phi-3) and dynamic NTK.

Longrope has other frequencies beyond the trained length, dynamic NTK for every length beyond it.
Keys that were rotated by other frequencies than a cold run would use cannot be reused: the text is
read again.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RopeScaling:
    """trained_length: up to which the frequencies are fixed; 0 if they always are.

    dynamic: beyond it each length has its own.
    """

    trained_length: int = 0
    dynamic: bool = False

    def must_reread(self, held: int, length: int, rotated_at: int, is_new_prompt: bool) -> bool:
        """Whether `held` tokens must be read again before the text grows to `length`.

        rotated_at: the length with which the first of them were read. is_new_prompt: a cold run
        would read all of the text at once.
        """
        if self.dynamic:
            has_changed = rotated_at != length and max(rotated_at, length) > self.trained_length
            return is_new_prompt and has_changed
        return held <= self.trained_length < length and self.trained_length > 0

    def is_crossed(self, length: int, held: int) -> bool:
        """Whether cutting `held` tokens down to `length` leaves keys of other frequencies."""
        return not self.dynamic and length <= self.trained_length < held

    def prepare(self, model: Any) -> None:
        """Before a pass: reset the longest text seen, which transformers keeps for all texts."""
        if not self.dynamic:
            return
        for module in model.modules():
            if hasattr(module, "original_max_seq_len") and hasattr(module, "original_inv_freq"):
                module.max_seq_len_cached = module.original_max_seq_len
                original = module.original_inv_freq.to(module.inv_freq.device)
                module.register_buffer("inv_freq", original, persistent=False)


def rope_scaling_of(config: dict[str, Any]) -> RopeScaling:
    """The scaling in a config.json, which may be that of a multimodal model."""
    config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    found = config.get("rope_parameters") or config.get("rope_scaling")
    scaling: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("longrope", "su"):
        key = "original_max_position_embeddings"
        return RopeScaling(int(scaling.get(key) or config.get(key) or 0))
    if kind == "dynamic":
        return RopeScaling(int(config.get("max_position_embeddings") or 0), dynamic=True)
    return RopeScaling()
