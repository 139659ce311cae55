"""Prepared checkpoints: the same numbers as without, readable by transformers and bitsandbytes and
back, mapped, and made with little memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from support.architectures import ARCHITECTURES, QKV, READS_ANEW, SEEDS, config_of
from support.checkpoints import (
    maker,
    save_adapter,
    save_tiny,
    tiny_config,
    tiny_experts_config,
)

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers import TransformersEngine, memory_check, prepared_checkpoint
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.lora import Adapter
from llmchat.engines.transformers.mapped_safetensors import Entry, MappedFile, Writer, header
from llmchat.engines.transformers.prepared_checkpoint import HEAD_FILE, Preparation, open_prepared
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.weights import FileTensors, open_tensors
from llmchat.errors import Mismatch, OutOfResources

IDS = list(range(10, 60))
# transformers leaves some of their linears in 16 bits.
OURS_ALONE = [name for name in ARCHITECTURES if name.startswith(("t5", "falcon"))]

pytestmark = pytest.mark.usefixtures("one_thread")


def prepare(folder: Path, base: Path, *adapters: Path, **settings: Any) -> Path:
    """A prepared copy in `folder`, with the files beside it that transformers wants."""
    folder.mkdir(parents=True)
    Preparation(base, adapters, **settings).write(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (base / name).exists():
            (folder / name).write_bytes((base / name).read_bytes())
    return folder


def logits(base: Path, *adapters: Path, weights: Any = "int8", **settings: Any) -> torch.Tensor:
    engine = TransformersEngine(base, adapters, weights=weights, device="cpu", **settings)
    return engine.logits(IDS).float()


def by_transformers(folder: Path, **settings: Any) -> Any:
    return (
        maker(transformers.AutoConfig.from_pretrained(folder))
        .from_pretrained(folder, **settings)
        .eval()
    )


def their_logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            return (
                model(input_ids=torch.tensor([IDS]), decoder_input_ids=start).logits[0, -1].float()
            )
        return model(torch.tensor([IDS])).logits[0, -1].float()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def theirs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as transformers and bitsandbytes save it in 8 bit."""
    folder = tmp_path_factory.mktemp("theirs")
    settings = transformers.BitsAndBytesConfig(load_in_8bit=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, quantization_config=settings, dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_prepared_model_gives_the_very_numbers_of_the_unprepared_one(
    name: str, tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", config_of(name), seed=SEEDS.get(name, 3))
    kind = "SEQ_2_SEQ_LM" if name in READS_ANEW else "CAUSAL_LM"
    adapter = save_adapter(
        tmp_path / "adapter", base, target_modules=ARCHITECTURES[name][2], task_type=kind
    )
    copy = prepare(tmp_path / "copy", base, adapter)
    mapped, merged = logits(base, adapter, prepared=copy), logits(base, adapter)
    if name == "rwkv":
        # Its mixes are 16-bit in the copy, as transformers wants, and these files have fp32.
        torch.testing.assert_close(mapped, merged, rtol=0, atol=0.06)
    else:
        assert torch.equal(mapped, merged)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in OURS_ALONE])
def test_transformers_and_bitsandbytes_open_it(name: str, tmp_path: Path) -> None:
    import bitsandbytes

    base = save_tiny(tmp_path / "base", config_of(name), seed=SEEDS.get(name, 3))
    copy = prepare(tmp_path / "copy", base)
    model = by_transformers(copy)
    model.config.rescale_every = 0
    ours = open_prepared(copy, modern_config(read_json(base / "config.json")))
    quantised = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear8bitLt)
    }
    assert (
        len(quantised)
        == sum(name.endswith(".SCB") for name in MappedFile(copy / "model.safetensors").shapes)
        > 2
    )
    for path, module in quantised.items():
        pair = ours.int8(f"{path}.weight")
        assert (
            pair is not None
            and torch.equal(module.weight.data, pair[0])
            and torch.equal(module.weight.SCB, pair[1])
        )
    exact = their_logits(by_transformers(base, dtype=torch.float32))
    # LLM.int8() rounds the activations as well; RWKV's state of a random model makes much of it.
    assert (their_logits(model) - exact).norm() / exact.norm() < (0.3 if name == "rwkv" else 0.1)


@pytest.mark.parametrize("name", OURS_ALONE)
def test_transformers_refuses_what_it_would_misread(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", config_of(name), seed=3)
    copy = prepare(tmp_path / "copy", base)
    with pytest.raises(OSError, match=r"no file named .*model\.safetensors"):
        by_transformers(copy)
    assert torch.equal(logits(copy), logits(base)), "a folder of its own for us as well"


def test_models_that_transformers_puts_together_are_prepared_only_by_their_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts, which are int8 too."""
    base = save_tiny(tmp_path / "base", tiny_experts_config())
    copy = prepare(tmp_path / "copy", base)
    shapes = MappedFile(copy / "model.safetensors").shapes
    assert "model.layers.0.mlp.experts.0.gate_proj.SCB" in shapes
    assert "model.layers.0.mlp.gate.SCB" not in shapes, "the router"
    assert torch.equal(logits(base, prepared=copy), logits(base))
    monkeypatch.setattr(prepared_checkpoint, "plan_of", lambda config: None)
    with pytest.raises(Mismatch, match="transformers assembles the tensors of Qwen3MoeForCausalLM"):
        Preparation(base)


def test_their_8_bit_checkpoints_open_here_untouched(theirs: Path, base: Path) -> None:
    engine = TransformersEngine(theirs, device="cpu")
    saved = MappedFile(theirs / "model.safetensors")
    down = engine._forward._layers[0].stages[1][0].run.run.down.inner  # type: ignore[attr-defined]
    assert torch.equal(down.weight, saved.get("model.layers.0.mlp.down_proj.weight"))
    assert torch.equal(down.SCB, saved.get("model.layers.0.mlp.down_proj.SCB"))
    exact = logits(base, weights="fp32")
    for weights in ("int8", "bf16", "fp32"):
        near = logits(theirs, weights=weights)
        assert (near - exact).norm() / exact.norm() < 0.06, weights
    with pytest.raises(Mismatch, match="8-bit already"):
        Preparation(theirs)


def test_their_conv1d_is_turned(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", config_of("gpt2"))
    settings = transformers.BitsAndBytesConfig(load_in_8bit=True)
    transformers.AutoModelForCausalLM.from_pretrained(
        base, quantization_config=settings, dtype=torch.bfloat16
    ).save_pretrained(tmp_path / "8bit")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "8bit")
    exact, near = logits(base, weights="fp32"), logits(tmp_path / "8bit")
    assert (near - exact).norm() / exact.norm() < 0.06
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["c_attn", "c_proj"])
    exact, near = logits(base, adapter, weights="fp32"), logits(tmp_path / "8bit", adapter)
    assert (near - exact).norm() / exact.norm() < 0.06


def test_an_adapter_on_their_8_bit_is_merged_into_what_the_bytes_stand_for(
    theirs: Path, base: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=QKV)
    saved = MappedFile(theirs / "model.safetensors")
    name = "model.layers.1.self_attn.v_proj"
    stands_for = saved.get(f"{name}.weight") * (saved.get(f"{name}.SCB") / 127)[:, None]
    copy = open_prepared(prepare(tmp_path / "copy", theirs, adapter), {})
    merged = copy.int8(f"{name}.weight")
    untouched = copy.int8("model.layers.1.mlp.up_proj.weight")
    assert merged is not None and untouched is not None
    expected = quantise_rows(
        Adapter(adapter, base=read_json(base / "config.json")).add_to(stands_for, name)
    )
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(merged, expected, strict=True))
    assert torch.equal(untouched[0], saved.get("model.layers.1.mlp.up_proj.weight"))
    exact = logits(base, adapter, weights="fp32")
    assert (logits(theirs, adapter) - exact).norm() / exact.norm() < 0.06
    dora = save_adapter(tmp_path / "dora", base, use_dora=True)
    with pytest.raises(Mismatch, match="cannot be merged into quantised weights"):
        TransformersEngine(theirs, [dora], device="cpu")


def test_a_layout_of_old_versions_of_bitsandbytes_is_refused(theirs: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in theirs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(theirs / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight_format"] = torch.tensor(2, dtype=torch.uint8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        Mismatch,
        match=r"model\.layers\.0\.mlp\.up_proj is stored in a layout of bitsandbytes before",
    ):
        TransformersEngine(tmp_path, device="cpu")


def test_adapters_are_merged_in_float32_and_quantised_once(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", base)
    config, files = read_json(base / "config.json"), FileTensors(base)
    copy = open_prepared(prepare(tmp_path / "copy", base, adapter, scale=0.5), config)
    merged = Adapter(adapter, 0.5, config)
    for index in range(2):
        for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"):
            name = f"model.layers.{index}.{part}"
            expected = quantise_rows(merged.add_to(files.get(f"{name}.weight"), name))
            pair = copy.int8(f"{name}.weight")
            assert pair is not None and all(
                torch.equal(mine, wanted) for mine, wanted in zip(pair, expected, strict=True)
            )
    assert torch.equal(copy.get("lm_head.weight"), files.get("lm_head.weight").bfloat16())


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}], ids=["dora", "a saved head"]
)
def test_what_peft_merges_is_prepared_too(lora: dict[str, Any], base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", base, **lora)
    copy = prepare(tmp_path / "copy", base, adapter)
    assert torch.equal(logits(base, adapter, prepared=copy), logits(base, adapter))


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_has_an_8_bit_copy_of_its_own(tied: bool, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", tiny_config(tie_word_embeddings=tied))
    copy = open_prepared(prepare(tmp_path / "copy", base), {})
    name = "model.embed_tokens.weight" if tied else "lm_head.weight"
    head = copy.head_int8()
    assert head is not None
    assert all(
        torch.equal(mine, wanted)
        for mine, wanted in zip(head, quantise_rows(FileTensors(base).get(name)), strict=True)
    )
    assert copy.int8(name) is None and open_tensors(base, ()).head_int8() is None
    assert (
        json.loads((tmp_path / "copy" / "config.json").read_text())["tie_word_embeddings"] is tied
    )


def test_large_models_are_written_in_several_files(base: Path, tmp_path: Path) -> None:
    copy = prepare(tmp_path / "copy", base, shard_bytes=40_000)
    files = sorted(path.name for path in copy.glob("model-*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert torch.equal(logits(base, prepared=copy), logits(base))
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    together = [
        {index["weight_map"][f"model.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"}
        for kind in ("weight", "SCB")
    ]
    assert together[0] == together[1] and len(together[0]) == 1
    whole = prepare(tmp_path / "whole", base)
    assert torch.equal(their_logits(by_transformers(copy)), their_logits(by_transformers(whole)))


def test_the_mapped_pages_are_the_weights(base: Path, tmp_path: Path) -> None:
    copy = prepare(tmp_path / "copy", base)
    engine = TransformersEngine(base, device="cpu", prepared=copy)
    maps = [
        line.split()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(copy / "model.safetensors"))
    ]
    ranges = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]

    def is_mapped(tensor: torch.Tensor) -> bool:
        return any(
            begin <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= end
            for begin, end in ranges
        )

    forward: Any = engine._forward
    for layer in forward._layers:
        attention, mlp = (stage[0].run for stage in layer.stages)
        for linear in (attention.inputs, attention.output, mlp.run.gate_up, mlp.run.down):
            assert is_mapped(linear.inner.weight) and linear.inner.weight.data_ptr() % 64 == 0
    assert is_mapped(forward._embedding.table) and is_mapped(forward._head.weight)


def test_mapped_weights_need_no_memory_of_their_own(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = {"model.layers.0.mlp.up_proj.weight": (100_000, 65_536)}
    monkeypatch.setattr(memory_check, "available", lambda device: 1_000_000_000)
    with pytest.raises(OutOfResources):
        memory_check.check(shapes, "int8", torch.device("cpu"))
    memory_check.check(shapes, "int8", torch.device("cpu"), mapped=True)
    with pytest.raises(OutOfResources):
        memory_check.check(shapes, "int8", torch.device("cuda"), mapped=True)


def test_a_model_of_65_billion_is_planned_from_its_header(tmp_path: Path) -> None:
    """LLaMA-65B with a file that is all holes: the arithmetic alone."""
    config = tiny_config(
        vocab_size=32_000,
        hidden_size=8192,
        intermediate_size=22_016,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=64,
    )
    config.save_pretrained(tmp_path)
    shapes = {
        "model.embed_tokens.weight": (32_000, 8192),
        "lm_head.weight": (32_000, 8192),
        "model.norm.weight": (8192,),
    }
    for index in range(80):
        prefix = f"model.layers.{index}."
        shapes |= {f"{prefix}self_attn.{part}_proj.weight": (8192, 8192) for part in "qkvo"}
        shapes |= {f"{prefix}mlp.{part}_proj.weight": (22_016, 8192) for part in ("gate", "up")} | {
            f"{prefix}mlp.down_proj.weight": (8192, 22_016)
        }
        shapes |= {
            f"{prefix}{norm}_layernorm.weight": (8192,) for norm in ("input", "post_attention")
        }
    entries = [Entry(name, torch.bfloat16, shape) for name, shape in shapes.items()]
    first, starts = header(entries)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(first)
        file.truncate(max(starts[entry.name] + entry.size for entry in entries))
    planned = Preparation(tmp_path)
    linears = 80 * (4 * 8192 * 8192 + 3 * 8192 * 22_016)
    scales = 80 * 4 * (4 * 8192 + 2 * 22_016 + 8192)
    sixteen_bit = 2 * (2 * 32_000 * 8192 + 161 * 8192)
    head = 32_000 * 8192 + 4 * 32_000
    least = linears + scales + sixteen_bit + head
    assert least < planned.size < least + 300_000
    sizes = {
        name: sum(entry.size for entry in part)
        for name, part in planned._files.items()
        if name != HEAD_FILE
    }
    assert len(sizes) == 18 and max(sizes.values()) <= 4_000_000_000
    for part in planned._files.values():
        starts = header(part)[1]
        assert all(starts[entry.name] % 64 == 0 for entry in part if entry.size > 1)


MEASURE = """
import resource, sys
from pathlib import Path
import torch
from llmchat.engines.transformers.prepared_checkpoint import Preparation

torch.set_num_threads(1)
base, small, out = map(Path, sys.argv[1:])
Preparation(small).write(out)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Preparation(base).write(out)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_preparing_takes_the_memory_of_about_one_tensor(base: Path, tmp_path: Path) -> None:
    config = tiny_config(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    large = tmp_path / "large"
    config.save_pretrained(large)
    with init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(config)
    entries = [
        Entry(name, torch.bfloat16, tuple(parameter.shape))
        for name, parameter in model.named_parameters()
    ]
    writer = Writer(large / "model.safetensors", entries)
    for entry in entries:
        writer.put(entry.name, torch.full(entry.shape, 0.1, dtype=torch.bfloat16))
    writer.close()
    total = (large / "model.safetensors").stat().st_size
    (tmp_path / "out").mkdir()
    arguments = [sys.executable, "-c", MEASURE, str(large), str(base), str(tmp_path / "out")]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    one = 1024 * 4096 * 2
    assert total > 20 * one and int(done.stdout) < 5 * one, (
        f"{int(done.stdout):,} bytes for a checkpoint of {total:,}"
    )
