"""The two ends of a model in torch: from token ids to rows, and from rows to logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families.plan import LayerInputs, Plan
from llmchat.engines.transformers.live_lora import Part, add_live
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.passes import Pass


class TorchEmbedding:
    """int64 ids [T] → [T, hidden]. table: [vocabulary, hidden] in the type of activations."""

    def __init__(self, plan: Plan, load: Loader):
        self.table = load.plain(plan.embedding.weight)
        self._embedding = plan.embedding
        positions = plan.embedding.positions
        self._positions = load.plain(positions) if positions else None
        self._norm = load.norm(plan.embedding.norm)

    def __call__(self, ids: Tensor, batch: Pass) -> Tensor:
        x = F.embedding(ids, self.table)
        if self._embedding.scale != 1:
            x = x * self._embedding.scale
        if self._positions is not None:
            x = x + F.embedding(batch.positions + self._embedding.offset, self._positions)
        return x if self._norm is None else self._norm(x)


class TorchLayerInputs:
    """See plan.LayerInputs. Ids [T] and the embedded rows [T, hidden] → [T, layers, width]."""

    def __init__(self, inputs: LayerInputs, load: Loader):
        self._inputs = inputs
        # As large as all other weights together: its rows are converted when they are used.
        self._table = load.stored(inputs.embedding)
        self._linear = load.joined([inputs.linear])
        self._norm = load.norm(inputs.norm)

    def __call__(self, ids: Tensor, x: Tensor) -> Tensor:
        inputs = self._inputs
        known = torch.where(ids < inputs.vocabulary, ids, 0)
        own = F.embedding(known, self._table).to(x.dtype) * inputs.scale
        of_row = self._linear(x) * inputs.linear_scale
        of_row = of_row if self._norm is None else self._norm(of_row)
        width = inputs.norm.group or inputs.norm.width
        return ((own + of_row) * inputs.factor).unflatten(-1, (-1, width))


class TorchHead:
    """Rows [T, hidden], before the last norm → logits [T, vocabulary]."""

    def __init__(self, plan: Plan, load: Loader, embedding: Tensor):
        head = plan.head
        # A tied head keeps the embedding's type: an 8-bit copy would take memory, and save none.
        self.weight = embedding if head.is_tied else load.plain(head.linear.weight)
        bias = None if head.is_tied else load.bias([head.linear])
        self.bias = None if bias is None else bias.to(load.device, load.dtype)
        self.norm = load.norm(plan.norm)
        self._head = head
        self._parts, self._switch = [Part(head.linear.module, len(self.weight))], load.switch

    def __call__(self, x: Tensor) -> Tensor:
        x = x if self.norm is None else self.norm(x)
        logits = F.linear(x, self.weight, self.bias)
        add_live(logits, x, self._parts, self._switch)
        if self._head.scale != 1:
            logits = logits * self._head.scale
        if self._head.softcap:
            logits = self._head.softcap * (logits / self._head.softcap).tanh()
        return logits
