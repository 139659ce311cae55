"""Headers of GGUF files: equal to the reference reader's, and refused in one line when hostile."""

import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from support import fuzz_mutations

from llmchat.errors import IntegrityError
from llmchat.gguf_file import GGML_TYPES, GgufHeader, NeedsMore, TensorInfo, header, read_header
from llmchat.gguf_file.types import type_named


def write(path: Path) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_rope_freq_base(10000.5)
    writer.add_bool("llama.flag", True)
    writer.add_int64("llama.low", -(2**40))
    writer.add_token_list(["<s>", "é", "Ġa"])
    writer.add_token_scores([0.5, -1.0, 2.0])
    writer.add_token_types([3, 1, 1])
    writer.add_file_type(15)
    writer.add_tensor("token_embd.weight", np.arange(96, dtype=np.float32).reshape(3, 32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(32, np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((8, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_types_have_the_sizes_of_the_reference() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert theirs == {number: tuple(kind) for number, kind in GGML_TYPES.items()}


def test_facts_and_tensors_are_those_of_the_reference(tiny: Path) -> None:
    header, reader = read_header(tiny), GGUFReader(tiny)
    facts = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    assert header.facts == facts
    assert {
        name: (info.type.name, info.shape, info.offset, info.size)
        for name, info in header.tensors.items()
    } == {
        tensor.name: (
            tensor.tensor_type.name,
            tuple(reversed(tensor.shape.tolist())),
            tensor.data_offset,
            tensor.n_bytes,
        )
        for tensor in reader.tensors
    }
    assert (header.data_start, header.parameters) == (reader.data_offset, 96 + 32 + 512)


def test_kind_is_the_recipe_only_where_the_tensors_have_it(tiny: Path) -> None:
    # The facts name Q4_K_M, but nothing is quantised: most bytes are F16.
    header = read_header(tiny)
    assert header.kind == "F16" and 16 < header.bits < 32


@pytest.mark.parametrize(
    ("number", "types", "kind"),
    [
        # Rows of 576 numbers are no whole blocks of 256.
        (15, [("Q5_0", 576), ("Q8_0", 576)], "Q4_K_M"),
        (12, [("Q4_0", 576), ("Q5_0", 576), ("Q8_0", 576)], "Q3_K_M"),
        (30, [("IQ4_NL", 96), ("Q8_0", 96)], "IQ4_XS"),
        # In rows of whole blocks they are not what the recipe means.
        (15, [("Q5_0", 512), ("Q8_0", 512)], "Q5_0"),
        (15, [("Q4_0", 512), ("Q8_0", 576)], "Q4_0"),
        (7, [("Q5_0", 576)], "Q5_0"),
        (15, [("Q5_0", 576), ("Q4_K", 512)], "Q4_K_M"),
        (27, [("IQ3_S", 512)], "IQ3_M"),
        (38, [("MXFP4", 64), ("Q8_0", 64)], "MXFP4_MOE"),
        (38, [("Q8_0", 64)], "Q8_0"),
        (None, [("Q5_0", 576)], "Q5_0"),
        (10**6, [("Q5_0", 576)], "Q5_0"),
        ("Q4_K_M", [("Q5_0", 576)], "Q5_0"),
        ([15], [("Q5_0", 576)], "Q5_0"),
    ],
)
def test_a_recipe_is_known_by_what_takes_the_place_of_its_type(
    number: Any, types: list[tuple[str, int]], kind: str
) -> None:
    infos = {
        str(at): TensorInfo(type_named(name), (10 - at, width), 0, 10 - at)
        for at, (name, width) in enumerate(types)
    }
    facts = {} if number is None else {"general.file_type": number}
    assert GgufHeader(facts, infos, 0).kind == kind


def test_a_header_is_kept_until_its_file_changes(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    content = tiny.read_bytes()
    path.write_bytes(content)
    now = path.stat().st_mtime_ns
    long_ago = now - 60_000_000_000
    os.utime(path, ns=(long_ago, long_ago))
    first = read_header(path)
    first.facts["llama.block_count"] = 3
    first.tensors.clear()
    hits = header._of_file.cache_info().hits
    again = read_header(path)
    assert header._of_file.cache_info().hits == hits + 1
    assert again.facts["llama.block_count"] == 2 and again.tensors, "a reader has a copy"
    other = content.replace("é".encode(), b"ee")
    # Times and sizes of new files say nothing: two changes may be within one tick of the clock.
    soon = now + 60_000_000_000
    for token, time in (("ee", soon), ("é", soon), ("ee", long_ago - 1)):
        path.write_bytes(other if token == "ee" else content)
        os.utime(path, ns=(time, time))
        assert read_header(path).facts["tokenizer.ggml.tokens"][1] == token


@pytest.mark.parametrize("given", [None, 2**40])
def test_bytes_that_end_early_name_how_many_are_needed(tiny: Path, given: int | None) -> None:
    content = tiny.read_bytes()
    end, count, rounds = read_header(tiny), 0, 0
    while True:
        try:
            header = read_header(content[:count], given)
            break
        except NeedsMore as error:
            assert error.count > count
            count, rounds = error.count, rounds + 1
    assert header == end and count <= header.data_start and rounds > 10


def test_a_file_cut_anywhere_is_one_error(tiny: Path, tmp_path: Path) -> None:
    content, cut = tiny.read_bytes(), tmp_path / "cut.gguf"
    for end in [*range(0, 300, 7), len(content) - 1]:
        cut.write_bytes(content[:end])
        with pytest.raises(IntegrityError, match=r"cut\.gguf cannot be read"):
            read_header(cut)


def head(tensors: int, facts: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, facts) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def fact(kind: int, value: bytes, key: str = "k") -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    packed = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return text("w") + packed


HUGE = 2**63 - 1
NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(2000))
HOSTILE = {
    "another magic": b"GGML" + bytes(64),
    "big endian": head(0, 0, version=3 << 24),
    "version 1": head(0, 0, version=1),
    "tensors beyond count": head(HUGE, 0, bytes(64)),
    "facts beyond count": head(0, 2**64 - 1, bytes(64)),
    "length of a key": head(0, 1, struct.pack("<Q", HUGE) + bytes(64)),
    "length of a string": head(0, 1, fact(8, struct.pack("<Q", 2**64 - 1))),
    "length of an array": head(0, 1, fact(9, struct.pack("<IQ", 4, 2**62))),
    "array of empty strings": head(0, 1, fact(9, struct.pack("<IQ", 8, 2**40)) + bytes(999)),
    "nested arrays": head(0, 1, fact(9, NESTED)),
    "array of nothing": head(0, 1, fact(9, struct.pack("<IQ", 77, 2**60))),
    "unknown value": head(0, 1, fact(13, bytes(8))),
    "a key twice": head(0, 2, fact(7, b"\1") * 2),
    "alignment 0": head(0, 1, fact(4, bytes(4), "general.alignment")),
    "alignment 3": head(0, 1, fact(4, struct.pack("<I", 3), "general.alignment")),
    "alignment of text": head(0, 1, fact(8, text("x"), "general.alignment")),
    "dimensions": head(1, 0, text("w") + struct.pack("<I", HUGE >> 32)),
    "unknown type": head(1, 0, tensor((32,), kind=99) + bytes(999)),
    "removed type": head(1, 0, tensor((32,), kind=4) + bytes(999)),
    "part of a block": head(1, 0, tensor((33,), kind=2) + bytes(999)),
    "product of the shape": head(1, 0, tensor((HUGE, HUGE, HUGE, HUGE)) + bytes(999)),
    "offset outside": head(1, 0, tensor((32,), offset=HUGE - 31) + bytes(999)),
    "offset between": head(1, 0, tensor((32,), offset=7) + bytes(999)),
    "data cut": head(1, 0, tensor((64,)) + bytes(99)),
    "a name twice": head(2, 0, tensor((8,)) * 2 + bytes(999)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_one_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"bad\.gguf cannot be read: \S"):
        read_header(file)
    with pytest.raises(IntegrityError, match=r"bad\.gguf cannot be read: \S"):
        read_header(content, len(content), "bad.gguf")


def test_a_hostile_header_allocates_little(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "bad.gguf"
    tracemalloc.start()
    for content in HOSTILE.values():
        file.write_bytes(content)
        with pytest.raises(IntegrityError):
            read_header(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def mutated(content: bytes, seed: int) -> bytes:
    return fuzz_mutations.of_gguf(random.Random(seed), content)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_headers_are_read_or_refused(tiny: Path, tmp_path: Path, seed: int) -> None:
    content, file = tiny.read_bytes(), tmp_path / "bad.gguf"
    refused = 0
    for number in range(150):
        file.write_bytes(changed := mutated(content, 1000 * seed + number))
        found: Any = None
        try:
            found = read_header(file)
        except IntegrityError as error:
            refused += 1
            assert "\n" not in error.message and len(error.message) < 400
        for info in found.tensors.values() if found else ():
            assert info.offset + info.size <= len(changed)
    assert 10 < refused < 150
