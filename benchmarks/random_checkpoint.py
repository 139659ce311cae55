#!/usr/bin/env python3
"""Write a checkpoint of random weights, and the same shape as a Q8_0 file for llama.cpp.

usage: python benchmarks/random_checkpoint.py SHAPE FOLDER [--scale small|full]
                                              [--llama-source SOURCE]

No model is built: shapes come from transformers' module tree without memory, and tensors are
written one at a time. The Q8_0 file is made by llama.cpp's own converter, from the sources in
SOURCE, with a vocabulary that only numbers its tokens. Its weights are random too, and not read
from the checkpoint.
"""

import argparse
import functools
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from family_shapes import SCALES, SHAPES
from torch import Tensor

# Name, type, shape and a function that makes it.
Described = tuple[str, torch.dtype, tuple[int, ...], Callable[[], Tensor]]
GGUF = "Q8_0.gguf"
# Random numbers are repeated after so many: values do not change the speed.
_POOL = 1 << 24
# One-dimensional tensors that are not a bias: by the end of the name.
_ONES = ("norm", "layernorm", "_norm", "ln_f", ".D")
_STD = 0.02
_SPECIALS = ("<pad>", "<s>", "</s>")


def shapes_of(config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a checkpoint, as it is published."""
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    state = dict(model.state_dict())
    for name in getattr(model, "all_tied_weights_keys", ()):
        state.pop(name, None)
    published = revert_weight_conversion(model, state)
    return {name: tuple(tensor.shape) for name, tensor in published.items()}


@functools.cache
def _pool() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (_STD * torch.randn(_POOL, generator=generator)).bfloat16()


def tensor_of(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor with which a model computes finite numbers."""
    stem = name.removesuffix(".weight")
    if name.endswith("A_log"):
        return torch.linspace(0.0, math.log(16), math.prod(shape)).bfloat16().view(shape)
    if len(shape) == 1 and stem.endswith(_ONES):
        return torch.ones(shape, dtype=torch.bfloat16)
    return _numbers(shape, zlib.crc32(name.encode()), _pool())


@functools.cache
def _int8_pool() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-127, 128, (_POOL,), dtype=torch.int8, generator=generator)


def _int8_numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    return _numbers(shape, seed, _int8_pool())


def _numbers(shape: tuple[int, ...], seed: int, pool: Tensor) -> Tensor:
    """Numbers of a pool from a place that depends on the seed, repeated if they are too few."""
    count = math.prod(shape)
    start = seed * 4096 % (_POOL // 2)
    if count <= _POOL // 2:
        return pool[start : start + count].view(shape)
    return pool.roll(-start).repeat(-(-count // _POOL))[:count].view(shape)


def write_checkpoint(name: str, scale: str, folder: Path) -> None:
    """config.json, a tokenizer and model.safetensors, which appears when it is complete."""
    from llmchat.engines.transformers.mapped_safetensors import Entry, Writer

    folder.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[name]
    config = shape.config(scale)
    _write_config(config, folder, shape.int8)
    _write_tokenizer(folder, config.vocab_size)
    tensors = list(_tensors(shapes_of(config), shape.int8))
    writer = Writer(folder / "unfinished", [Entry(*described) for *described, _ in tensors])
    for tensor, _, _, make in tensors:
        writer.put(tensor, make())
    writer.close()
    (folder / "unfinished").rename(folder / "model.safetensors")


def _tensors(shapes: dict[str, tuple[int, ...]], int8: bool) -> Iterator[Described]:
    """Each tensor of the file; with int8, linears in three, as bitsandbytes writes them."""
    for name, shape in shapes.items():
        if int8 and len(shape) == 2 and name.endswith("_proj.weight"):
            stem = name.removesuffix("weight")
            yield name, torch.int8, shape, partial(_int8_numbers, shape, zlib.crc32(name.encode()))
            yield f"{stem}SCB", torch.float32, shape[:1], partial(torch.full, shape[:1], 3 * _STD)
            form = torch.zeros((), dtype=torch.uint8)
            yield f"{stem}weight_format", torch.uint8, (), form.clone
        else:
            yield name, torch.bfloat16, shape, partial(tensor_of, name, shape)


def _write_config(config: Any, folder: Path, int8: bool) -> None:
    from transformers import AutoModelForCausalLM

    architecture = AutoModelForCausalLM._model_mapping[type(config)].__name__
    settings = config.to_dict() | {"architectures": [architecture], "dtype": "bfloat16"}
    if int8:
        settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, default=str) + "\n")


def _tokens(count: int) -> list[str]:
    """Special tokens, the 256 bytes, and numbers for the others, which no text contains."""
    from tokenizers import pre_tokenizers

    named = [*_SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return named + [f"<{number}>" for number in range(len(named), count)]


def _write_tokenizer(folder: Path, count: int) -> None:
    """A byte-level tokenizer without merges: prompts of this benchmark are token ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: number for number, token in enumerate(_tokens(count))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIALS))
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    settings = named | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def write_q8_0(folder: Path, source: Path) -> None:
    """The Q8_0 file of the checkpoint's config.json, by the converter of llama.cpp in `source`."""
    sys.path[1:1] = [str(source), str(source / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    settings = _in_words_of_the_hub(ModelBase.load_hparams(folder, False))
    kind = get_model_class(get_model_architecture(settings, ModelType.TEXT))
    unfinished, shapes = folder / f"{GGUF}.part", shapes_of(_config_in(folder))

    def index_tensors(self: Any, remote_hf_model_id: str | None = None) -> dict[str, Any]:
        made = ((name, _lazily(name, shape)) for name, shape in shapes.items())
        kept = (self.filter_tensors(item) for item in made)
        return dict(item for item in kept if item)

    # Random tensors instead of the folder's, and a vocabulary that only numbers its tokens.
    ModelBase.index_tensors = index_tensors
    kind.set_vocab = lambda self: _number_tokens(self.gguf_writer, settings["vocab_size"])
    kind.no_mtp = True
    q8_0 = gguf.LlamaFileType.MOSTLY_Q8_0
    with torch.inference_mode():
        kind(folder, q8_0, unfinished, hparams=settings).write()
    unfinished.rename(folder / GGUF)


def _in_words_of_the_hub(settings: dict[str, Any]) -> dict[str, Any]:
    """Where transformers renamed what published files say, and the converter reads those.

    The converter gets random numbers in 16 bits even if the checkpoint is int8.
    """
    settings.pop("quantization_config", None)
    if settings["model_type"] == "gpt_neox":
        settings["rotary_pct"] = settings["rope_parameters"]["partial_rotary_factor"]
    if settings["model_type"] == "granitemoehybrid":
        old = {"full_attention": "attention", "linear_attention": "mamba"}
        settings["layer_types"] = [old[kind] for kind in settings["layer_types"]]
    return settings


def _config_in(folder: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config.__dict__.pop("quantization_config", None)
    return config


def _lazily(name: str, shape: tuple[int, ...]) -> Any:
    """A function that returns the tensor as the converter wants it: computed when it is written."""
    from conversion import LazyTorchTensor

    def make() -> Any:
        meta = LazyTorchTensor.meta_with_dtype_and_shape(torch.bfloat16, shape)
        return LazyTorchTensor(meta=meta, args=(), func=lambda: tensor_of(name, shape))

    return make


def _number_tokens(writer: Any, count: int) -> None:
    import gguf

    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(_tokens(count))
    writer.add_token_types([control] * 3 + [normal] * (count - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--llama-source", type=Path)
    arguments = parser.parse_args()
    if not (arguments.folder / "model.safetensors").exists():
        write_checkpoint(arguments.shape, arguments.scale, arguments.folder)
    if arguments.llama_source and not (arguments.folder / GGUF).exists():
        write_q8_0(arguments.folder, arguments.llama_source)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
