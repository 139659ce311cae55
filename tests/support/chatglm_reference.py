"""ChatGLM, the first and the later ones, from the formulas of the paper (Du et al. 2022) and of the
published models, a whole text at a time.

transformers has no such model. The classes are registered with it, so that tests save, load and
adapt the reference like any other model; the engine needs none of this.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast


class ChatGlmConfig(PretrainedConfig):
    model_type = "chatglm"
    attribute_map = {"num_hidden_layers": "num_layers"}


class LayerNorm(nn.LayerNorm):
    """Named so that tests find the last one."""


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt())


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """q, k, v: [T, heads, width]; seen: bool [T, T]. → [T, heads * width]"""
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).flatten(1)


# The first ChatGLM


def positions(ids: Tensor, start: int) -> tuple[Tensor, Tensor, int]:
    """Both counters of each token, and the length of the context, which ends before `start`.

    In the answer the first counter stays at the last token of the context, which is [gMASK], and
    the second one counts from 1 on.
    """
    found = (ids == start).nonzero()
    context = int(found[0]) if len(found) else 0
    index = torch.arange(len(ids))
    return index.clamp(max=max(context - 1, 0)), (index - context + 1).clamp(min=0), context


def turned(x: Tensor, counter: Tensor) -> Tensor:
    """Rotates the halves of x, [T, heads, width]. The frequencies have 16 bits."""
    width = x.shape[-1]
    frequencies = 1.0 / 10000 ** (torch.arange(0, width, 2).float() / width)
    angles = counter[:, None, None] * frequencies.half().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)


class FirstAttention(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.query_key_value, self.dense = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, counters: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        q, k, v = self.query_key_value(x).unflatten(-1, (self.heads, -1)).chunk(3, -1)
        q, k = (
            torch.cat(
                [turned(part, one) for part, one in zip(y.chunk(2, -1), counters, strict=True)], -1
            )
            for y in (q, k)
        )
        out: Tensor = self.dense(attend(q, k, v, seen))
        return out


class FirstMlp(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        width, inner = config.hidden_size, config.inner_hidden_size
        self.dense_h_to_4h, self.dense_4h_to_h = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x), approximate="tanh"))
        return out


class FirstLayer(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (
            LayerNorm(config.hidden_size, eps=config.layernorm_epsilon) for _ in range(2)
        )
        self.attention, self.mlp = FirstAttention(config), FirstMlp(config)
        self.alpha = (2 * config.num_layers) ** 0.5

    def forward(self, x: Tensor, counters: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        x = self.input_layernorm(x)
        x = self.post_attention_layernorm(self.alpha * x + self.attention(x, counters, seen))
        return self.alpha * x + self.mlp(x)


class FirstBody(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(FirstLayer(config) for _ in range(config.num_layers))
        self.final_layernorm = LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.start = config.bos_token_id

    def forward(self, ids: Tensor) -> Tensor:
        *counters, context = positions(ids, self.start)
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        seen[:, :context] = True
        x = self.word_embeddings(ids)
        for layer in self.layers:
            x = layer(x, counters, seen)
        out: Tensor = self.final_layernorm(x)
        return out


# ChatGLM2, ChatGLM3 and GLM-4


def turned_neighbours(x: Tensor, theta: float) -> Tensor:
    """Rotates neighbours of the first half of x, [T, heads, width]."""
    width = x.shape[-1] // 2
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2).float() / width)
    angles = torch.arange(len(x))[:, None, None] * frequencies.to(x.dtype)
    a, b = x[..., :width:2], x[..., 1:width:2]
    pairs = a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()
    return torch.cat((torch.stack(pairs, -1).flatten(-2), x[..., width:]), -1)


class LaterAttention(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.heads, self.dim = config.num_attention_heads, config.kv_channels
        self.groups = config.multi_query_group_num if config.multi_query_attention else 0
        self.theta = 10000 * getattr(config, "rope_ratio", 1)
        own = self.heads * self.dim
        out = own + 2 * self.groups * self.dim if self.groups else 3 * own
        has_biases = config.add_bias_linear or config.add_qkv_bias
        self.query_key_value = nn.Linear(config.hidden_size, out, bias=has_biases)
        self.dense = nn.Linear(own, config.hidden_size, bias=config.add_bias_linear)

    def forward(self, x: Tensor) -> Tensor:
        row = self.query_key_value(x)
        if self.groups:
            sizes = [count * self.dim for count in (self.heads, self.groups, self.groups)]
            q, k, v = (part.unflatten(-1, (-1, self.dim)) for part in row.split(sizes, -1))
            k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (k, v))
        else:
            q, k, v = row.unflatten(-1, (self.heads, -1)).chunk(3, -1)
        q, k = turned_neighbours(q, self.theta), turned_neighbours(k, self.theta)
        out: Tensor = self.dense(attend(q, k, v, torch.ones(len(x), len(x)).tril().bool()))
        return out


class LaterMlp(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        width, inner, bias = config.hidden_size, config.ffn_hidden_size, config.add_bias_linear
        self.dense_h_to_4h = nn.Linear(width, 2 * inner, bias=bias)
        self.dense_4h_to_h = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.dense_h_to_4h(x).chunk(2, -1)
        out: Tensor = self.dense_4h_to_h(F.silu(gate) * up)
        return out


def later_norm(config: Any) -> nn.Module:
    return (RmsNorm if config.rmsnorm else LayerNorm)(config.hidden_size, config.layernorm_epsilon)


class LaterLayer(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (later_norm(config) for _ in "ab")
        self.self_attention, self.mlp = LaterAttention(config), LaterMlp(config)
        self.keeps_normed = config.apply_residual_connection_post_layernorm

    def forward(self, x: Tensor) -> Tensor:
        for norm, block in (
            (self.input_layernorm, self.self_attention),
            (self.post_attention_layernorm, self.mlp),
        ):
            y = norm(x)
            x = (y if self.keeps_normed else x) + block(y)
        return x


class LaterBody(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        words = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.embedding = nn.ModuleDict({"word_embeddings": words})
        layers = nn.ModuleList(LaterLayer(config) for _ in range(config.num_layers))
        last = later_norm(config)
        self.encoder = nn.ModuleDict({"layers": layers, "final_layernorm": last})
        head = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False)
        self.output_layer = head

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding["word_embeddings"](ids)
        for layer in self.encoder["layers"]:
            x = layer(x)
        out: Tensor = self.encoder["final_layernorm"](x)
        return out


class ChatGlmForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = ChatGlmConfig
    base_model_prefix = "transformer"

    def __init__(self, config: Any):
        super().__init__(config)
        self.is_later = hasattr(config, "padded_vocab_size")
        self.transformer = (LaterBody if self.is_later else FirstBody)(config)
        if not self.is_later:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Tests give each tensor its numbers."""

    def get_input_embeddings(self) -> nn.Module:
        body: Any = self.transformer
        found: nn.Module = (
            body.embedding["word_embeddings"] if self.is_later else body.word_embeddings
        )
        return found

    def get_output_embeddings(self) -> nn.Module:
        found: Any = self.transformer.output_layer if self.is_later else self.lm_head
        return found  # type: ignore[no-any-return]

    def prepare_inputs_for_generation(self, input_ids: Tensor, **others: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, **others: Any) -> CausalLMOutputWithPast:
        head: Any = self.get_output_embeddings()
        logits = [head(self.transformer(ids)) for ids in input_ids]
        return CausalLMOutputWithPast(logits=torch.stack(logits))


AutoConfig.register("chatglm", ChatGlmConfig)
AutoModelForCausalLM.register(ChatGlmConfig, ChatGlmForCausalLM)
