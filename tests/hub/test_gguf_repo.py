"""The files of a GGUF repo: grouped, called by their quantisation, found, and one proposed."""

import pytest

from llmchat.errors import LlmchatError, Mismatch, ModelNotFound, UsageError
from llmchat.hub.cache import RemoteFile
from llmchat.hub.gguf_repo import choose_variant, is_gguf_repo, propose, variants, with_variant
from llmchat.presets import Source

# Sizes in MB, as Qwen2.5-Coder-1.5B-Instruct-GGUF has them.
QWEN = {
    "qwen-q2_k.gguf": 676, "qwen-q3_k_m.gguf": 924, "qwen-q4_0.gguf": 1066,
    "qwen-q4_k_m.gguf": 1117, "qwen-q5_k_m.gguf": 1285,
    "qwen-q6_k.gguf": 1464, "qwen-q8_0.gguf": 1894,
    "qwen-fp16-00001-of-00002.gguf": 2000, "qwen-fp16-00002-of-00002.gguf": 1560,
    "mmproj-qwen-f16.gguf": 500, "imatrix_unsloth.gguf": 2, "README.md": 1,
}  # fmt: skip


def files(sizes: dict[str, int]) -> list[RemoteFile]:
    return [RemoteFile(name, size * 10**6, "e" * 64, True) for name, size in sizes.items()]


def named(variant: str) -> Source:
    return Source("hub", "org/r", variant=variant)


def test_variants_are_called_by_their_quantisation_and_parts_are_one() -> None:
    found = variants(files(QWEN))
    assert [variant.name for variant in found] == [
        "Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "FP16",
    ]  # fmt: skip
    assert [file.name for file in found[-1].files] == [
        "qwen-fp16-00001-of-00002.gguf",
        "qwen-fp16-00002-of-00002.gguf",
    ]
    assert found[-1].size == 3560 * 10**6


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"]),
        (["m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf"], ["Q4_K_M", "UD-Q4_K_XL"]),
        (["BF16/m-00001-of-00001.gguf", "Q8_0/m-00001-of-00001.gguf"], ["BF16", "Q8_0"]),
        (["model.gguf"], ["model.gguf"]),
        (["gpt-oss-20b-mxfp4.gguf"], ["MXFP4"]),
    ],
)
def test_a_file_has_its_own_name_where_its_quantisation_tells_too_little(
    names: list[str], called: list[str]
) -> None:
    assert [one.name for one in variants(files(dict.fromkeys(names, 1)))] == called


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("q4_k_m", "Q4_K_M"),
        ("qwen-q4_k_m.gguf", "Q4_K_M"),
        ("qwen-q4_k_m", "Q4_K_M"),
        ("fp16", "FP16"),
        ("qwen-fp16-00002-of-00002.gguf", "FP16"),
        ("qwen-fp16.gguf", "FP16"),
    ],
)
def test_a_variant_is_found_by_quantisation_and_by_file(text: str, name: str) -> None:
    assert choose_variant(named(text), variants(files(QWEN))).name == name


def test_the_name_of_a_dynamic_quantisation_may_be_short() -> None:
    known = variants(files({"m-UD-Q4_K_XL.gguf": 1, "m-Q4_K_M.gguf": 1}))
    assert choose_variant(named("q4_k_xl"), known).name == "UD-Q4_K_XL"


FAULTS: dict[str, tuple[str, dict[str, int], type[LlmchatError], str, str]] = {
    "an unknown name": (
        "Q4_K_S", {"a-Q4_K_M.gguf": 1}, ModelNotFound, "org/r has no `Q4_K_S`", "Q4_K_M",
    ),
    "a missing part": (
        "Q8_0", {"a-Q8_0-00001-of-00003.gguf": 1, "a-Q8_0-00003-of-00003.gguf": 1}, ModelNotFound,
        "the repo has 2 of 3 parts", "another quantisation",
    ),
    "no GGUF files": (
        "Q4_0", {"model.safetensors": 1, "mmproj-Q4_0.gguf": 1}, Mismatch, "has no GGUF files",
        "leave `:Q4_0` out",
    ),
    "no name": ("", {"a-Q4_0.gguf": 1, "a-Q8_0.gguf": 1}, UsageError, "Q4_0, Q8_0", "org/r:Q4_0"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_names_the_way_out(name: str) -> None:
    variant, sizes, kind, line, hint = FAULTS[name]
    with pytest.raises(kind) as refused:
        choose_variant(named(variant), variants(files(sizes)))
    assert type(refused.value) is kind
    assert line in refused.value.message and hint in refused.value.hint


def test_a_repo_with_other_weights_is_one_of_gguf_only_where_a_file_is_named() -> None:
    both = files({"model.safetensors": 9, "m-Q4_0.gguf": 1})
    assert not is_gguf_repo(Source("hub", "org/r"), both)
    assert with_variant(Source("hub", "org/r"), both) == Source("hub", "org/r")
    assert with_variant(named("q4_0"), both) == named("Q4_0")
    assert is_gguf_repo(Source("hub", "org/r"), files({"m-Q4_0.gguf": 1}))
    assert not is_gguf_repo(Source("hub", "org/r"), files({"adapter_config.json": 1, "a.gguf": 1}))


@pytest.mark.parametrize(
    ("parameters", "room", "name"),
    [
        (1.5e9, 10_000, "Q4_K_M"),
        (1.5e9, 1100, "Q4_0"),
        (1.5e9, 1000, "Q3_K_M"),
        (1.5e9, 700, "Q2_K"),
        (0.5e9, 10_000, "Q8_0"),
        (0.5e9, 1500, "Q6_K"),
        (1.5e9, 100, None),
    ],
)
def test_the_best_that_fits_is_proposed(parameters: float, room: int, name: str | None) -> None:
    best = propose(variants(files(QWEN)), parameters, lambda one: one.size <= room * 10**6)
    assert (best.name if best else None) == name


def test_a_coarse_quantisation_is_the_last_to_be_proposed() -> None:
    known = variants(files({"m-IQ3_M.gguf": 900, "m-Q8_0.gguf": 1800}))
    best = propose(known, 1.5e9, lambda one: True)
    assert best and best.name == "Q8_0"
