"""What benchmarks/gpu.py compares with: transformers with bitsandbytes' 8-bit layers."""

import statistics
import time
from typing import Any

import torch


def peer(
    config: dict[str, Any], prompt_tokens: int, tokens: int, device: torch.device
) -> dict[str, float]:
    """Decode and prefill of transformers' generate, in tokens a second."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    torch.set_default_dtype(torch.float32)
    quantise(model, device)
    ids = torch.randint(3, config["vocab_size"], (1, prompt_tokens), device=device)
    generate_seconds(model, ids, 4)
    first = statistics.median(generate_seconds(model, ids, 1) for _ in range(3))
    whole = statistics.median(generate_seconds(model, ids, tokens) for _ in range(2))
    return {"decode_tps": (tokens - 1) / (whole - first), "prefill_tps": prompt_tokens / first}


def quantise(model: Any, device: torch.device) -> None:
    """Replace every linear but the head as load_in_8bit does, with its default threshold of 6."""
    import bitsandbytes

    linears = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    for name, module in linears:
        with torch.device("meta"):
            layer = bitsandbytes.nn.Linear8bitLt(
                module.in_features,
                module.out_features,
                bias=False,
                has_fp16_weights=False,
                threshold=6.0,
            )
        # It quantises only weights that come from the CPU.
        weight = module.weight.detach().half().cpu()
        params = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        layer.weight = params.to(device)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.eval())


def generate_seconds(model: Any, ids: torch.Tensor, tokens: int) -> float:
    synchronise(ids.device)
    started = time.perf_counter()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    synchronise(ids.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
