"""GGUF files that are written: a reader gets the plan, the tensors and the tokenizer back."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import save_adapter, save_tiny
from support.gguf_cases import DIFFERENT_THERE, GGUF_CASES, ONLY_OURS, REFUSED_THERE
from support.tiny_families import CASES

from llmchat.engines.checkpoint_files import chat_template, read_json
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.tokenizer.files import open_vocabulary
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.differences import differences
from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.gguf_export import Export
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.weights import FileTensors, open_tensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.gguf_file import read_header
from llmchat.gguf_file.architectures import ARCHITECTURES
from llmchat.gguf_file.facts import architecture_of
from llmchat.hub.gguf_folder import write_folder

ALL = GGUF_CASES | ONLY_OURS
TEXT = "the quick <|im_start|>fox\n\n jumps  over<|im_end|> Ünïcödé 123 日本"
GENERAL = {"general.name": "Tiny", "general.license": "apache-2.0"}


def written(base: Path, kind: str = "F32", *adapters: Path, name: str = "a.gguf") -> Path:
    """The folder that a reader makes of a file."""
    file = base.parent / name
    Export(base, adapters, 1.0, kind, GENERAL).write(file)
    made = base.parent / f"made-{name}"
    made.mkdir()
    write_folder([file], made)
    return made


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama") / "base", CASES["llama"].config())


@pytest.mark.parametrize("name", ALL)
def test_a_reader_gets_the_model_back(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", ALL[name].config())
    if name in GGUF_CASES:
        assert Export(base, (), 1.0, "F32", GENERAL).notes == ()
    made = written(base)
    theirs, ours = (read_json(folder / "config.json") for folder in (base, made))
    plan = plan_of(theirs)
    assert plan and not [*differences(plan_of(ours), plan)]
    expected = viewed(theirs, open_tensors(base, ()))
    same_tensors(tensor_names(plan), expected, open_tensors(made, ()))
    before, after = Tokenizer(base), Tokenizer(made)
    assert open_vocabulary(made).ids(TEXT) == open_vocabulary(base).ids(TEXT)
    # A reader also ends at <|im_end|>, by its name.
    assert after.end_ids - before.end_ids <= {4} and after.end_ids >= before.end_ids


def same_tensors(names: set[str], theirs: Tensors, ours: Tensors) -> None:
    present = sorted(names & theirs.shapes.keys())
    assert len(present) >= 20
    for name in present:
        expected = theirs.get(name).float()
        assert torch.allclose(ours.get(name).view(expected.shape), expected, rtol=0, atol=1e-6)


def test_every_architecture_that_is_read_is_written() -> None:
    written = {architecture_of(case.config().to_dict()) for case in ALL.values()}
    assert written == {name for name, known in ARCHITECTURES.items() if known.is_written}


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_matrices_are_rounded_as_the_reference_rounds(kind: str, llama: Path) -> None:
    made = written(llama, kind, name=f"{kind}.gguf")
    header = read_header(llama.parent / f"{kind}.gguf")
    assert header.kind == kind and header.facts["general.license"] == "apache-2.0"
    tensors, original = open_tensors(made, ()), FileTensors(llama)
    number = gguf.GGMLQuantizationType[kind]
    name = "model.layers.1.mlp.down_proj.weight"
    array = original.get(name).float().numpy()
    expected = gguf.quants.dequantize(gguf.quants.quantize(array, number), number)
    assert header.tensors["blk.1.ffn_down.weight"].type.name == kind
    assert np.array_equal(tensors.get(name).float().numpy(), expected)
    assert header.tensors["token_embd.weight"].type.name == kind
    assert header.tensors["blk.1.attn_norm.weight"].type.name == "F32"


def test_rows_that_are_not_whole_blocks_stay_in_16_bits(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES["llama: odd"].config())
    written(base, "Q8_0")
    tensors = read_header(tmp_path / "a.gguf").tensors
    # Its inner width is 101.
    assert tensors["blk.0.ffn_down.weight"].type.name == "F16"
    assert tensors["blk.0.attn_output.weight"].type.name == "Q8_0"


def test_adapters_are_merged(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", llama)
    made = written(llama, "F32", adapter, name="merged.gguf")
    merged = open_tensors(llama, [adapter])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged.get(name), FileTensors(llama).get(name))
    assert torch.allclose(open_tensors(made, ()).get(name), merged.get(name), atol=1e-6)


def test_a_gguf_file_is_written_in_another_kind(llama: Path) -> None:
    first = written(llama, "Q8_0", name="first.gguf")
    Export(first, (), 1.0, "F32", {}).write(llama.parent / "second.gguf")
    one, two = (read_header(llama.parent / f"{name}.gguf") for name in ("first", "second"))
    tokens = {name: one.facts[name] for name in one.facts if name.startswith("tokenizer.")}
    assert {name: two.facts[name] for name in tokens} == tokens
    assert two.kind == "F32" and two.tensors.keys() == one.tensors.keys()


@pytest.mark.parametrize("name", ["mistral: window", "qwen2: window", "starcoder2: window"])
def test_windows_that_files_do_not_have_are_noted(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES[name].config())
    assert "no sliding window" in Export(base, (), 1.0, "F16", {}).notes[0]


@pytest.mark.parametrize("name", REFUSED_THERE)
def test_files_that_llama_cpp_does_not_load_are_noted(name: str, tmp_path: Path) -> None:
    case, why = REFUSED_THERE[name]
    (note,) = Export(save_tiny(tmp_path / "base", case.config()), (), 1.0, "F16", {}).notes
    assert note.startswith("note: llama.cpp does not load this file, only llmchat does: its `")
    assert why in note and "\n" not in note


@pytest.mark.parametrize("name", DIFFERENT_THERE)
def test_files_that_llama_cpp_computes_differently_are_noted(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES[name].config())
    (note,) = Export(base, (), 1.0, "F16", {}).notes
    assert note.startswith("note: with this file, llama.cpp computes differently from llmchat: its")
    assert DIFFERENT_THERE[name] in note


REFUSED = {
    "gemma2: odd": r"cannot express this gemma2: a reader would compute with .*scale: 0\.25 0\.06",
    "gpt-oss: odd": r"cannot express this gpt_oss: .*limit: 7\.0 1\.0",
    "qwen3-moe: odd, some layers dense": "`qwen3moe` have no tensor for `model.layers.1.mlp.down",
    "llama: dynamic rope": "cannot express this llama: this variant has no plan",
    "gpt-j": "cannot write a GGUF file of the model type `gptj`",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_express_is_refused(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES[name].config())
    with pytest.raises(Mismatch, match=REFUSED[name]):
        Export(base, (), 1.0, "F16", {})


@pytest.mark.parametrize(
    ("value", "kind", "line"),
    [(float("nan"), "Q8_0", "NaN"), (1e6, "F16", "has numbers that F16 cannot hold")],
)
def test_numbers_that_cannot_be_stored_are_refused(
    value: float, kind: str, line: str, llama: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in llama.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    state: dict[str, Any] = load_file(llama / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=line):
        Export(base, (), 1.0, kind, {}).write(tmp_path / "a.gguf")


def test_facts_of_the_file_are_typed_as_llama_cpp_reads_them(llama: Path) -> None:
    made = written(llama, name="typed.gguf")
    fields = gguf.GGUFReader(llama.parent / "typed.gguf").fields
    kinds = gguf.GGUFValueType
    assert fields["llama.rope.freq_base"].types == [kinds.FLOAT32]
    assert fields["llama.block_count"].types == [kinds.UINT32]
    assert fields["tokenizer.ggml.bos_token_id"].types == [kinds.UINT32]
    assert fields["tokenizer.ggml.token_type"].types == [kinds.ARRAY, kinds.INT32]
    assert fields["general.name"].contents() == "Tiny"
    assert chat_template(made) is None
