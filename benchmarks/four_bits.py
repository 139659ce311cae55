#!/usr/bin/env python3
"""Perplexity of weights in few bits: int4, nf4 and GGUF files of llmchat, and those of llama.cpp.

    python benchmarks/four_bits.py CHECKPOINT… --ggml libggml-base.so --mixes Q4_K_M,Q3_K_M --save

CHECKPOINT is a Llama or Qwen2 folder in bf16. Its channels are shuffled first, which leaves what it
computes as it is: the weights that could be downloaded here came from 4-bit files, and a grid like
theirs would fit them exactly. All matrices are quantised from the same numbers, then one forward
pass in fp32 reads the first TOKENS of Moby-Dick in windows of WINDOW. The mixes of GGUF files are
written twice with the same kinds: by the code of `llmchat convert`, and by llama.cpp's quantiser
(ggml_quantize_chunk of the library --ggml), which gets no importance matrix. gguf-py dequantises
both. Divergence is the mean KL divergence from the fp32 model in nats; error is that of all
matrices relative to their numbers. --only-mixes skips the other kinds. --save adds to
benchmarks/results/four_bits.json.
"""

import argparse
import ctypes
import datetime
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
TEXT, RESULTS = HERE / "data" / "moby_dick.txt", HERE / "results" / "four_bits.json"
TOKENS, WINDOW = 2048, 512
# A quantiser: name, weight [out, in] → what is left of it, and its bytes.
Quantiser = Callable[[str, Tensor], tuple[Tensor, float]]


def main() -> None:
    options = _options()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}}
    for folder in options.checkpoints:
        rows = measure(folder, options)
        before = found["models"].get(folder.name, {"rows": {}})["rows"]
        found["models"][folder.name] = {"tokens": options.tokens, "rows": before | rows}
    if options.save:
        found["date"] = str(datetime.date.today())
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--ggml", help="llama.cpp's libggml-base.so")
    parser.add_argument("--mixes", default="Q4_K_M", help="mixes of GGUF files, after commas")
    parser.add_argument("--only-mixes", action="store_true")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--save", action="store_true")
    return parser.parse_args()


def measure(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Perplexity, divergence, error and bits a weight by kind."""
    model = Model(folder, options.tokens)
    exact, reference = model.scores(model.state)
    rows = {"fp32": {"perplexity": exact}}
    print(folder.name, rows, flush=True)
    for kind, quantiser in _kinds(model, options).items():
        count, size, wrong, all_ = 0, 0.0, 0.0, 0.0
        state, began = dict(model.state), time.process_time()
        for name in model.matrices:
            exact_one = state[name]
            state[name], own = quantiser(name, exact_one)
            count, size = count + exact_one.numel(), size + own
            wrong += float((state[name] - exact_one).square().sum())
            all_ += float(exact_one.square().sum())
        seconds = time.process_time() - began
        perplexity, scores = model.scores(state)
        rows[kind] = {
            "perplexity": perplexity, "divergence": _divergence(reference, scores),
            "error": math.sqrt(wrong / all_), "bits": 8 * size / count, "cpu_seconds": seconds,
        }  # fmt: skip
        print(folder.name, kind, rows[kind], flush=True)
    return rows


class Model:
    """A checkpoint with its channels shuffled, in fp32. matrices: the names that are quantised."""

    def __init__(self, folder: Path, tokens: int):
        from llmchat.engines.checkpoint_files import read_json
        from llmchat.engines.tokenizer import Tokenizer
        from llmchat.engines.transformers.checkpoint_names import modern_config
        from llmchat.engines.transformers.families import plan_of
        from llmchat.engines.transformers.weights import open_tensors
        from llmchat.prompt import Prompt

        self.folder, self.config = folder, modern_config(read_json(folder / "config.json"))
        self.plan: Any = plan_of(self.config)
        tensors = open_tensors(folder, ())
        self.state = {name: tensors.get(name).float() for name in tensors.shapes}
        shuffle(self.state, self.config)
        self.matrices = [name for name, weight in self.state.items() if weight.ndim == 2]
        text = Prompt(TEXT.read_text("utf-8")[: 8 * tokens], (), bos=False)
        ids = Tokenizer(folder).encode(text)[:tokens]
        self.windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]

    def tensors(self, state: dict[str, Tensor]) -> Any:
        from llmchat.engines.transformers.weights import MemoryTensors

        return MemoryTensors(state)

    def scores(self, state: dict[str, Tensor]) -> tuple[float, list[Tensor]]:
        """The perplexity, and the log-probabilities of the first window."""
        from llmchat.engines.transformers.executor import SequenceInput
        from llmchat.engines.transformers.pytorch.forward import TorchForward

        forward = TorchForward(self.plan, self.tensors(state), "fp32", torch.device("cpu"))
        total, count, first = 0.0, 0, []
        with torch.inference_mode():
            for ids in self.windows:
                read = SequenceInput(forward.new_cache(), ids[:-1], all_logits=True)
                scores = forward.run([read])[0].log_softmax(-1)
                total -= float(scores[torch.arange(len(ids) - 1), ids[1:]].sum())
                count += len(ids) - 1
                first = first or [scores]
        return math.exp(total / count), first


def shuffle(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Reorder the channels of the rows, of each MLP and of each head's values."""
    generator = torch.Generator().manual_seed(1)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    rows = torch.randperm(hidden, generator=generator)
    inner, values = {}, {}
    for number in range(config["num_hidden_layers"]):
        inner[number] = torch.randperm(config["intermediate_size"], generator=generator)
        values[number] = torch.randperm(width, generator=generator)
    for name, tensor in state.items():
        number = int(name.split(".")[2]) if ".layers." in name else -1
        last = name.split(".")[-2]
        if last in ("embed_tokens", "lm_head", "q_proj", "k_proj") and tensor.ndim == 2:
            state[name] = tensor[:, rows]
        elif tensor.ndim == 1 and last.endswith("norm"):
            state[name] = tensor[rows]
        elif last == "v_proj":
            turned = tensor.unflatten(0, (-1, width))[:, values[number]].flatten(0, 1)
            state[name] = turned[:, rows] if tensor.ndim == 2 else turned
        elif last == "o_proj":
            turned = tensor.unflatten(1, (-1, width))[:, :, values[number]].flatten(1)
            state[name] = turned[rows]
        elif last in ("gate_proj", "up_proj"):
            state[name] = tensor[inner[number]][:, rows]
        elif last == "down_proj":
            state[name] = tensor[:, inner[number]][rows]


def _divergence(exact: list[Tensor], found: list[Tensor]) -> float:
    return float((exact[0].exp() * (exact[0] - found[0])).sum(-1).mean())


def _kinds(model: Model, options: argparse.Namespace) -> dict[str, Quantiser]:
    kinds = {"int8": _int8, "int4": _int4(model), "nf4": _nf4} if not options.only_mixes else {}
    for mix in options.mixes.split(","):
        kinds[f"llmchat {mix}"] = Converted(model, mix)
        if options.ggml:
            kinds[f"llama.cpp {mix}"] = LlamaCpp(options.ggml, model, mix)
    return kinds


def _int8(name: str, weight: Tensor) -> tuple[Tensor, float]:
    from llmchat.engines.transformers.pytorch.int8 import quantise_rows

    codes, scb = quantise_rows(weight)
    return codes * (scb / 127)[:, None], weight.numel() + 4.0 * len(scb)


def _int4(model: Model) -> Quantiser:
    from llmchat.engines.transformers.quantised.few_bits import in_few_bits

    few = in_few_bits(model.plan, model.tensors(model.state), model.folder)

    def quantise(name: str, weight: Tensor) -> tuple[Tensor, float]:
        size = few.stored_size(name)
        return (few.get(name), size) if size else _int8(name, weight)

    return quantise


def _nf4(name: str, weight: Tensor) -> tuple[Tensor, float]:
    """As llmchat does: the embedding and the head stay in 16 bits."""
    import bitsandbytes.functional as bnb

    if "embed" in name or "lm_head" in name:
        return weight, 2.0 * weight.numel()
    codes, state = bnb.quantize_4bit(weight.bfloat16(), quant_type="nf4")
    return bnb.dequantize_4bit(codes, state).float(), weight.numel() * 0.5625


class Converted:
    """What `llmchat convert --to gguf:MIX` writes."""

    def __init__(self, model: Model, mix: str):
        from functools import cache

        from llmchat.engines.tokenizer import Tokenizer
        from llmchat.engines.transformers.quantised.calibration import importance

        self._kinds = _kinds_of_matrices(model, mix)
        self._importance = cache(
            lambda: importance(model.plan, model.tensors(model.state), Tokenizer(model.folder))
        )

    def __call__(self, name: str, weight: Tensor) -> tuple[Tensor, float]:
        import numpy

        from llmchat.engines.transformers.quantised.gguf_kinds import encoded
        from llmchat.gguf_file.types import type_named

        kind = self._kinds[name]
        parts = encoded(weight, type_named(kind), name, self._importance().get(name))
        data = numpy.frombuffer(b"".join(parts), "u1").reshape(len(weight), -1)
        return dequantised(data, kind), float(data.nbytes)


class LlamaCpp:
    """llama.cpp's quantiser. library: path of libggml-base."""

    def __init__(self, library: str, model: Model, mix: str):
        self._quantise = ggml_quantiser(library)
        self._kinds = _kinds_of_matrices(model, mix)

    def __call__(self, name: str, weight: Tensor) -> tuple[Tensor, float]:
        out = self._quantise(weight, self._kinds[name], None)
        return dequantised(out, self._kinds[name]), float(out.nbytes)


def ggml_quantiser(library: str) -> Callable[[Tensor, str, Tensor | None], Any]:
    """A function of a weight [out, in] in fp32, a kind of GGUF files and the importance of inputs
    [in] or None, which returns the rows that llama.cpp writes: uint8 [out, bytes of a row]."""
    run = ctypes.CDLL(library).ggml_quantize_chunk
    run.restype = ctypes.c_size_t
    counts = [ctypes.c_int64] * 3
    pointers = [ctypes.c_void_p] * 2
    run.argtypes = [ctypes.c_int, *pointers, *counts, ctypes.c_void_p]

    def quantise(weight: Tensor, kind: str, importance: Tensor | None) -> Any:
        import gguf
        import numpy

        number = gguf.GGMLQuantizationType[kind]
        length, size = gguf.GGML_QUANT_SIZES[number]
        rows, columns = weight.shape
        out = numpy.empty((rows, columns // length * size), "u1")
        array = weight.contiguous().numpy()
        by = None if importance is None else importance.float().contiguous().numpy()
        at = None if by is None else by.ctypes.data
        run(int(number), array.ctypes.data, out.ctypes.data, 0, rows, columns, at)
        return out

    return quantise


def _kinds_of_matrices(model: Model, mix: str) -> dict[str, str]:
    """The kind of each matrix by its name in the checkpoint."""
    from llmchat.engines.transformers.quantised.gguf_names import Places
    from llmchat.gguf_file.mixes import Facts, kinds_in_mix

    layers, arch = model.config["num_hidden_layers"], model.config["model_type"]
    places = Places(model.plan, arch, model.config)
    is_tied = bool(model.config.get("tie_word_embeddings"))
    names = {
        name: places.of(name)[0].pieces[0].name
        for name in model.matrices
        if not (is_tied and name.startswith("lm_head"))
    }
    shapes = {theirs: tuple(model.state[name].shape) for name, theirs in names.items()}
    shared = model.config["num_attention_heads"] // model.config["num_key_value_heads"]
    kinds = kinds_in_mix(shapes, mix, Facts(layers, 0, shared, arch))
    return {name: kinds[theirs] for name, theirs in names.items()}


def dequantised(data: Any, kind: str) -> Tensor:
    """The numbers of rows in a kind of GGUF files, in fp32."""
    import gguf

    return torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]))


if __name__ == "__main__":
    sys.exit(main())
