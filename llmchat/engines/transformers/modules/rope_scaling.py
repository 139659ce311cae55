"""Rotary frequencies that change with the length of a text: longrope (Phi-3) at one border, dynamic NTK with every token beyond it.

Keys that were turned by other frequencies than a cold run would use are worth nothing: the text is read again.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """border: tokens up to which the trained frequencies hold; 0 where they always do. dynamic: beyond it each length has its own."""

    border: int = 0
    dynamic: bool = False

    def between(self, held: int, length: int, turned_at: int, begins: bool) -> bool:
        """Whether `held` tokens must be read again to go on to `length`. turned_at: the length with which the first of them were read;
        begins: a new prompt begins here, which a cold run would read at once."""
        if self.dynamic:
            return begins and turned_at != length and max(turned_at, length) > self.border
        return held <= self.border < length and self.border > 0

    def is_crossed(self, length: int, held: int) -> bool:
        """Whether what is left when `held` tokens are cut down to `length` was turned by other frequencies than it would be now."""
        return not self.dynamic and length <= self.border < held

    def prepare(self, model: Any) -> None:
        """Before a pass: forget the longest text that the model has seen, which transformers keeps for all texts together."""
        if not self.dynamic:
            return
        for module in model.modules():
            if hasattr(module, "original_max_seq_len") and hasattr(module, "original_inv_freq"):
                module.max_seq_len_cached = module.original_max_seq_len
                module.register_buffer(
                    "inv_freq",
                    module.original_inv_freq.to(module.inv_freq.device),
                    persistent=False,
                )


def turn_of(config: dict[str, Any]) -> Turn:
    """What a config.json says; it may be that of a multimodal model."""
    config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    found = config.get("rope_parameters") or config.get("rope_scaling")
    scaling: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("longrope", "su"):
        return Turn(
            int(
                scaling.get("original_max_position_embeddings")
                or config.get("original_max_position_embeddings")
                or 0
            )
        )
    return (
        Turn(int(config.get("max_position_embeddings") or 0), dynamic=True)
        if kind == "dynamic"
        else Turn()
    )
