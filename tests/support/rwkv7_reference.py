"""RWKV-7 token by token, from the formulas of the paper (Peng et al. 2025, section 4).

transformers has no such model. The classes are registered with it, so that tests save, load and
adapt the reference like any other model; the engine needs none of this. A text is read anew for
each token of an answer.
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


class Rwkv7Config(PretrainedConfig):
    model_type = "rwkv7"


class LowRank(nn.Module):
    """high(between(low(x))), in the names of flash-linear-attention."""

    def __init__(self, width: int, rank: int, between: nn.Module, bias: bool = True):
        super().__init__()
        low, high = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=bias)
        self.lora = nn.Sequential(low, between, high)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lora(x)
        return out


class TimeMixing(nn.Module):
    """Equations 3 to 21 of the paper, for the rows of one text [T, width]."""

    def __init__(self, config: Any, index: int):
        super().__init__()
        width, self.head = config.hidden_size, config.head_dim
        for name in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g"):
            setattr(self, name, nn.Parameter(torch.full((1, 1, width), 0.5)))
        self.k_k, self.k_a = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.r_k = nn.Parameter(torch.zeros(width // self.head, self.head))
        for name in "rkvo":
            setattr(self, f"{name}_proj", nn.Linear(width, width, bias=False))
        self.w_lora = LowRank(width, config.decay_low_rank_dim, nn.Tanh())
        self.a_lora = LowRank(width, config.a_low_rank_dim, nn.Identity())
        self.g_lora = LowRank(width, config.gate_low_rank_dim, nn.Sigmoid(), bias=False)
        if index:
            self.v_lora = LowRank(width, config.v_low_rank_dim, nn.Identity())
        epsilon = self.head * config.norm_eps
        self.g_norm = nn.GroupNorm(width // self.head, width, eps=epsilon)

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """Also returns the values of the first layer."""
        before = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
        mixed = {name: torch.lerp(x, before, getattr(self, f"x_{name}")[0]) for name in "rwkvag"}
        r, k, v = (getattr(self, f"{name}_proj")(mixed[name]) for name in "rkv")
        w = torch.exp(-torch.exp(torch.tensor(-0.5)) * self.w_lora(mixed["w"]).sigmoid())
        a = self.a_lora(mixed["a"]).sigmoid()
        first = v if first is None else first
        if hasattr(self, "v_lora"):
            v = v + self.v_lora(mixed["v"]).sigmoid() * (first - v)
        removed = F.normalize((k * self.k_k).unflatten(-1, (-1, self.head)), dim=-1).flatten(-2)
        k = k * (1 + (a - 1) * self.k_a)
        out = self.g_norm(self._read(r, w, k, v, removed, a))
        heads = [part.unflatten(-1, (-1, self.head)) for part in (r, k, v)]
        bonus = (heads[0] * heads[1] * self.r_k).sum(-1, keepdim=True) * heads[2]
        return self.o_proj((out + bonus.flatten(-2)) * self.g_lora(mixed["g"])), first

    def _read(self, *parts: Tensor) -> Tensor:
        """wkv_t = wkv_{t-1} (diag(w) - removed^T (a * removed)) + v^T k, of each head."""
        r, w, k, v, removed, a = (part.unflatten(-1, (-1, self.head)) for part in parts)
        state, rows = torch.zeros(r.shape[1], self.head, self.head, dtype=r.dtype), []
        for t in range(len(r)):
            away = removed[t, :, :, None] * (a[t] * removed[t])[:, None, :]
            state = state @ (torch.diag_embed(w[t]) - away) + v[t, :, :, None] * k[t, :, None, :]
            rows.append((state @ r[t, :, :, None]).flatten())
        return torch.stack(rows)


class ChannelMixing(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.x_k = nn.Parameter(torch.full((width,), 0.5))
        self.key, self.value = nn.Linear(width, inner, False), nn.Linear(inner, width, False)

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
        out: Tensor = self.value(F.relu(self.key(torch.lerp(x, before, self.x_k))).square())
        return out


class LayerNorm(nn.LayerNorm):
    """Named so that tests find the last one."""


class Block(nn.Module):
    def __init__(self, config: Any, index: int):
        super().__init__()
        names = ("pre_norm", "attn_norm", "ffn_norm") if not index else ("attn_norm", "ffn_norm")
        for name in names:
            setattr(self, name, LayerNorm(config.hidden_size, eps=config.norm_eps))
        self.attn, self.ffn = TimeMixing(config, index), ChannelMixing(config)

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.pre_norm(x) if hasattr(self, "pre_norm") else x
        mixed, first = self.attn(self.attn_norm(x), first)
        x = x + mixed
        return x + self.ffn(self.ffn_norm(x)), first


class Rwkv7Body(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [Block(config, index) for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        x, first = self.embeddings(ids), None
        for layer in self.layers:
            x, first = layer(x, first)
        out: Tensor = self.norm(x)
        return out


class Rwkv7ForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = Rwkv7Config
    base_model_prefix = "model"

    def __init__(self, config: Any):
        super().__init__(config)
        self.model = Rwkv7Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Tests give each tensor its numbers."""

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embeddings

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def prepare_inputs_for_generation(self, input_ids: Tensor, **others: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, **others: Any) -> CausalLMOutputWithPast:
        logits = [self.lm_head(self.model(ids)) for ids in input_ids]
        return CausalLMOutputWithPast(logits=torch.stack(logits))


AutoConfig.register("rwkv7", Rwkv7Config)
AutoModelForCausalLM.register(Rwkv7Config, Rwkv7ForCausalLM)
