"""GGUF files under the names of a plan: tensors, configs and tokenizers are those of the checkpoint
that the file was made from.
"""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from support import tiny_gguf
from support.checkpoints import save_tiny
from support.gguf_cases import READ_ALONE
from support.tiny_families import CASES
from support.tiny_gguf import f32, q8_0, write_gguf

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.tokenizer.files import open_vocabulary
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.differences import differences
from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.quantised.gguf_tensors import GgufTensors
from llmchat.engines.transformers.quantised.packed import unpacked
from llmchat.engines.transformers.weights import FileTensors, open_tensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.gguf_file import read_header
from llmchat.gguf_file.config import config_of
from llmchat.hub.gguf_folder import write_folder

FACTS: dict[str, dict[str, Any]] = {"gemma3": {"rope.freq_base": 1000000.0}}
NAMES = (
    "llama",
    "llama: biases",
    "qwen3",
    "qwen3-moe",
    "gemma3",
    "phi3",
    "qwen2",
    "olmo2",
    "seed-oss",
    "smollm3",
    "lfm2",
)


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint, and the folder of a GGUF file that was made from it."""
    folder = tmp_path_factory.mktemp("pair")
    base = save_tiny(folder / "base", CASES[request.param].config())
    file = write_gguf(base, folder / "a.gguf", **FACTS.get(request.param, {}))
    (folder / "made").mkdir()
    assert write_folder([file], folder / "made") == "a.gguf runs as it is (Q8_0)"
    return [base, folder / "made"]


def rounded(array: np.ndarray) -> np.ndarray:
    kind = gguf.GGMLQuantizationType.Q8_0
    return np.asarray(gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind))


def test_every_tensor_is_the_one_of_the_checkpoint(pair: list[Path]) -> None:
    base, made = pair
    config = read_json(base / "config.json")
    theirs, ours = viewed(config, FileTensors(base)), open_tensors(made, ())
    plan = plan_of(config)
    assert plan
    names = sorted(tensor_names(plan) & set(theirs.shapes))
    assert set(names) <= set(ours.shapes) and len(names) > 20
    for name in names:
        expected = theirs.get(name).float().numpy()
        expected = rounded(expected) if ours.stored_size(name) else expected
        assert ours.shapes[name] == expected.shape, name
        assert np.allclose(ours.get(name).numpy(), expected, rtol=0, atol=1e-6), name


def test_matrices_are_grouped_and_packed_as_the_file_has_them(pair: list[Path]) -> None:
    ours = open_tensors(pair[1], ())
    stored = [name for name in ours.shapes if ours.stored_size(name) is not None]
    assert len(stored) > 10
    for name in stored:
        weight, packed = ours.grouped(name), ours.packed(name)
        assert weight is not None and packed is not None
        assert torch.equal(weight.dequantised(), ours.get(name))
        assert torch.equal(unpacked(packed).dequantised(), ours.get(name))


def test_the_plan_is_the_one_of_the_checkpoint(pair: list[Path]) -> None:
    expected, found = (plan_of(read_json(folder / "config.json")) for folder in pair)
    # The scale of Gemma 3 and the interval of SmolLM3 are not in the file: those of the published
    # models are assumed.
    if read_json(pair[0] / "config.json")["model_type"] not in ("gemma3_text", "smollm3"):
        assert list(differences(found, expected)) == []


def test_the_tokenizer_makes_the_same_ids(pair: list[Path]) -> None:
    text = "the quick <|im_start|>fox\n\n jumps  over<|im_end|> Ünïcödé 123 日本"
    theirs, ours = (open_vocabulary(folder) for folder in pair)
    assert ours.ids(text) == theirs.ids(text)
    assert ours.specials == theirs.specials


def test_a_scale_that_is_not_a_number_is_refused(pair: list[Path], tmp_path: Path) -> None:
    content = bytearray((pair[1].parent / "a.gguf").read_bytes())
    info = read_header(bytes(content)).tensors["token_embd.weight"]
    content[info.offset : info.offset + 2] = np.array([np.nan], np.float16).tobytes()
    (tmp_path / "bad.gguf").write_bytes(content)
    write_folder([tmp_path / "bad.gguf"], tmp_path)
    tensors = open_tensors(tmp_path, ())
    for read in (tensors.grouped, tensors.packed):
        with pytest.raises(IntegrityError, match=r"`token_embd\.weight` has scales that are not"):
            read("model.embed_tokens.weight")


def test_parts_of_a_model_are_read_as_one(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES["llama"].config())
    whole = write_gguf(base, tmp_path / "a.gguf")
    first = write_gguf(base, tmp_path / "1.gguf", only(lambda name: "blk.1" not in name))
    second = write_gguf(base, tmp_path / "2.gguf", only(lambda name: "blk.1" in name))
    for number, files in enumerate(([whole], [first, second])):
        (tmp_path / str(number)).mkdir()
        write_folder(files, tmp_path / str(number))
    one, two = (open_tensors(tmp_path / number, ()) for number in "01")
    assert one.shapes == two.shapes
    assert all(torch.equal(one.get(name), two.get(name)) for name in one.shapes)


def only(wanted: Any) -> Any:
    """A quantisation that leaves some tensors out."""
    return lambda name, array: q8_0(name, array) if wanted(name) else None


def test_a_file_that_went_away_is_named(pair: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "gone.gguf"
    file.write_bytes((pair[1].parent / "a.gguf").read_bytes())
    write_folder([file], tmp_path)
    file.unlink()
    with pytest.raises(IntegrityError, match=r"gone\.gguf cannot be read: No such file"):
        open_tensors(tmp_path, ())


def test_an_adapter_of_more_than_matrices_is_refused(pair: list[Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    with pytest.raises(Mismatch, match="cannot be merged into quantised weights"):
        open_tensors(pair[1], [tmp_path])


# Factors of the frequencies of a head of 16, base 10,000, as llama.cpp computes them.
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize("name", ["llama: llama3 rope", "llama: yarn rope", "llama: linear rope"])
def test_scaled_positions_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    config = CASES[name].config()
    base = save_tiny(tmp_path / "base", config)
    rope = config.rope_parameters
    kind = rope["rope_type"]
    facts: dict[str, Any] = {}
    if kind != "llama3":
        facts |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        facts["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    file = write_gguf(base, tmp_path / "a.gguf", **facts)
    header = read_header(file)
    if kind == "llama3":
        header.tensors["rope_freqs.weight"] = header.tensors["output_norm.weight"]
    expected = plan_of(read_json(base / "config.json"))
    found = config_of(header, lambda _: llama3_factors(rope["original_max_position_embeddings"]))
    assert found and list(differences(plan_of(found), expected)) == []


def llama3_factors(trained: int, factor: float = 8.0, low: float = 1.0, high: float = 4.0) -> list:
    """The loop of llama.cpp's converter."""
    factors = []
    for index in range(8):
        wavelength = 2 * np.pi / (1.0 / 10000.0 ** (2 * index / 16))
        if wavelength < trained / high:
            factors.append(1.0)
        elif wavelength > trained / low:
            factors.append(factor)
        else:
            smooth = (trained / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


def test_unknown_factors_of_frequencies_are_kept_one_by_one(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES["llama"].config())
    header = read_header(write_gguf(base, tmp_path / "a.gguf"))
    header.tensors["rope_freqs.weight"] = header.tensors["output_norm.weight"]
    factors = [1.0, 1.5, 1.25, 9.0, 2.0, 3.0, 4.0, 5.0]
    plan = plan_of(config_of(header, lambda _: factors) or {})
    assert plan
    rotary = plan.layers[0].stages[0][0].block.rotary  # type: ignore[union-attr]
    plain = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    assert torch.allclose(rotary.frequencies, plain / torch.tensor(factors))
    assert rotary.scale == 1.0


def test_an_architecture_without_a_plan_writes_nothing(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "mamba")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "made").mkdir()
    assert write_folder([tmp_path / "a.gguf"], tmp_path / "made") is None
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("arch", READ_ALONE)
def test_an_architecture_is_read_as_the_model_type_that_it_equals(
    arch: str, tmp_path: Path
) -> None:
    case, facts = READ_ALONE[arch]
    base = save_tiny(tmp_path / "base", case.config())
    file = write_gguf(base, tmp_path / "a.gguf", f32, arch, **facts)
    (tmp_path / "made").mkdir()
    assert write_folder([file], tmp_path / "made")
    theirs, ours = (read_json(tmp_path / name / "config.json") for name in ("base", "made"))
    plan = plan_of(theirs)
    assert plan and list(differences(plan_of(ours), plan)) == []
    expected, found = viewed(theirs, FileTensors(base)), open_tensors(tmp_path / "made", ())
    names = tensor_names(plan) & expected.shapes.keys()
    assert len(names) >= 20
    for name in names:
        assert torch.equal(found.get(name), expected.get(name).float()), name


def test_joined_queries_keys_and_values_are_read_one_by_one(tmp_path: Path) -> None:
    """As llama.cpp's converter writes them with --fuse-qkv."""
    base = save_tiny(tmp_path / "base", CASES["qwen2"].config())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_gguf, "JOINED", ("qwen2",))
        file = write_gguf(base, tmp_path / "a.gguf")
    (tmp_path / "made").mkdir()
    write_folder([file], tmp_path / "made")
    expected, found = FileTensors(base), open_tensors(tmp_path / "made", ())
    for part in "qkv":
        name = f"model.layers.1.self_attn.{part}_proj"
        assert torch.equal(found.get(f"{name}.bias"), expected.get(f"{name}.bias"))
        weight = found.grouped(f"{name}.weight")
        assert weight is not None
        array = rounded(expected.get(f"{name}.weight").numpy())
        assert np.array_equal(weight.dequantised().numpy(), array)
        assert found.stored_size(f"{name}.weight") == array.size // 32 * 34


@pytest.mark.parametrize(
    ("name", "rows", "problem"),
    [
        ("blk.1.attn_q", 42, "the tensor `blk.1.attn_q.weight` does not fit the model: "),
        (
            "blk.1.attn_qkv",
            48,
            "the tensor `blk.1.attn_qkv.weight` does not fit the model: it has too few",
        ),
    ],
)
def test_a_matrix_of_heads_with_other_rows_is_refused(
    name: str, rows: int, problem: str, tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", CASES["llama"].config())

    def only_part(names: str, array: np.ndarray) -> Any:
        return None if "blk.1.attn_q." in names else f32(names, array)

    header = read_header(write_gguf(base, tmp_path / "a.gguf", only_part))
    writer = gguf.GGUFWriter(str(tmp_path / "b.gguf"), "llama")
    writer.add_tensor(f"{name}.weight", np.zeros((rows, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config = config_of(header, lambda _: [])
    with pytest.raises(IntegrityError, match=re.escape(problem)):
        GgufTensors([tmp_path / "a.gguf", tmp_path / "b.gguf"], config or {})
