"""Makes the structures of csrc/model.h of a plan and its tensors, which `refs` keeps alive."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad, softplus

from llmchat.engines.transformers.compiled import structs
from llmchat.engines.transformers.compiled.latent import LatentParts
from llmchat.engines.transformers.compiled.matrices import MatrixLoader
from llmchat.engines.transformers.compiled.recurrent import (
    RECURRENT,
    RecurrentLoader,
    heads_struct,
    supports_recurrent,
)
from llmchat.engines.transformers.compiled.streams import (
    STREAMS,
    StreamLoader,
    supports_streams,
)
from llmchat.engines.transformers.compiled.structs import (
    LANES,
    MAX_HEAD_DIM,
    MAX_SHARED_HEADS,
    SPAN,
    Matrix,
    TensorRefs,
)
from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Activation, Block, Linear
from llmchat.engines.transformers.families.blocks import Norm as NormPlan
from llmchat.engines.transformers.families.check import linears_of
from llmchat.engines.transformers.families.distance import DistanceBias
from llmchat.engines.transformers.families.plan import Plan, Step
from llmchat.engines.transformers.pytorch.int8 import finite
from llmchat.engines.transformers.tensors import Tensors

# The order of the enumerations in model.h.
_KINDS: tuple[type[Any], ...] = (
    blocks.Attention,
    blocks.Mlp,
    *RECURRENT,
    blocks.Experts,
    blocks.LayerInput,
    blocks.LatentAttention,
    *STREAMS,
    blocks.Memory,
)
_SEES = ("before", "all", "memory", "context")
_COUNTS = ("all", "context", "answer")
_SCORES = ("softmax", "softmax_of_top", "sigmoid")
_ACTIVATIONS: tuple[Activation, ...] = (
    "silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu", "clamped_swiglu",
)  # fmt: skip


def supports(plan: Plan) -> bool:
    """Whether csrc computes exactly what the plan describes."""
    return plan.norm is not None and all(map(_supports_step, plan.steps())) and _is_even(plan)


def _is_even(plan: Plan) -> bool:
    """Whether all attention of an encoder, which share their keys and values, are of one size."""
    found = (block for block in plan.blocks() if isinstance(block, blocks.Attention))
    sizes = {(one.keys, one.values) for one in found if one.sees == "all"}
    return len(sizes) <= 1


def _supports_step(step: Step) -> bool:
    block = step.block
    if isinstance(block, blocks.Attention):
        has_vectors = _has_vectors(block.keys.width, block.values.width)
        return has_vectors and block.queries.count // block.keys.count <= MAX_SHARED_HEADS
    if isinstance(block, blocks.LatentAttention):
        return _has_vectors(block.plain, block.value_width, block.latent, block.rotary.width)
    if isinstance(block, blocks.Experts):
        return step.norm is None or not any(block.norms)
    if isinstance(block, blocks.Memory):
        return _has_vectors(block.keys.width, block.values.width)
    if isinstance(block, blocks.Mlp):
        return block.cutoff is None or (len(block.inputs) == 2 and block.gate_scale == 1)
    return supports_recurrent(step) or supports_streams(step)


def _has_vectors(*widths: int) -> bool:
    """Whether heads of these widths are whole vectors that csrc has memory for."""
    return all(width % LANES == 0 and width <= MAX_HEAD_DIM for width in widths)


class BlockLoader:
    """Structures of one model. Its tensors are read one after the other."""

    def __init__(self, plan: Plan, tensors: Tensors, refs: TensorRefs):
        self._plan, self._tensors, self._refs = plan, tensors, refs
        self._rotaries: list[blocks.Rotary] = []
        self._matrices = MatrixLoader(tensors, refs)
        self._parts = LatentParts(refs, self._matrices)
        self._linears = 0
        self._distances: dict[str, int] = {}
        self._recurrent = RecurrentLoader(tensors, refs, self)
        self._streams = StreamLoader(self)

    def model(self) -> structs.Model:
        plan = self._plan
        array = self._blocks()
        layer_inputs = self._layer_inputs()
        rotaries = (structs.Rotary * len(self._rotaries))(*map(self._rotary, self._rotaries))
        embedding, head = plan.embedding, plan.head
        # In this order: a tied head is packed once.
        tokens, last = self._matrices.tokens(plan), self._matrices.head(plan)
        return structs.Model(
            len(array), plan.encoder.block_count if plan.encoder else 0, self._linears,
            plan.hidden, plan.vocabulary, len(rotaries),
            None if tokens.weight else self._matrices.embedding(plan),
            self._positions(), self._refs.keep(rotaries), array,
            self.norm(embedding.norm), self.norm(plan.norm), last, tokens,
            embedding.scale, head.scale, head.softcap, layer_inputs,
        )  # fmt: skip

    def _blocks(self) -> "ctypes.Array[structs.Block]":
        found: list[structs.Block] = []
        for layer in self._plan.all_layers:
            for stage in layer.stages:
                for index, step in enumerate(stage):
                    found.append(self._block(step, len(found)))
                    found[-1].saves = len(stage) > 1 and index == 0
                    found[-1].reads_saved = index > 0
            if layer.factor:
                found[-1].factor *= float(self._tensors.get(layer.factor))
        return (structs.Block * len(found))(*found)

    def _block(self, step: Step, number: int) -> structs.Block:
        first, own = self._linears, linears_of(step.block)
        self._linears += len(own)
        details, inputs = self._details(step.block, number)
        reorders = isinstance(step.block, blocks.Attention | blocks.Mlp)
        matrices = (Matrix * len(own))(*self._matrices.of_block(own, inputs, reorders))
        return structs.Block(
            _KINDS.index(type(step.block)), first, len(own), inputs, self._refs.keep(matrices),
            self._refs.keep(details), self.norm(step.norm), self.norm(step.post_norm),
            self.norm(step.stream_norm), step.scale, step.factor,
        )  # fmt: skip

    def _details(self, block: Block, number: int) -> tuple[ctypes.Structure, int]:
        """The details of a block, and the number of its linears that share their input."""
        if isinstance(block, RECURRENT):
            return self._recurrent.details(block)
        if isinstance(block, STREAMS):
            return self._streams.details(block), 1
        makers: dict[type[Any], Callable[[Any, int], tuple[ctypes.Structure, int]]] = {
            blocks.Attention: self._attention,
            blocks.LatentAttention: self._latent,
            blocks.Memory: self._memory,
            blocks.Mlp: self._mlp,
            blocks.LayerInput: self._layer_input,
            blocks.Experts: self._experts,
        }
        return makers[type(block)](block, number)

    def _attention(self, block: blocks.Attention, number: int) -> tuple[structs.Attention, int]:
        position = block.position_scale or blocks.PositionScale(0.0, 1.0)
        none = structs.Heads()
        details = structs.Attention(
            sum(linear.out for linear in block.inputs),
            heads_struct(block.queries), heads_struct(block.keys), heads_struct(block.values),
            heads_struct(block.gates) if block.gates else none,
            self.norm(block.query_norm), self.norm(block.key_norm), self.norm(block.value_norm),
            self._number_of(block.rotary), self._number_of(block.second_rotary),
            self._cache_of(block, number),
            block.window, block.chunk, _SEES.index(block.sees), *self._biases_of(block),
            block.scale, block.softcap, block.clip,
            position.beta, position.length, position.shift,
            block.norms_rotated, block.shares is not None,
        )  # fmt: skip
        return details, len(block.inputs)

    def _latent(
        self, block: blocks.LatentAttention, number: int
    ) -> tuple[structs.LatentAttention, int]:
        """A row holds queries, then the one key, which begins with its values."""
        width, rotary = block.latent + block.rotary.width, self._parts.rotary(block)
        keys = block.heads * width
        attention = blocks.Attention(
            (), block.output, blocks.Heads(block.heads, width, 0, width),
            blocks.Heads(1, width, keys, width), blocks.Heads(1, block.latent, keys, width),
            block.scale, rotary=rotary,
        )  # fmt: skip
        details, _ = self._attention(attention, number)
        details.width = keys + width
        norms = self.norm(block.query_norm), self.norm(block.latent_norm)
        sizes = block.plain, block.value_width
        return structs.LatentAttention(details, *norms, *sizes, *self._parts.matrices(block)), 1

    def _memory(self, block: blocks.Memory, number: int) -> tuple[structs.Attention, int]:
        width = sum(linear.out for linear in block.inputs)
        details = structs.Attention(
            width, structs.Heads(), heads_struct(block.keys), heads_struct(block.values)
        )
        details.rotary = details.second_rotary = -1
        details.cache = number
        return details, len(block.inputs)

    def _cache_of(self, block: blocks.Attention, number: int) -> int:
        """The block whose keys and values it uses: in an encoder, which forgets them, the first."""
        if block.sees == "all":
            return scratch_of(self._plan)
        return number if block.shares is None else block.shares

    def _mlp(self, block: blocks.Mlp, number: int) -> tuple[structs.Mlp, int]:
        cuts = block.cutoff is not None
        return structs.Mlp(self.activation(block), block.cutoff or 0, cuts), len(block.inputs)

    def _experts(self, block: blocks.Experts, number: int) -> tuple[structs.Experts, int]:
        one, shared, router = block.experts[0], block.shared, block.router
        count, gate = len(block.experts), block.shared_gate
        has_bias = router.bias in self._tensors.shapes
        details = structs.Experts(
            self.float_matrix(router),
            self.floats(router.bias if has_bias else None, count),
            self.floats(block.correction, count), self.floats(block.expert_scale, count),
            self.float_matrix(gate) if gate else None,
            count, block.top, one.output.in_, len(one.inputs),
            shared.output.in_ if shared else 0, len(shared.inputs) if shared else 0,
            _SCORES.index(block.score), block.groups, block.top_groups, block.group_members,
            self.activation(one), self.activation(shared or one), *map(self.norm, block.norms),
            block.sum_offset, block.factor, block.normalised, block.weights_input,
        )  # fmt: skip
        return details, 0

    def float_matrix(self, linear: Linear) -> int:
        weight = finite(self._tensors.get(linear.weight).float(), linear.weight).contiguous()
        return self._refs.pointer(weight, torch.float32, linear.shape, linear.weight)

    def _layer_input(self, block: blocks.LayerInput, number: int) -> tuple[structs.LayerInput, int]:
        kind = structs.Activation(_ACTIVATIONS.index(block.activation), 0.0, 1.0, 1.0)
        scale = self.floats(block.scale, block.gate.in_)
        norm = self.norm(block.stream_norm)
        return structs.LayerInput(block.number * block.width, kind, scale, norm), 1

    def _layer_inputs(self) -> int | None:
        inputs = self._plan.layer_inputs
        if inputs is None:
            return None
        self._linears += 1
        table = self._tensors.get(inputs.embedding).to(torch.bfloat16).contiguous()
        shape = inputs.vocabulary, inputs.linear.out
        address = self._refs.pointer(table, torch.bfloat16, shape, inputs.embedding)
        matrix = self._matrices.matrix(inputs.linear)
        found = structs.LayerInputs(
            address, inputs.vocabulary, matrix, self.norm(inputs.norm),
            inputs.scale, inputs.linear_scale, inputs.factor,
        )  # fmt: skip
        return self._refs.keep(found)

    def activation(self, mlp: blocks.Mlp) -> structs.Activation:
        a, b = mlp.limit, mlp.alpha
        if mlp.activation == "xielu":
            above, below = (self._tensors.get(name).float() for name in mlp.parameters)
            a, b = float(softplus(above)), 0.5 + float(softplus(below))
        return structs.Activation(_ACTIVATIONS.index(mlp.activation), a, b, mlp.gate_scale)

    def norm(self, norm: NormPlan | None) -> structs.Norm:
        if norm is None:
            return structs.Norm()
        group = norm.group or norm.width
        weight, bias = torch.full((group,), norm.scale), None
        if norm.weight:
            stored = finite(self._tensors.get(norm.weight).float(), norm.weight).flatten()
            weight = (stored + norm.offset) * norm.scale
        if norm.bias:
            bias = finite(self._tensors.get(norm.bias).float(), norm.bias).flatten() * norm.scale
        shape = (group,) if len(weight) == group else (norm.width,)
        address = self._refs.pointer(weight, torch.float32, shape, norm.weight or "a norm")
        shift = None
        if bias is not None:
            shift = self._refs.pointer(bias, torch.float32, shape, norm.bias or "a norm")
        return structs.Norm(
            address, shift, norm.width, group, norm.epsilon, norm.kind == "layer",
            shape != (norm.width,),
        )  # fmt: skip

    def _positions(self) -> int | None:
        """The learned positions from the one of the first token on."""
        embedding = self._plan.embedding
        if embedding.positions is None:
            return None
        stored = finite(self._tensors.get(embedding.positions).float(), embedding.positions)
        rows = stored[embedding.offset :].contiguous()
        shape = embedding.position_count - embedding.offset, self._plan.hidden
        return self._refs.pointer(rows, torch.float32, shape, embedding.positions)

    def _number_of(self, rotary: blocks.Rotary | None) -> int:
        """Its place in the model's list; -1 for none."""
        if rotary is None:
            return -1
        if rotary not in self._rotaries:
            self._rotaries.append(rotary)
        return self._rotaries.index(rotary)

    def _rotary(self, rotary: blocks.Rotary) -> structs.Rotary:
        half = len(rotary.frequencies)
        short, long = (
            None if values is None else self._refs.pointer(values, torch.float32, (half,))
            for values in (rotary.frequencies, rotary.long)
        )
        return structs.Rotary(
            short, long, half, rotary.first, rotary.scale, rotary.long_scale, rotary.interleaved,
            _COUNTS.index(rotary.counts),
        )  # fmt: skip

    def _biases_of(self, block: blocks.Attention) -> tuple[int, int | None, int | None, int | None]:
        """The reach of distances, then addresses of what is added to the scores of each head."""
        heads, bias, slopes = block.queries.count, block.distance_bias, None
        if block.slopes is not None:
            slopes = self._refs.pointer(block.slopes, torch.float32, (heads,))
        reach, distances = (bias.reach, self._distances_of(bias, heads)) if bias else (0, None)
        return reach, self.floats(block.sinks, heads), slopes, distances

    def _distances_of(self, bias: DistanceBias, heads: int) -> int:
        """Layers that share a bias share its table, which is a span wider at both ends."""
        if bias.weight not in self._distances:
            weight = finite(self._tensors.get(bias.weight).float(), bias.weight)
            table = pad(bias.table(weight), (SPAN, SPAN - 1), mode="replicate").contiguous()
            shape = heads, 2 * (bias.reach + SPAN)
            address = self._refs.pointer(table, torch.float32, shape, bias.weight)
            self._distances[bias.weight] = address
        return self._distances[bias.weight]

    def floats(self, name: str | None, count: int) -> int | None:
        if name is None:
            return None
        values = finite(self._tensors.get(name).float(), name).flatten().contiguous()
        return self._refs.pointer(values, torch.float32, (count,), name)


def scratch_of(plan: Plan) -> int:
    """The number of the block under which an encoder keeps the keys and values of a pass."""
    is_inner = (isinstance(one, blocks.Attention) and one.sees == "all" for one in plan.blocks())
    return list(is_inner).index(True)


def adapter_linears(plan: Plan) -> Sequence[Linear]:
    """The linears of a model in the order in which csrc numbers them, the head last."""
    own = [linear for block in plan.blocks() for linear in linears_of(block)]
    shared = [plan.layer_inputs.linear] if plan.layer_inputs else []
    return [*own, *shared, plan.head.linear]
