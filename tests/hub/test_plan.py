"""The report of a pull before it downloads: sizes, memory, and whether base and adapters match.

Pure functions are tested by value, the rest against a Hub on loopback.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from support.checkpoints import save_adapter, save_tiny, tiny_config
from support.loopback_hub import Hub, Repo
from support.worlds import MakeWorld

from llmchat.errors import IntegrityError, Mismatch, NotAuthorised, OutOfResources
from llmchat.hub import adapters, cache, headers, inspect, make_plan, pull, report
from llmchat.hub.adapters import check, match_of_name, shapes_of_config
from llmchat.hub.inspection import Inspection
from llmchat.hub.machine import Disk, Machine
from llmchat.hub.plan import Plan
from llmchat.models import pulling
from llmchat.output.progress import NoProgress
from llmchat.presets import ContextPolicy, Preset, Source, names
from llmchat.presets import find as find_preset
from llmchat.settings import World

GB = 10**9
LLAMA_7B = {
    "model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
    "hidden_size": 4096, "intermediate_size": 11008, "vocab_size": 32000,
    "max_position_embeddings": 2048,
}  # fmt: skip
SHAPES_7B = shapes_of_config(LLAMA_7B)
ALPACA = {
    "base_model_name_or_path": "decapoda-research/llama-7b-hf",
    "peft_type": "LORA", "r": 16, "lora_alpha": 16,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "enable_lora": None,
}  # fmt: skip


def lora(config: dict[str, Any], base: headers.Shapes, rank: int = 16) -> headers.Shapes:
    """The tensors peft writes for a config."""
    shapes = {}
    for name in (key.removesuffix(".weight") for key in base):
        if name.rpartition(".")[2] in config["target_modules"]:
            out, inner = base[f"{name}.weight"]
            shapes |= {
                f"base_model.model.{name}.lora_A.weight": (rank, inner),
                f"base_model.model.{name}.lora_B.weight": (out, rank),
            }
    return shapes


def of_7b(**changes: Any) -> Inspection:
    source = Source("hub", "huggyllama/llama-7b")
    values = {
        "size": 13_477 * 10**6,
        "missing": 13_477 * 10**6,
        "disk": 13_477 * 10**6,
        "weights": 13_477 * 10**6,
        "files": 8,
    }
    return Inspection(
        source, "4" * 40, **(values | {"config": LLAMA_7B, "shapes": SHAPES_7B} | changes)
    )


def of_alpaca(**changes: Any) -> Inspection:
    values = {
        "size": 67_201_357,
        "missing": 67_201_357,
        "weights": 67_200_000,
        "files": 2,
        "form": "pickle",
        "adapter": ALPACA,
    }
    return Inspection(Source("hub", "tloen/alpaca-lora-7b"), "a" * 40, **(values | changes))


def plan_of(
    preset: Preset,
    *inspections: Inspection,
    ram: int = 16 * GB,
    gpus: Any = (),
    disk: int = 100 * GB,
    device: str = "auto",
    others: Any = (),
) -> Plan:
    disks = (Disk("/cache", sum(part.disk for part in inspections), disk),)
    return make_plan(preset, inspections, disks, Machine(ram, gpus), device, others)


pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def llama() -> Preset:
    """A preset of the 7B LLaMA with the Alpaca adapter, as the shipped one is."""
    return replace(
        find_preset("huggyllama/llama-7b"),
        name="alpaca-7b",
        adapters=(Source("hub", "tloen/alpaca-lora-7b"),),
        parameters=6.74e9,
        licence="LLaMA non-commercial licence",
        context=ContextPolicy(tokens=2048),
    )


def test_the_shapes_of_a_config_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    for changes in ({}, {"tie_word_embeddings": True}, {"head_dim": 32}):
        folder = save_tiny(tmp_path / str(len(changes)) / str(changes), tiny_config(**changes))
        config = json.loads((folder / "config.json").read_text())
        assert shapes_of_config(config) == headers.shapes_of_folder(folder)
    assert (
        sum(a * (b[0] if b else 1) for a, *b in SHAPES_7B.values()) == 6_738_415_616
        and shapes_of_config({"model_type": "t5"}) == {}
    )


def test_a_whole_plan_in_words(llama: Preset) -> None:
    plan = plan_of(llama, of_7b(licence="other", partial=1_200_000_000), of_alpaca())
    assert "\n".join(report.lines(plan)) == (
        "model      alpaca-7b, 6.74 billion parameters\n"
        "base       huggyllama/llama-7b @ 44444444: 13.5 GB in 8 files, safetensors\n"
        "adapter    tloen/alpaca-lora-7b @ aaaaaaaa: 67.2 MB in 2 files, pickle\n"
        "           rank 16, alpha 16, k_proj o_proj q_proj v_proj,"
        " its tensors are checked before the base is fetched\n"
        "           decapoda-research/llama-7b-hf is the same model as huggyllama/llama-7b\n"
        "licence    LLaMA non-commercial licence\n"
        "download   13.5 GB, 1.2 GB more are here from an earlier attempt\n"
        "disk       13.5 GB needed, 100.0 GB free in /cache\n"
        "memory     16.0 GB free in this machine's memory\n"
        "           1.1 GB of each size are for 2,048 tokens of context\n"
        "           int4     6.1 GB  fits\n"
        "           int8     8.7 GB  fits (chosen)\n"
        "           bf16    15.2 GB  fits\n"
        "note       the preset names the licence `LLaMA non-commercial licence`,"
        " huggyllama/llama-7b `other`\n"
        "verdict    yes: it fits"
    )
    assert report.short(plan) == [
        "alpaca-7b: 13.5 GB to download (1.2 GB are here from an earlier attempt);"
        " 8.7 GB of memory as int8, 16.0 GB free; licence: LLaMA non-commercial licence",
        "note: the preset names the licence `LLaMA non-commercial licence`,"
        " huggyllama/llama-7b `other`",
    ]


def test_too_large_for_the_memory_is_a_no_with_what_would_fit(llama: Preset) -> None:
    plan = plan_of(llama, of_7b(), of_alpaca(), ram=int(6.5 * GB))
    assert plan.verdict == "no" and plan.instead == ("--weights int4 (6.1 GB)",)
    with pytest.raises(OutOfResources) as refused:
        plan.enforce()
    assert (refused.value.message, refused.value.hint) == (
        "it needs 8.7 GB as int8; 6.5 GB are free in this machine's memory",
        "--weights int4 (6.1 GB); --force pulls it anyway",
    )
    plan.enforce(force=True)
    plan.enforce(memory=False)
    assert plan_of(replace(llama, weights="bf16"), of_7b(), ram=15 * GB).problems == ()
    assert plan_of(replace(llama, weights="bf16"), of_7b(), ram=10 * GB).instead == (
        "--weights int8 (8.7 GB)",
        "--weights int4 (6.1 GB)",
    )


def test_verdict_counts_a_kv_cache_of_8_bits(llama: Preset) -> None:
    usual, half = plan_of(llama, of_7b()), plan_of(replace(llama, kv="int8"), of_7b())
    assert half.memory.kv * 64 == usual.memory.kv * 34
    saved = usual.memory.kv - half.memory.kv
    assert usual.memory.total["int8"] - half.memory.total["int8"] == saved
    ram = half.memory.total["int8"]
    (note,) = plan_of(llama, of_7b(), ram=ram).notes
    assert "of 2,048 tokens of context fit in memory" in note
    assert plan_of(replace(llama, kv="int8"), of_7b(), ram=ram).notes == ()


def test_experts_that_would_not_fit_are_refused_before_the_download(llama: Preset) -> None:
    """Qwen1.5-MoE-A2.7B has 14.3 billion parameters, most of them in experts, which stay 16-bit
    where llmchat does not run the family itself.
    """
    layers, experts, width, inner = 24, 60, 2048, 1408
    shapes: headers.Shapes = {
        "model.embed_tokens.weight": (151936, width),
        "lm_head.weight": (151936, width),
    }
    for layer in (f"model.layers.{index}." for index in range(layers)):
        shapes |= {f"{layer}self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        for expert in range(experts):
            sizes = {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
            shapes |= {
                f"{layer}mlp.experts.{expert}.{part}_proj.weight": shape
                for part, shape in sizes.items()
            }
    config = {
        "model_type": "minimax",
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "hidden_size": width,
        "num_experts": experts,
    }
    base = of_7b(shapes=shapes, config=config)
    plan = plan_of(replace(llama, adapters=()), base, ram=20 * GB)
    assert plan.verdict == "no" and plan.memory.total["int8"] > plan.memory.total["bf16"] > 27 * GB
    assert plan.instead == ("no kind of weights makes it fit here; choose a smaller model",)
    unseen = plan_of(
        replace(llama, adapters=(), parameters=13.9e9), replace_shapes(base), ram=20 * GB
    )
    assert unseen.verdict == "no" and unseen.memory.total["int8"] > 27 * GB
    ours = of_7b(shapes=shapes, config=config | {"model_type": "qwen2_moe"})
    plan = plan_of(replace(llama, adapters=()), ours, ram=20 * GB)
    assert plan.verdict == "yes" and 13 * GB < plan.memory.total["int8"] < 17 * GB


def replace_shapes(inspection: Inspection) -> Inspection:
    """The same, of a checkpoint that does not show its tensors."""
    return replace(inspection, shapes={}, form="pickle")


def test_a_smaller_model_of_the_family_is_proposed(llama: Preset) -> None:
    small = replace(llama, name="alpaca-1b", parameters=1.1e9)
    tiny = replace(llama, name="alpaca-0.5b", parameters=0.5e9)
    foreign = replace(llama, name="vicuna-1b", parameters=1.1e9)
    plan = plan_of(llama, of_7b(), ram=2 * GB, others=[tiny, small, foreign, llama])
    assert plan.instead == ("alpaca-1b (1.7 GB)",)
    assert plan_of(llama, of_7b(), ram=GB // 2).instead == (
        "no kind of weights makes it fit here; choose a smaller model",
    )


def test_a_context_that_does_not_fit_is_no_refusal_but_a_shorter_one(llama: Preset) -> None:
    plan = plan_of(replace(llama, context=ContextPolicy(tokens=16384)), of_7b(), ram=10 * GB)
    assert plan.verdict == "yes" and plan.notes == (
        "4,352 of 16,384 tokens of context fit in memory: --context 4352",
    )


def test_the_gpu_is_asked_first_and_the_memory_where_it_is_too_small(llama: Preset) -> None:
    card = (("NVIDIA H200", 140 * GB),)
    assert plan_of(llama, of_7b(), gpus=card).place == "NVIDIA H200"
    assert plan_of(llama, of_7b(), gpus=card, device="cpu").place == "this machine's memory"
    small = plan_of(llama, of_7b(), gpus=(("GTX", 2 * GB),))
    assert small.place == "this machine's memory" and small.notes == (
        "the GPU is too small; --device cpu runs the model in this machine's memory",
    )
    assert plan_of(llama, of_7b(), gpus=(("GTX", 2 * GB),), device="cuda").verdict == "no"
    assert plan_of(llama, of_7b(), gpus=(("GTX", 5 * GB), ("GTX", 5 * GB))).place == "GTX + GTX"


def test_a_full_disk_cannot_be_forced(llama: Preset) -> None:
    plan = plan_of(llama, of_7b(), disk=5 * GB)
    with pytest.raises(
        OutOfResources, match=r"13\.5 GB of disk are needed, 5\.0 GB are free in /cache"
    ) as refused:
        plan.enforce(force=True)
    assert "HF_HOME" in refused.value.hint and "--force" not in refused.value.hint


def test_the_names_that_adapters_give_their_bases() -> None:
    base = "huggyllama/llama-7b"
    assert (
        match_of_name("decapoda-research/llama-7b-hf", base, [])
        == f"decapoda-research/llama-7b-hf is the same model as {base}"
    )
    assert match_of_name(base, base, []) == "the same repo"
    assert match_of_name("", base, []) == "it does not name its base"
    assert (
        match_of_name("someone/llama-7b", base, [])
        == "someone/llama-7b: another repo with the same name"
    )
    assert (
        match_of_name("org/opt", base, []) == f"it was trained on org/opt: not known to be {base}"
    )
    merged = "trl-lib/llama-se-merged"
    assert (
        match_of_name(merged, base, ["trl-lib/llama-7b-se-peft"])
        == f"{merged} is {base} with trl-lib/llama-7b-se-peft"
    )
    with pytest.raises(Mismatch) as alone:
        match_of_name(merged, base, [], "rl")
    assert alone.value.hint == "apply trl-lib/llama-7b-se-peft before it"


def test_an_adapter_of_the_base_is_told_apart_from_others() -> None:
    whole = lora(ALPACA, SHAPES_7B)
    facts = check("alpaca", ALPACA, whole, 0, "huggyllama/llama-7b", [], SHAPES_7B)
    assert (facts.rank, facts.alpha, facts.tensors, facts.targets) == (
        16,
        16,
        256,
        ("k_proj", "o_proj", "q_proj", "v_proj"),
    )
    larger = shapes_of_config(
        LLAMA_7B | {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
    )
    wrong = [
        (
            lora(ALPACA, larger),
            "is for a base whose `model.layers.0.self_attn.q_proj` is 5120 x 5120;"
            " here it is 4096 x 4096",
        ),
        (
            lora(ALPACA, shapes_of_config(LLAMA_7B | {"num_hidden_layers": 33})),
            "changes `model.layers.32.self_attn.q_proj`, which the base",
        ),
        (dict(list(whole.items())[:-2]), "is incomplete: 254 tensors, but its config names 256"),
        (dict(list(whole.items())[:-1]), "has one of its two matrices"),
        ({"something.else": (3,)}, "is empty: it holds no LoRA matrices"),
        (
            whole | {"base_model.model.model.embed_tokens.weight": (32001, 4096)},
            "has a vocabulary of 32,001 tokens; the base has 32,000",
        ),
        (
            whole | {next(key for key in whole if "lora_B" in key): (4096, 8)},
            "is damaged: the two matrices of",
        ),
    ]
    for shapes, line in wrong:
        with pytest.raises(Mismatch, match=line):
            check("alpaca", ALPACA, shapes, 0, "huggyllama/llama-7b", [], SHAPES_7B)


def test_an_adapter_in_a_pickle_is_judged_by_its_size() -> None:
    for size, line in (
        (443, r"alpaca \(443 bytes\) is empty"),
        (5_000_000, "is incomplete: 5,000,000 bytes, but rank 16"),
    ):
        with pytest.raises(Mismatch, match=line):
            check("alpaca", ALPACA, {}, size, "huggyllama/llama-7b", [], SHAPES_7B)
    check("alpaca", ALPACA, {}, 67_201_357, "huggyllama/llama-7b", [], SHAPES_7B)
    with pytest.raises(Mismatch, match="is empty"):
        check("alpaca", ALPACA, {}, 443, "org/unknown", [], {})


def test_checkpoints_that_leave_out_the_first_part_of_a_name() -> None:
    base = {"h.0.attn.c_attn.weight": (768, 2304)}
    shapes = {
        "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": (8, 768),
        "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight": (2304, 8),
    }
    config = {"r": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    assert adapters.check("gpt2", config, shapes, 0, "gpt2", [], base).tensors == 2


def header(
    table: Any, size: int = 0, length: int | None = None
) -> tuple[Callable[[int, int], bytes], int]:
    content = json.dumps(table).encode() if not isinstance(table, bytes) else table
    whole = (
        (len(content) if length is None else length).to_bytes(8, "little") + content + bytes(size)
    )
    return (lambda start, count: whole[start : start + count]), len(whole)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (header({}, length=2**63), "its header would be 9,223,372,036,854,775,808 bytes long"),
        (header({}, length=10**6), "its header would be 1,000,000 bytes long"),
        (header(b"", length=0), "its header would be 0 bytes long"),
        (header(b"no json at all"), "its header is invalid"),
        (header([1]), "its header is invalid"),
        (
            header({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 4]}}, 4),
            "its header is invalid",
        ),
        (
            header({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, 8),
            "is incomplete",
        ),
        (header(b"[" * 100_000), "its header is invalid"),
    ],
)  # fmt: skip
def test_what_is_no_header(made: Any, line: str) -> None:
    read, size = made
    with pytest.raises(IntegrityError, match=line):
        headers.read_facts(read, size, "model.safetensors")


def test_a_header_is_read_without_its_tensors() -> None:
    read, size = header(
        {
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "__metadata__": {"format": "pt"},
        },
        16,
    )
    assert headers.read_facts(read, size, "x") == {"a": ("F32", (2, 2))}


@pytest.fixture
def tuned() -> Preset:
    return replace(find_preset("org/base"), adapters=(Source("hub", "org/adapter"),))


def pickle_it(hub: Hub, repo: str, stem: str, folder: Path, tmp_path: Path) -> None:
    files = hub.repos[repo].files
    name = next(name for name in files if name.endswith(".safetensors"))
    torch.save(load_file(folder / name), tmp_path / "x.bin")
    del files[name]
    files[f"{stem}.bin"] = (tmp_path / "x.bin").read_bytes()


def test_a_survey_fetches_headers_and_small_files_alone(
    hub: Hub, at: MakeWorld, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    found = inspect(Source("hub", "org/base"), at())
    assert found.shapes == headers.shapes_of_folder(folders[0]) and found.licence == "apache-2.0"
    assert found.config["hidden_size"] == 64 and not found.here and found.missing == found.size
    assert all(request.range for request in hub.downloads()) and hub.sent < 10_000
    assert not (tmp_path / "hf").exists() and not (tmp_path / "home").exists(), (
        "a look leaves no trace"
    )


def test_what_is_here_is_not_counted_again(hub: Hub, at: MakeWorld) -> None:
    source = Source("hub", "org/base")
    whole = inspect(source, at()).missing
    hub.cut_after = [100_000, *[0] * 20]
    with pytest.raises(Exception, match="cut again and again"):
        pull(source, at(), NoProgress())
    half = inspect(source, at())
    assert half.partial >= 100_000 and half.missing + half.partial <= whole
    hub.cut_after = []
    pulled = pull(source, at(), NoProgress())
    assert pulled.downloaded == half.missing
    again = inspect(source, at())
    assert again.here and again.missing == again.partial == 0


def test_a_wrong_adapter_is_refused_before_the_base_is_fetched(
    hub: Hub, at: MakeWorld, tuned: Preset, tmp_path: Path
) -> None:
    other = save_tiny(tmp_path / "other", tiny_config(hidden_size=128))
    hub.repos["org/adapter"] = Repo.of_folder(save_adapter(tmp_path / "adapter", other))
    planned = pulling.plan_pull(tuned, at())
    with pytest.raises(Mismatch, match="is 128 x 128; here it is 64 x 64"):
        planned.plan.enforce()
    assert hub.sent < 20_000


def test_a_wrong_adapter_in_a_pickle_is_refused_before_the_base_is_fetched(
    hub: Hub, at: MakeWorld, tuned: Preset, tmp_path: Path
) -> None:
    other = save_tiny(tmp_path / "other", tiny_config(hidden_size=128))
    folder = save_adapter(tmp_path / "adapter", other)
    hub.repos["org/adapter"] = Repo.of_folder(folder)
    pickle_it(hub, "org/adapter", "adapter_model", folder, tmp_path)
    planned = pulling.plan_pull(tuned, at())
    planned.plan.enforce()
    with pytest.raises(Mismatch, match="is 128 x 128; here it is 64 x 64"):
        pulling.pull(planned, at(), NoProgress())
    weights = [
        request.path
        for request in hub.downloads()
        if "org/base" in request.path and not request.range
    ]
    assert weights == [], "nothing of the base but its header"
    assert len(pulling.pull(planned, at(), NoProgress(), force=True)) == 2


def test_a_base_that_shows_its_tensors_only_when_it_is_here_is_checked_then(
    hub: Hub, at: MakeWorld, tuned: Preset, tmp_path: Path
) -> None:
    folder = save_adapter(
        tmp_path / "adapter", save_tiny(tmp_path / "other", tiny_config(hidden_size=128))
    )
    hub.repos["org/adapter"] = Repo.of_folder(folder)
    planned = pulling.plan_pull(tuned, at())
    unseen = replace(
        planned,
        inspections=(
            replace(planned.inspections[0], shapes={}, config={}),
            *planned.inspections[1:],
        ),
    )
    with pytest.raises(Mismatch, match="is 128 x 128; here it is 64 x 64"):
        pulling.pull(unseen, at(), NoProgress())


def test_an_empty_adapter_is_refused_before_anything_is_fetched(
    hub: Hub, at: MakeWorld, tuned: Preset
) -> None:
    files = hub.repos["org/adapter"].files
    del files["adapter_model.safetensors"]
    files["adapter_model.bin"] = b"\x80" * 443
    with pytest.raises(Mismatch, match=r"the adapter org/adapter \(443 bytes\) is empty"):
        pulling.plan_pull(tuned, at()).plan.enforce()
    assert hub.sent < 10_000


def test_an_empty_adapter_that_is_pulled_by_itself(hub: Hub, at: MakeWorld) -> None:
    planned = pulling.plan_pull(find_preset("org/adapter"), at())
    assert planned.plan.verdict == "yes" and planned.plan.adapters[0].tensors == 8
    files = hub.repos["org/adapter"].files
    del files["adapter_model.safetensors"]
    files["adapter_model.bin"] = bytes(443)
    with pytest.raises(Mismatch, match="is empty"):
        pulling.plan_pull(find_preset("org/adapter"), at()).plan.enforce()


def test_a_model_that_cannot_run_here_is_not_pulled(llama: Preset) -> None:
    plan = plan_of(replace(llama, unsupported="it needs an engine that is not here"), of_7b())
    with pytest.raises(Mismatch, match="it needs an engine that is not here"):
        plan.enforce(memory=False)


def test_a_gguf_file_is_planned_from_its_header(tmp_path: Path, world: World) -> None:
    import gguf
    import numpy

    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_context_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for name, shape in (
        ("token_embd.weight", (320, 64)),
        ("blk.0.attn_k.weight", (32, 64)),
        ("output.weight", (320, 64)),
    ):
        writer.add_tensor(name, numpy.zeros(shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = inspect(Source("path", str(tmp_path / "tiny.gguf")), world)
    assert found.shapes == {
        "model.embed_tokens.weight": (320, 64),
        "model.layers.0.self_attn.k_proj.weight": (32, 64),
        "lm_head.weight": (320, 64),
    }
    plan = pulling.plan_pull(find_preset(str(tmp_path / "tiny.gguf")), world).plan
    assert (plan.memory.context, plan.memory.kv, plan.parameters) == (
        256,
        2 * 2 * 2 * 16 * 2 * 256,
        2 * 320 * 64 + 32 * 64,
    )
    (tmp_path / "broken.gguf").write_bytes(b"no such thing")
    assert inspect(Source("path", str(tmp_path / "broken.gguf")), world).shapes == {}


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from(["a", "..", ".", "/", "\\", "C:", "\0", "~"]), max_size=6).map(
        "".join
    )
)
def test_a_name_that_is_allowed_stays_in_its_folder_on_every_system(name: str) -> None:
    try:
        cache.checked_name(name)
    except IntegrityError:
        return
    assert (Path("/cache") / name).resolve().is_relative_to("/cache") and name
    assert (
        not PureWindowsPath(name).drive
        and not PureWindowsPath(name).root
        and ".." not in PureWindowsPath(name).parts
    )


def test_each_adapter_of_a_chain_is_checked(
    hub: Hub, at: MakeWorld, tuned: Preset, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    half = {
        key: tensor
        for key, tensor in load_file(folders[1] / "adapter_model.safetensors").items()
        if ".0." in key
    }
    shutil.copytree(folders[1], tmp_path / "half")
    save_file(half, tmp_path / "half" / "adapter_model.safetensors")
    hub.repos["org/half"] = Repo.of_folder(tmp_path / "half")
    chain = replace(tuned, adapters=(*tuned.adapters, Source("hub", "org/half")))
    with pytest.raises(
        Mismatch, match="the adapter org/half is incomplete: 4 tensors, but its config names 8"
    ):
        pulling.plan_pull(chain, at()).plan.enforce()


def test_a_pickled_base_is_planned_from_its_config(
    hub: Hub, at: MakeWorld, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pickle_it(hub, "org/base", "pytorch_model", folders[0], tmp_path)
    planned = pulling.plan_pull(find_preset("org/base"), at())
    assert planned.plan.parameters == sum(
        tensor.numel() for tensor in load_file(folders[0] / "model.safetensors").values()
    )
    (disk,) = planned.plan.disks
    assert disk.needed > planned.plan.download, "the converted copy takes room, too"


def test_a_gated_repo_is_told_before_its_weights(hub: Hub, at: MakeWorld) -> None:
    repo = hub.repos["org/base"]
    repo.gated = repo.listed = True
    with pytest.raises(NotAuthorised, match="org/base is gated"):
        inspect(Source("hub", "org/base"), at())
    found = inspect(Source("hub", "org/base"), at(HF_TOKEN=hub.token))
    assert found.gated == "auto"


def code_of(hub: Hub, **auto_map: str) -> None:
    files = hub.repos["org/base"].files
    config = json.loads(files["config.json"]) | {
        "model_type": "marvel",
        "auto_map": auto_map or {"AutoModelForCausalLM": "modeling.Marvel"},
    }
    files |= {"config.json": json.dumps(config).encode(), "modeling.py": b"raise SystemExit"}


def test_code_of_a_checkpoint_needs_the_users_word(hub: Hub, at: MakeWorld) -> None:
    code_of(hub)
    preset = find_preset("org/base")
    with pytest.raises(Mismatch, match="transformers does not support `marvel`") as refused:
        pulling.plan_pull(preset, at())
    assert refused.value.hint == (
        f"--trust-remote-code runs the code of org/base@{'a' * 40} on this machine; read it first"
    )
    planned = pulling.plan_pull(preset, at(), code=True)
    said = f"loading the model runs code of org/base@{'a' * 40}: modeling.py"
    assert said in planned.plan.notes
    (pulled,) = pulling.pull(planned, at(), NoProgress())
    assert (pulled.checkpoint.path / "modeling.py").exists()


def test_code_is_fetched_later_when_it_was_not_at_first(hub: Hub, at: MakeWorld) -> None:
    hub.repos["org/base"].files["modeling.py"] = b"x = 1"
    preset = find_preset("org/base")
    (first,) = pulling.pull(pulling.plan_pull(preset, at()), at(), NoProgress())
    assert not (first.checkpoint.path / "modeling.py").exists()
    (second,) = pulling.pull(pulling.plan_pull(preset, at(), code=True), at(), NoProgress())
    assert (
        second.checkpoint.path / "modeling.py"
    ).read_bytes() == b"x = 1" and second.downloaded == 5


def test_code_of_another_repo_is_refused(hub: Hub, at: MakeWorld) -> None:
    code_of(hub, AutoModelForCausalLM="evil/code--modeling.Marvel")
    with pytest.raises(
        Mismatch, match="would run code of another repo, evil/code, at no fixed commit"
    ):
        pulling.plan_pull(find_preset("org/base"), at(), code=True)


def test_a_damaged_config_is_said(hub: Hub, at: MakeWorld) -> None:
    for content, line in (
        (b"{", "config.json is not valid JSON"),
        (b"[]", "config.json is not a JSON object"),
    ):
        hub.repos["org/base"].files["config.json"] = content
        with pytest.raises(IntegrityError, match=line):
            pulling.plan_pull(find_preset("org/base"), at())


def test_a_server_that_ignores_ranges_is_read_as_well(
    hub: Hub, at: MakeWorld, folders: tuple[Path, Path]
) -> None:
    hub.ignore_ranges = True
    assert inspect(Source("hub", "org/base"), at()).shapes == headers.shapes_of_folder(folders[0])


def test_every_shipped_preset_has_a_plan_without_files(world: World) -> None:
    for preset in names().values():
        inspections = [
            Inspection(source, size=10**9, missing=10**9)
            for source in (preset.base, *preset.adapters)
        ]
        plan = make_plan(
            preset,
            [
                replace(part, adapter=ALPACA, weights=10**9) if index else part
                for index, part in enumerate(inspections)
            ],
            (),
            Machine(10**15),
            "auto",
            (),
        )
        assert plan.download == 10**9 * len(inspections) and report.lines(plan)


def test_an_adapter_on_embedding_and_tied_head_is_known_to_fit_before_it_is_fetched() -> None:
    base = {"model.embed_tokens.weight": (320, 64), "model.norm.weight": (64,)}
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["embed_tokens", "lm_head"],
    }
    prefix = "base_model.model."
    shapes = {
        f"{prefix}model.embed_tokens.lora_embedding_A": (4, 320),
        f"{prefix}model.embed_tokens.lora_embedding_B": (64, 4),
        f"{prefix}lm_head.lora_A.weight": (4, 64),
        f"{prefix}lm_head.lora_B.weight": (320, 4),
    }
    assert check("school", config, shapes, 0, "org/base", [], base).tensors == 4
    other = {"model.embed_tokens.weight": (500, 64), "model.norm.weight": (64,)}
    with pytest.raises(Mismatch, match=r"is for a base whose `model\.embed_tokens` is"):
        check("school", config, shapes, 0, "org/base", [], other)
