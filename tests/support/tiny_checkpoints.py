"""Random weights for the cases of tiny_families, saved as transformers saves them.

Every norm, bias, sink and correction differs from what a model begins with, so that one that is
left out shows; and rows keep their scale, so that logits are neither flat nor certain.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from torch import Tensor

from support.checkpoints import maker, tiny_tokenizer
from support.tiny_families import CASES, SEEDS

# The spread of the logits. Of a rounded model's divergence, half the square counts.
SPREAD = 1.2


def save_case(name: str, folder: Path) -> Path:
    """Save the checkpoint of a case, with the tiny tokenizer."""
    config = CASES[name].config()
    tokenizer = tiny_tokenizer()
    if config.is_encoder_decoder:
        closing = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
        tokenizer.backend_tokenizer.post_processor = closing
    random_model(config, SEEDS.get(name, 0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_model(config: Any, seed: int) -> Any:
    """A model of transformers with such weights, in fp32."""
    torch.manual_seed(seed)
    model = maker(config).from_config(config, dtype=torch.float32).eval()
    if not getattr(config, "scale_decoder_outputs", True):
        # T5 1.1 has an untied head, but transformers derives a tied one from its config.
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        model.config.tie_word_embeddings = False
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.endswith(_CONSTANTS):
                tensor.copy_(_random(name, tensor, generator))
        _align_queries(model)
        if config.model_type.startswith(("gemma3n", "gemma4")):
            _soften_attention(model)
        if config.is_encoder_decoder:
            _soften_queries(model)
        _scale_embedding(model)
        _scale_logits(model, generator)
    return model


# Written to files, and the same in all of them: those of Apertus' activation.
_CONSTANTS = ("act_fn.beta", "act_fn.eps")


def _random(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(tensor.shape, generator=generator)
    if name.endswith("A_log"):
        # A recurrent state that is remembered for tens of tokens, as after training.
        return noise - 3
    if tensor.dim() < 2 or "time_mix" in name:
        return tensor + (1.0 if name.endswith("sinks") else 0.2) * noise
    if tensor.dim() == 3 and "conv" not in name:
        # Experts that resemble each other: another one after rounding changes little.
        common = torch.randn(tensor.shape[1:], generator=generator)
        return (common + 0.2 * noise) / tensor.shape[-1] ** 0.5
    is_table = any(word in name for word in ("embed", "wte", "wpe", "attention_bias"))
    return noise if is_table else noise / tensor.shape[-1] ** 0.5


def _align_queries(model: Any) -> None:
    """Let queries of a delta rule resemble its keys.

    What a state returns is normed: a product of query and key near zero would let a rounding choose
    the sign of a whole head.
    """
    for module in model.modules():
        width = getattr(module, "head_k_dim", 0)
        for name in ("in_proj_qkv", "in_proj_qkvz") if width else ():
            linear = getattr(module, name, None)
            if linear is not None:
                joined = name == "in_proj_qkvz"
                groups = linear.weight.unflatten(0, (module.num_k_heads if joined else 1, -1))
                _resemble(groups, width if joined else module.key_dim)
                _resemble(module.conv1d.weight[None], module.key_dim)


def _resemble(groups: Tensor, count: int) -> None:
    """The first `count` rows of each group become like the `count` rows after them."""
    groups[:, :count].mul_(0.4).add_(groups[:, count : 2 * count])


def _soften_attention(model: Any) -> None:
    """Gemma 3n and 4 divide scores by nothing: the norms of queries and keys have learned to."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            tensor.mul_(len(tensor) ** -0.25)


def _soften_queries(model: Any) -> None:
    """T5 does not divide scores, and begins with smaller weights of queries instead."""
    for name, tensor in model.state_dict().items():
        if name.endswith("Attention.q.weight"):
            tensor.mul_(model.config.d_kv**-0.5)


def _scale_embedding(model: Any) -> None:
    """Each token begins with a root mean square of 1, or with a half where the head is tied.

    A head that shares its matrix with a louder embedding repeats the last token.
    """
    embedding = model.get_input_embeddings()
    vectors = embedding(torch.arange(64)) * getattr(model.config, "embedding_multiplier", 1.0)
    embedding.weight.mul_((0.5 if _is_tied(model) else 1.0) / vectors.pow(2).mean().sqrt())


def _scale_logits(model: Any, generator: torch.Generator) -> None:
    """Bring the spread of the logits to SPREAD by the last norm, which Gemma stores less 1.

    With a tied head the norm is of both signs: it turns what the last token left in the sum away
    from that token's own row.
    """
    norm, is_tied = _last_norm(model), _is_tied(model)
    added = 1.0 if norm.weight.mean() < 0.5 else 0.0
    scale = torch.randn(norm.weight.shape, generator=generator) if is_tied else norm.weight + added
    for _ in range(3):
        norm.weight.copy_(scale - added)
        factor = SPREAD / _logits(model).std()
        scale = scale * factor
        if getattr(norm, "bias", None) is not None:
            norm.bias.mul_(factor)
    norm.weight.copy_(scale - added)


def _last_norm(model: Any) -> Any:
    called: list[Any] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in model.modules()
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None
    ]
    _logits(model)
    for hook in hooks:
        hook.remove()
    return called[-1]


def _logits(model: Any) -> Tensor:
    ids = torch.arange(5, 69)[None]
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    logits: Tensor = model(ids, **inputs).logits
    return logits


def _is_tied(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight
