"""Safetensors files written tensor by tensor and mapped: against the format's own library, and by
arithmetic for a model of 65 billion.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llmchat.engines.transformers.mapped_safetensors import (
    ALIGNMENT,
    Entry,
    MappedFile,
    Writer,
    file_size,
    header,
    shards,
)
from llmchat.errors import IntegrityError

DTYPES = [torch.int8, torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.int64]
ENTRIES = st.lists(
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 9), max_size=3)),
    min_size=1,
    max_size=8,
).map(
    lambda drawn: [
        Entry(f"t{number}", dtype, tuple(shape)) for number, (dtype, shape) in enumerate(drawn)
    ]
)


def tensor_of(entry: Entry) -> torch.Tensor:
    return torch.randint(-100, 100, entry.shape).to(entry.dtype)


@given(ENTRIES, st.randoms())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_in_any_order_is_read_by_the_library_and_by_us(
    tmp_path: Path, entries: list[Entry], random: object
) -> None:
    path = tmp_path / "file.safetensors"
    tensors = {entry.name: tensor_of(entry) for entry in entries}
    writer = Writer(path, entries)
    names = list(tensors)
    random.shuffle(names)  # type: ignore[attr-defined]
    for name in names:
        writer.put(name, tensors[name])
    writer.close()
    assert path.stat().st_size == file_size(entries)
    theirs, ours = load_file(path), MappedFile(path)
    for entry in entries:
        for read in (theirs[entry.name], ours.get(entry.name)):
            assert read.dtype == entry.dtype and torch.equal(read, tensors[entry.name])
    assert ours.shapes == {entry.name: entry.shape for entry in entries}


@given(ENTRIES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_of_the_library_are_read(tmp_path: Path, entries: list[Entry]) -> None:
    tensors = {entry.name: tensor_of(entry) for entry in entries}
    save_file(tensors, tmp_path / "theirs.safetensors")
    file = MappedFile(tmp_path / "theirs.safetensors")
    assert all(torch.equal(file.get(name), tensor) for name, tensor in tensors.items())


def test_matrices_that_lie_one_behind_the_other_are_one_matrix(tmp_path: Path) -> None:
    entries = [
        Entry("q", torch.int8, (8, 16)),
        Entry("k", torch.int8, (4, 16)),
        Entry("other", torch.int8, (4, 16)),
        Entry("v", torch.int8, (4, 16)),
    ]
    tensors = {entry.name: tensor_of(entry) for entry in entries}
    writer = Writer(tmp_path / "f", entries)
    for name, tensor in tensors.items():
        writer.put(name, tensor)
    writer.close()
    file = MappedFile(tmp_path / "f")
    assert (
        file.joined(["q", "k"]).data_ptr() == file.get("q").data_ptr()
        and file.get("q").data_ptr() % ALIGNMENT == 0
    )
    assert torch.equal(file.joined(["q", "k"]), torch.cat([tensors["q"], tensors["k"]]))
    assert torch.equal(file.joined(["q", "v"]), torch.cat([tensors["q"], tensors["v"]]))


def test_writing_to_a_mapped_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    save_file({"t": torch.zeros(4)}, tmp_path / "f")
    MappedFile(tmp_path / "f").get("t").fill_(1)
    assert torch.equal(MappedFile(tmp_path / "f").get("t"), torch.zeros(4))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: b"",
        lambda data: data[:9] + b"?" + data[10:],
    ],
)
def test_a_damaged_file_is_one_clear_line(damage: object, tmp_path: Path) -> None:
    save_file({"t": torch.zeros(4)}, tmp_path / "f")
    (tmp_path / "f").write_bytes(damage((tmp_path / "f").read_bytes()))  # type: ignore[operator]
    with pytest.raises(IntegrityError, match="f cannot be read"):
        MappedFile(tmp_path / "f")


def test_what_was_not_announced_is_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "f", [Entry("t", torch.int8, (4,)), Entry("u", torch.int8, (4,))])
    with pytest.raises(ValueError, match="announced as"):
        writer.put("t", torch.zeros(4))
    with pytest.raises(ValueError, match="u was not written"):
        writer.close()


def test_shards_keep_units_together() -> None:
    units = [[Entry(f"{number}.{part}", torch.int8, (40,)) for part in "ab"] for number in range(5)]
    files = shards(units, 170)
    assert [[entry.name for entry in file] for file in files] == [
        ["0.a", "0.b", "1.a", "1.b"],
        ["2.a", "2.b", "3.a", "3.b"],
        ["4.a", "4.b"],
    ]
    assert [len(file) for file in shards(units, 10)] == [2] * 5, (
        "a unit that is too large has a file of its own"
    )


def test_large_tensors_begin_at_multiples_of_64_bytes() -> None:
    entries = [
        Entry("odd", torch.int8, (33,)),
        Entry("w", torch.int8, (64, 64)),
        Entry("s", torch.float32, (3,)),
        Entry("b", torch.bfloat16, (32,)),
    ]
    first, starts = header(entries)
    assert (
        len(first) % ALIGNMENT == 0
        and starts["w"] % ALIGNMENT == starts["b"] % ALIGNMENT == 0
        and starts["s"] % 4 == 0
    )
    assert min(starts.values()) == len(first)
