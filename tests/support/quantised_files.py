"""Tiny checkpoints in every quantised format, and the values that the format's formula gives.

The writers follow the public descriptions of the formats, number by number, and share no code with
the readers. compressed-tensors and bitsandbytes write theirs with their own libraries.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

# Nibble i of an AWQ word holds this one of eight outputs.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class Written(NamedTuple):
    """The tensors of one linear by their names within the module, and its weight [out, in]."""

    tensors: dict[str, Tensor]
    values: Tensor


Write = Callable[[Tensor], Written]


@dataclass(frozen=True)
class Format:
    """A way to write linears. table: the quantization_config."""

    write: Write
    table: dict[str, Any]
    kind: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def pack(codes: Tensor, bits: int) -> Tensor:
    """[rows, count] → int32 [rows, words]: code i at bit i * bits, the lowest first."""
    flags = (codes.numpy()[..., None].astype(np.int64) >> np.arange(bits)) & 1
    flat = flags.reshape(len(codes), -1).astype(np.uint8)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    return torch.from_numpy(np.packbits(flat, axis=1, bitorder="little").view("<i4").copy())


def rounded(
    weight: Tensor, groups: Tensor, bits: int, symmetric: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [out, in], scales f16 and zero points [out, count], for inputs in `groups` [in]."""
    count, top = int(groups.max()) + 1, 2**bits - 1
    codes = torch.empty(weight.shape, dtype=torch.int64)
    scales, zeros = torch.empty(len(weight), count).half(), torch.empty(len(weight), count).long()
    for group in range(count):
        part = weight[:, groups == group]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = ((high - low) / top).clamp(min=1e-4).half()
        zero = (
            torch.full_like(low, 2 ** (bits - 1)) if symmetric else (-low / scale.float()).round()
        ).clamp(0, top)
        scales[:, group], zeros[:, group] = scale, zero.long()
        shifted = part / scale.float()[:, None] + zero[:, None]
        codes[:, groups == group] = shifted.round().clamp(0, top).long()
    return codes, scales, zeros


def by_formula(codes: Tensor, scales: Tensor, zeros: Tensor, groups: Tensor) -> Tensor:
    """scale * (code - zero point), for each input that of its group."""
    return scales.float()[:, groups] * (codes - zeros[:, groups]).float()


def in_order(in_: int, group: int) -> Tensor:
    return torch.arange(in_) // group


def shuffled(in_: int, group: int) -> Tensor:
    """The groups of inputs under act-order."""
    return in_order(in_, group)[torch.randperm(in_, generator=torch.Generator().manual_seed(in_))]


def gptq(
    bits: int, group: int, *, version: int = 1, act_order: bool = False, symmetric: bool = False
) -> Format:
    def write(weight: Tensor) -> Written:
        in_ = weight.shape[1]
        size = in_ if group == -1 else group
        groups = (shuffled if act_order else in_order)(in_, size)
        codes, scales, zeros = rounded(weight, groups, bits, symmetric)
        stored = (zeros - 1) % 2**bits if version == 1 else zeros
        tensors = {
            "qweight": pack(codes, bits).T.contiguous(),
            "qzeros": pack(stored.T, bits),
            "scales": scales.T.contiguous(),
            "g_idx": groups.int(),
        }
        return Written(tensors, by_formula(codes, scales, zeros, groups))

    table = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order}
    if version == 2:
        table["checkpoint_format"] = "gptq_v2"
    return Format(write, table, f"GPTQ {bits}-bit")


def awq(group: int, *, version: str = "gemm") -> Format:
    def write(weight: Tensor) -> Written:
        groups = in_order(weight.shape[1], group)
        codes, scales, zeros = rounded(weight, groups, 4)
        values = by_formula(codes, scales, zeros, groups)
        if version == "gemm":
            tensors = {
                "qweight": _interleaved(codes.T),
                "qzeros": _interleaved(zeros.T),
                "scales": scales.T.contiguous(),
            }
        else:
            width = -(-scales.shape[1] // 8) * 8
            tensors = {
                "qweight": pack(codes, 4),
                "qzeros": pack(_padded(zeros, width), 4),
                "scales": _padded(scales, width),
            }
        return Written(tensors, values)

    table = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True}
    return Format(write, table | {"version": version}, "AWQ 4-bit")


def _interleaved(codes: Tensor) -> Tensor:
    """int32 [rows, count / 8], the outputs of a word in AWQ's order."""
    words = torch.zeros(len(codes), codes.shape[1] // 8, dtype=torch.int64)
    for place, column in enumerate(AWQ_ORDER):
        words |= codes[:, column::8] << (4 * place)
    return words.to(torch.uint32).view(torch.int32)


def _padded(values: Tensor, width: int) -> Tensor:
    padded = torch.zeros(len(values), width, dtype=values.dtype)
    padded[:, : values.shape[1]] = values
    return padded


def compressed(
    layout: str, arguments: dict[str, Any], *, act_order: bool = False, kind: str = ""
) -> Format:
    """By the compressed-tensors library. layout: its format. arguments: of the weights."""

    def write(weight: Tensor) -> Written:
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

        arranged = QuantizationScheme(
            targets=["Linear"], weights=QuantizationArgs(**arguments), format=layout
        )
        state = _parameters(weight, arguments, act_order)
        library = BaseCompressor.get_value_from_registry(layout)
        stored = library.compress(state, arranged)
        values = library.decompress(dict(stored), arranged)["weight"]
        return Written({name: tensor.contiguous() for name, tensor in stored.items()}, values)

    group = {"targets": ["Linear"], "weights": arguments, "input_activations": None}
    table = {
        "quant_method": "compressed-tensors", "format": layout, "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }  # fmt: skip
    return Format(write, table, kind)


def _parameters(weight: Tensor, arguments: dict[str, Any], act_order: bool) -> dict[str, Tensor]:
    """Scales and zero points as the library's observers would find them."""
    block = _block_of(weight, arguments)
    tiles = _tiles(weight, block)
    top = 448.0 if arguments["type"] == "float" else 2.0 ** (arguments["num_bits"] - 1) - 1
    low, high = tiles.amin((1, 3)).clamp(max=0), tiles.amax((1, 3)).clamp(min=0)
    if arguments.get("symmetric", True):
        scale = (torch.maximum(high, -low) / top).clamp(min=1e-5)
        return {"weight": weight, "weight_scale": _as_stored(scale, arguments)}
    scale = ((high - low) / (2 * top + 1)).clamp(min=1e-5)
    zero = (-low / scale).round().clamp(0, 2 * top + 1) - (top + 1)
    return {
        "weight": weight,
        "weight_scale": _as_stored(scale, arguments),
        "weight_zero_point": _as_stored(zero.to(torch.int8), arguments),
    }


def _block_of(weight: Tensor, arguments: dict[str, Any]) -> tuple[int, int]:
    rows, in_ = weight.shape
    return {
        "tensor": (rows, in_),
        "channel": (1, in_),
        "group": (1, arguments.get("group_size")),
        "block": tuple(arguments.get("block_structure") or (0, 0)),
    }[arguments["strategy"]]


def _tiles(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """[row blocks, rows, input blocks, inputs], padded with zeros."""
    rows, in_ = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -in_ % block[1], 0, -rows % block[0]))
    return padded.unflatten(1, (-1, block[1])).unflatten(0, (-1, block[0]))


def _as_stored(values: Tensor, arguments: dict[str, Any]) -> Tensor:
    return values.flatten() if arguments["strategy"] == "tensor" else values


def fp8(block: tuple[int, int] | None, *, scale_dtype: torch.dtype = torch.float32) -> Format:
    """DeepSeek's and Qwen3's: a scale for each block; None: one for the whole weight."""

    def write(weight: Tensor) -> Written:
        size = block or tuple(weight.shape)
        scale = (_tiles(weight, size).abs().amax((1, 3)) / 448).clamp(min=1e-6)
        scale = scale.to(scale_dtype)
        along = scale.float().repeat_interleave(size[0], 0).repeat_interleave(size[1], 1)
        along = along[: len(weight), : weight.shape[1]]
        numbers = (weight / along).to(torch.float8_e4m3fn)
        stored = scale if block else scale.reshape(())
        values = numbers.float() * along
        return Written({"weight": numbers, "weight_scale_inv": stored}, values)

    table = {"quant_method": "fp8", "weight_block_size": list(block) if block else None}
    return Format(write, table | {"activation_scheme": "dynamic"}, "FP8 E4M3")


def bitsandbytes(kind: str, *, nested: bool, storage: torch.dtype = torch.uint8) -> Format:
    def write(weight: Tensor) -> Written:
        import bitsandbytes.functional as library

        # Its kernel for the CPU gives wrong values where rows are not whole blocks.
        codes, state = library.quantize_4bit(
            weight.reshape(-1, 64), quant_type=kind, compress_statistics=nested,
            quant_storage=storage,
        )  # fmt: skip
        values = library.dequantize_4bit(codes, state).view(weight.shape)
        state.shape = weight.shape
        packed = {f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
        return Written({"weight": codes, **packed}, values)

    table = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
        "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested,
    }  # fmt: skip
    return Format(write, table, kind.upper())


_GROUPED = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
FORMATS = {
    "gptq 4-bit": gptq(4, 32),
    "gptq 4-bit, symmetric": gptq(4, 32, symmetric=True),
    "gptq 4-bit v2": gptq(4, 32, version=2),
    "gptq 4-bit, act-order": gptq(4, 32, act_order=True),
    "gptq 4-bit, one group": gptq(4, -1),
    "gptq 2-bit": gptq(2, 16),
    "gptq 3-bit": gptq(3, 32),
    "gptq 3-bit v2, act-order": gptq(3, 32, version=2, act_order=True),
    "gptq 8-bit": gptq(8, 32),
    "awq gemm": awq(32),
    "awq gemv": awq(32, version="gemv"),
    "ct int4 groups": compressed("pack-quantized", _GROUPED),
    "ct int4 groups, asymmetric": compressed("pack-quantized", _GROUPED | {"symmetric": False}),
    "ct int4 channels": compressed(
        "pack-quantized", _GROUPED | {"strategy": "channel", "group_size": None}
    ),
    "ct int8 packed": compressed("pack-quantized", _GROUPED | {"num_bits": 8}),
    "ct int3 packed": compressed("pack-quantized", _GROUPED | {"num_bits": 3}),
    "ct int8 channels": compressed(
        "int-quantized", {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    ),
    "ct int8 channels, asymmetric": compressed(
        "int-quantized", {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "channel"}
    ),
    "ct naive int4": compressed("naive-quantized", _GROUPED),
    "ct int8 tensor": compressed(
        "int-quantized", {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "tensor"}
    ),
    "ct fp8 tensor": compressed(
        "float-quantized", {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}
    ),
    "ct fp8 channels": compressed(
        "float-quantized",
        {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"},
    ),
    "ct fp8 blocks": compressed(
        "float-quantized",
        {
            "num_bits": 8, "type": "float", "symmetric": True, "strategy": "block",
            "block_structure": [32, 32],
        },
    ),
    "fp8 blocks": fp8((32, 48)),
    "fp8 tensor": fp8(None),
    "nf4": bitsandbytes("nf4", nested=False),
    "nf4 nested": bitsandbytes("nf4", nested=True),
    "fp4": bitsandbytes("fp4", nested=False),
    "nf4, stored as bf16": bitsandbytes("nf4", nested=True, storage=torch.bfloat16),
}  # fmt: skip


def write_module(folder: Path, written: Written, table: dict[str, Any]) -> Path:
    """A folder with one quantised linear, `model.layers.0.mlp.up_proj`."""
    tensors = {f"model.layers.0.mlp.up_proj.{name}": one for name, one in written.tensors.items()}
    return write_folder(folder, tensors, {"model_type": "llama", "quantization_config": table})


def write_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def quantise_checkpoint(base: Path, folder: Path, form: Format) -> tuple[Path, Path]:
    """The linears of a tiny Llama in this format; and a twin in fp32 that has the same values."""
    state = load_file(base / "model.safetensors")
    quantised, plain = {}, dict(state)
    for name, tensor in state.items():
        if not name.endswith("_proj.weight"):
            quantised[name] = tensor
            continue
        written = form.write(tensor.float())
        module = name.removesuffix("weight")
        quantised |= {f"{module}{part}": one for part, one in written.tensors.items()}
        plain[name] = written.values.float()
    config = json.loads((base / "config.json").read_text())
    made = write_folder(
        folder / "quantised", quantised, config | {"quantization_config": form.table}
    )
    twin = write_folder(folder / "twin", plain, config)
    for path in base.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            for other in (made, twin):
                (other / path.name).write_bytes(path.read_bytes())
    return made, twin
