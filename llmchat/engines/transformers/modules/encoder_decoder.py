"""Runs encoder-decoders (T5): the encoder reads the whole prompt, and the decoder writes the
answer.

In the encoder every token attends to every other one, so nothing of an earlier prompt can be
reused. Only the same prompt, asked again, is already encoded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.live_lora import Switch
from llmchat.engines.transformers.modules.hf_modules import build
from llmchat.engines.transformers.pytorch.linear import compute_dtype
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import Weights


class EncoderDecoderForward(Forward):
    """A transformers encoder-decoder as an executor. The first read of a text is the prompt for the
    encoder, the next ones are the answer in the decoder.
    """

    separate_encoder = True

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Tensors,
        kind: Weights,
        device: torch.device,
    ):
        self.dtype = compute_dtype(kind)
        self._device = device
        self._switch = Switch()
        self._model = build(folder, config, tensors, kind, device, switch=self._switch)
        _hide_packed_weights(self._model)
        start = config.get("decoder_start_token_id")
        self._start: int = config.get("pad_token_id") or 0 if start is None else start

    def new_cache(self) -> "EncodedCache":
        return EncodedCache(self._model, self._start, self._device)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        logits = []
        for sequence in sequences:
            self._switch.active = sequence.adapters
            logits.append(sequence.cache.read(sequence.ids, sequence.all_logits))
        return logits


class EncodedCache:
    """An encoded prompt, and the keys and values of the answer so far."""

    def __init__(self, model: Any, start: int, device: torch.device):
        self.length = 0
        self._model = model
        self._start = start
        self._device = device
        self._prompt: list[int] = []
        self._encoded: Any = None
        self._cache: Any = None

    def read(self, ids: list[int], all_logits: bool) -> Tensor:
        from transformers import DynamicCache, EncoderDecoderCache

        try:
            if self._cache is None:
                self._encode(ids)
                self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
                tokens = [self._start]
            else:
                tokens = ids
            out = self._model(
                encoder_outputs=self._encoded,
                decoder_input_ids=torch.tensor([tokens], device=self._device),
                past_key_values=self._cache,
                use_cache=True,
            )
        except BaseException:
            self._cache, self.length = None, 0
            raise
        self.length += len(ids)
        logits: Tensor = out.logits[0]
        return logits if all_logits else logits[-1:]

    def truncate(self, length: int) -> int:
        """Forget all tokens: a longer prompt is another one. Returns 0.

        The encoded prompt stays, in case the same one comes again.
        """
        self._cache, self.length = None, 0
        return 0

    def _encode(self, ids: list[int]) -> None:
        if ids != self._prompt or self._encoded is None:
            self._encoded = None
            self._encoded = self._model.get_encoder()(
                input_ids=torch.tensor([ids], device=self._device)
            )
            self._prompt = list(ids)


class _Packed(nn.Module):
    """A linear layer without a visible weight."""

    weight = None

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def _hide_packed_weights(model: nn.Module) -> None:
    """Hide packed 4-bit weights from T5, which casts activations to the type of the weight `wo`."""
    for module in list(model.modules()):
        layer = getattr(module, "wo", None)
        if (
            isinstance(layer, nn.Module)
            and isinstance(getattr(layer, "weight", None), Tensor)
            and layer.weight.dtype == torch.uint8
        ):
            module.wo = _Packed(layer)
