"""Writes prepared checkpoints: adapters merged and linears quantised once, for a chat to map.

The folder is a checkpoint in bitsandbytes' layout that transformers can open too, except of Falcon
and T5, of which transformers leaves linears in 16 bits that are int8 here, and of models whose
experts are stacked: their files have names that transformers does not look for.
`head.safetensors` is an int8 copy of the output head for the decode step on the CPU; the 16-bit
head stays, as bitsandbytes requires.

Weights that arrive in groups of few bits keep their numbers: `packed.bin` has them in the layout of
the compiled step, see quantised/packed_file.py, and only llmchat opens such a copy. So are the
weights of an int4 copy.

bf16 and fp32 are not prepared, since downloads hold them already. Models without a plan whose
tensors transformers assembles in memory (fused experts) are not prepared either.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.bitsandbytes_format import HEAD_FILE, Int8Tensors, is_int8
from llmchat.engines.transformers.checkpoint_names import is_transposed, modern_config
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.mapped_safetensors import Entry, Writer, file_size, shards
from llmchat.engines.transformers.modules.hf_modules import Outline, outline
from llmchat.engines.transformers.prepared_plan import outline_of
from llmchat.engines.transformers.pytorch.int8 import finite, quantise_rows
from llmchat.engines.transformers.quantised.few_bits import in_few_bits
from llmchat.engines.transformers.quantised.packed import kind_of, pack
from llmchat.engines.transformers.quantised.packed_file import (
    TABLE_FILE,
    PackedTensors,
    PackedWriter,
)
from llmchat.engines.transformers.quantised.types import PackedWeight
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.tied_heads import with_ties
from llmchat.engines.transformers.weights import OWN_STEM, open_tensors, weight_files
from llmchat.errors import Mismatch
from llmchat.parse_guard import reading
from llmchat.settings.types import Weights

SHARD_BYTES = 4_000_000_000


class Preparation:
    """A base with adapters, to be written. size: bytes of its weights, known before one is read.

    Raises Mismatch for a model that cannot be prepared, and for an adapter that does not fit it.
    """

    def __init__(
        self,
        base: Path,
        adapters: Sequence[Path] = (),
        scale: float = 1.0,
        trust: bool = False,
        shard_bytes: int = SHARD_BYTES,
        weights: Weights = "int8",
    ):
        self._weights = weights
        with reading(f"the model in {base.name}"):
            self._open(base, adapters, scale, trust, shard_bytes)

    def _open(
        self, base: Path, adapters: Sequence[Path], scale: float, trust: bool, shard_bytes: int
    ) -> None:
        config = modern_config(read_json(base / "config.json"))
        if is_int8(config) and not adapters:
            raise Mismatch("its weights are 8-bit already, and its own files are mapped")
        self._tensors = open_tensors(base, adapters, scale)
        config = with_ties(config, self._tensors.untied)
        self._base_config = config
        self._packed: dict[str, int] = {}
        self._files: dict[str, list[Entry]] = {}
        self._plan = plan_of(config)
        if self._plan is None:
            if self._weights == "int4":
                raise Mismatch("int4 weights of a model without a plan are not prepared")
            self._outline = outline(base, config, self._tensors, trust)
        else:
            self._outline, self._tensors = outline_of(self._plan, config, self._tensors)
            if self._weights == "int4":
                self._tensors = in_few_bits(self._plan, self._tensors, base)
            self._head = f"{self._outline.head}.weight"
            if self._outline.config["tie_word_embeddings"]:
                self._head = self._plan.embedding.weight
            self._pack_stored()
            if self._head not in self._packed:
                self._files = {HEAD_FILE: _pair("", self._tensors.shapes[self._head])}
        parts = shards(self._units(), shard_bytes)
        self._stem = "model" if self._outline.shared else OWN_STEM
        names = [
            f"{self._stem}-{number:05}-of-{len(parts):05}.safetensors"
            for number in range(1, len(parts) + 1)
        ]
        names = names if len(parts) > 1 else [f"{self._stem}.safetensors"]
        self._index = {
            entry.name: name for name, part in zip(names, parts, strict=True) for entry in part
        }
        self._files |= dict(zip(names, parts, strict=True))
        # A layout has up to 3 % of padding.
        self.size = sum(map(file_size, self._files.values()))
        self.size += int(1.03 * sum(self._packed.values()))

    def _pack_stored(self) -> None:
        """Take the weights that keep their numbers out of the outline."""
        outline, sizes = self._outline, {}
        linears = [f"{module}.weight" for group in outline.linears for module in group]
        for name in dict.fromkeys((*linears, self._plan_embedding, self._head)):
            if (size := self._tensors.stored_size(name)) is not None:
                sizes[name] = size
        self._packed = sizes
        if sizes:
            groups = [
                [module for module in group if f"{module}.weight" not in sizes]
                for group in outline.linears
            ]
            plain = {name: kind for name, kind in outline.plain.items() if name not in sizes}
            self._outline = replace(
                outline, linears=[group for group in groups if group], plain=plain, shared=False
            )

    @property
    def _plan_embedding(self) -> str:
        assert self._plan is not None
        return self._plan.embedding.weight

    def write(self, folder: Path, advance: Callable[[int], None] = lambda count: None) -> None:
        """Write weights and config.json to `folder`, one tensor at a time. advance: called with
        the bytes of each.
        """
        writers = {name: Writer(folder / name, entries) for name, entries in self._files.items()}

        def put(file: str, name: str, tensor: torch.Tensor) -> None:
            writers[file].put(name, tensor)
            advance(tensor.numel() * tensor.element_size())

        for name in (f"{module}.weight" for group in self._outline.linears for module in group):
            stem, file = name.removesuffix("weight"), self._index[name]
            weight, scb = self._quantised(name)
            put(file, name, weight)
            put(file, f"{stem}SCB", scb)
            put(file, f"{stem}weight_format", torch.zeros((), dtype=torch.uint8))
            del weight
        for name, dtype in self._outline.plain.items():
            put(self._index[name], name, finite(self._tensors.get(name).to(dtype), name))
        if HEAD_FILE in self._files:
            for name, tensor in zip(
                ("weight", "SCB"),
                quantise_rows(self._tensors.get(self._head), self._head),
                strict=True,
            ):
                put(HEAD_FILE, name, tensor)
        for writer in writers.values():
            writer.close()
        if self._packed:
            self._write_packed(folder, advance)
        if len(set(self._index.values())) > 1:
            total = sum(
                entry.size
                for name, entries in self._files.items()
                if name != HEAD_FILE
                for entry in entries
            )
            _write_json(
                folder / f"{self._stem}.safetensors.index.json",
                {"metadata": {"total_size": total}, "weight_map": self._index},
            )
        _write_json(folder / "config.json", _config(self._outline))

    def _write_packed(self, folder: Path, advance: Callable[[int], None]) -> None:
        writer = PackedWriter(folder)
        # A weight is written to the disk while the next one is brought into its layout.
        with ThreadPoolExecutor(1) as disk:
            written: Future[int] | None = None
            for name in self._packed:
                packed = self._in_layout(name)
                if written is not None:
                    advance(written.result())
                written = disk.submit(writer.put, name, packed)
            if written is not None:
                advance(written.result())
        writer.close()

    def _in_layout(self, name: str) -> PackedWeight:
        packed = self._tensors.packed(name)
        if packed is not None:
            return packed
        weight = self._tensors.grouped(name)
        if weight is None or kind_of(weight) is None:
            raise Mismatch(f"`{name}` has weights of a kind that has no layout")
        return pack(weight, name)

    def _quantised(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        pair = self._tensors.int8(name)
        if pair is not None:
            return pair
        weight = self._tensors.get(name)
        return quantise_rows(weight.T.contiguous() if self._turned(name) else weight, name)

    def _turned(self, name: str) -> bool:
        """Whether a weight is [in, out]. Those of plans are seen as [out, in]."""
        return self._plan is None and is_transposed(name.removesuffix(".weight"), self._base_config)

    def _units(self) -> list[list[Entry]]:
        """Entries that must stay in one file: matrices that are used as one, with their scales."""
        units = []
        for group in self._outline.linears:
            weights = {module: self._tensors.shapes[f"{module}.weight"] for module in group}
            turned = {
                module: shape[::-1] if self._turned(f"{module}.weight") else shape
                for module, shape in weights.items()
            }
            pairs = [_pair(f"{module}.", shape) for module, shape in turned.items()]
            # All weights, then all scales: matrices that are used as one are adjacent in the file.
            units.append([weight for weight, _ in pairs] + [scb for _, scb in pairs])
            units[-1] += [Entry(f"{module}.weight_format", torch.uint8, ()) for module in group]
        return units + [
            [Entry(name, dtype, self._tensors.shapes[name])]
            for name, dtype in self._outline.plain.items()
        ]


def open_prepared(folder: Path, config: dict[str, Any]) -> Tensors:
    """The tensors of a prepared checkpoint, mapped. config: the base's config.json in today's
    words.
    """
    head = folder / HEAD_FILE
    own = read_json(folder / "config.json")
    untied = bool(config.get("tie_word_embeddings")) and not own.get("tie_word_embeddings", True)
    found = head if head.exists() else None
    if (folder / TABLE_FILE).exists():
        return PackedTensors(folder, weight_files(folder), config, found, untied)
    return Int8Tensors(weight_files(folder), config, found, untied)


def _pair(prefix: str, shape: Sequence[int]) -> list[Entry]:
    return [
        Entry(f"{prefix}weight", torch.int8, tuple(shape)),
        Entry(f"{prefix}SCB", torch.float32, (shape[0],)),
    ]


def _config(model: Outline) -> dict[str, Any]:
    """The config.json that transformers' save_pretrained writes for 8-bit weights."""
    kept = {
        name: value
        for name, value in model.config.items()
        if name not in ("torch_dtype", "quantization_config") and name[:1] != "_"
    }
    quantised = {
        "quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False,
        "llm_int8_threshold": 6.0, "llm_int8_has_fp16_weight": False,
        "llm_int8_skip_modules": [*([model.head] if model.head else []), *model.skipped],
    }  # fmt: skip
    return kept | {"dtype": "bfloat16", "quantization_config": quantised}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
