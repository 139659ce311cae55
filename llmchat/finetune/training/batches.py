"""Examples to batches: rows of similar length, padded on the left.

The answers are then at the right edge, so the model's head is computed only there.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from llmchat.finetune.examples import IGNORED, Example

# The number of rows that are sorted by length: enough to avoid padding, few enough for a random
# order.
_POOL_BATCHES = 32
# Their state depends on every token, masked or not, so padding must come last.
_RECURRENT = ("rwkv", "mamba", "mamba2")


class LengthGrouped(Sampler[int]):
    """Indices that place rows of similar length together, in an order by seed and epoch."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, grouped: bool):
        self._lengths, self._batch, self._seed, self._grouped = lengths, batch, seed, grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer; a resumed run draws the same order for its epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order: list[int] = torch.randperm(len(self._lengths), generator=random).tolist()
        if not self._grouped:
            return iter(order)
        pool = self._batch * _POOL_BATCHES
        pools = (
            sorted(order[start : start + pool], key=self._lengths.__getitem__)
            for start in range(0, len(order), pool)
        )
        batches = [
            rows[start : start + self._batch]
            for rows in pools
            for start in range(0, len(rows), self._batch)
        ]
        shuffled: list[int] = torch.randperm(len(batches), generator=random).tolist()
        # An incomplete batch goes last; otherwise the batches after it would be cut elsewhere.
        shuffled.sort(key=lambda number: len(batches[number]) < self._batch)
        return iter([row for number in shuffled for row in batches[number]])


class Collator:
    """Examples to tensors for one forward pass; `tokens` counts them without padding.

    If the model supports it, only the last positions get logits: from the first learned token on.
    """

    def __init__(self, model: nn.Module, pad: int):
        parameters = inspect.signature(_innermost(model).forward).parameters
        self._pad = pad
        self._left = (
            "attention_mask" in parameters and _innermost(model).config.model_type not in _RECURRENT
        )
        self._partial = self._left and "logits_to_keep" in parameters
        self._positions = "position_ids" in parameters

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in rows)
        mask = torch.stack([self._row([1] * len(row["input_ids"]), longest, 0) for row in rows])
        labels = torch.stack([self._row(row["labels"], longest, IGNORED) for row in rows])
        batch: dict[str, Any] = {
            "input_ids": torch.stack(
                [self._row(row["input_ids"], longest, self._pad) for row in rows]
            )
        }
        if self._left:
            batch["attention_mask"] = mask
        if self._positions:
            batch["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        if self._partial:
            learnt = (labels != IGNORED).any(0).nonzero()
            # The logits for a token are those of the position before it; the first label is never
            # predicted.
            keep = longest - max(0, int(learnt[0]) - 1) if len(learnt) else 1
            # As indices, not as a number: a slice of the hidden states is not contiguous and would
            # copy the whole head for each row.
            batch["logits_to_keep"] = torch.arange(longest - keep, longest)
            labels = labels[:, longest - keep :].clone()
        labels[:, 0] = IGNORED
        return batch | {"labels": labels, "tokens": sum(len(row["input_ids"]) for row in rows)}

    def _row(self, values: list[int], width: int, filling: int) -> Tensor:
        padding = [filling] * (width - len(values))
        return torch.tensor([*padding, *values] if self._left else [*values, *padding])


def loss_of(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy of the learned tokens, divided by their number in the whole step."""
    logits, wanted = outputs.logits[:, :-1], labels[:, 1:]
    learnt = wanted != IGNORED
    total = nn.functional.cross_entropy(logits[learnt].float(), wanted[learnt], reduction="sum")
    return total / (learnt.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


def rows_of(examples: Sequence[Example]) -> list[dict[str, list[int]]]:
    return [{"input_ids": example.ids, "labels": example.labels} for example in examples]


def _innermost(model: nn.Module) -> Any:
    """The model itself, without peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
