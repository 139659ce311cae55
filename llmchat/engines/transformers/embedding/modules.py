"""Encoders that have no blocks of ours, and all those on a GPU: transformers' own modules."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers import memory_check
from llmchat.engines.transformers.embedding.packed import Packed


class ModulesEncoder:
    """Pads the texts of a batch. See encoder.Encoder."""

    def __init__(self, folder: Path, device: str):
        from transformers import AutoModel

        with memory_check.reported():
            model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        self._device = torch.device(device)
        self._model: Any = model.eval().to(self._device)
        self.width = int(model.config.hidden_size)

    def hidden(self, packed: Packed) -> Tensor:
        """The vector of each token, [T, width]."""
        rows = packed.padded(packed.ids[:, None, None])[:, 0, :, 0]
        mask = packed.inside.long()
        output = self._model(input_ids=rows.to(self._device), attention_mask=mask.to(self._device))
        hidden: Tensor = output.last_hidden_state[packed.inside.to(self._device)]
        return hidden.cpu()
