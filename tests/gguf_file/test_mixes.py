"""Which matrix has which kind in a mix, as llama.cpp's quantize tool chooses them."""

import pytest

from llmchat.gguf_file.mixes import MIXES, Facts, fitting, kinds_in_mix
from llmchat.gguf_file.types import file_type_of

DENSE = Facts(24, 0, 7, "qwen2")
NAMES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def shapes(
    layers: int = 24, width: int = 1024, names: tuple[str, ...] = NAMES, has_head: bool = True
) -> dict[str, tuple[int, ...]]:
    found = {f"blk.{n}.{name}.weight": (8, width) for n in range(layers) for name in names}
    head = {"output.weight": (32, width)} if has_head else {}
    return found | head | {"token_embd.weight": (32, width)}


def layers_of(found: dict[str, str], name: str, kind: str) -> list[int]:
    """The layers whose matrix of a name has a kind."""
    ends = f".{name}.weight"
    return [
        int(key.split(".")[1]) for key, own in found.items() if key.endswith(ends) and own == kind
    ]


def test_wider_layers_are_both_ends_and_every_third() -> None:
    found = kinds_in_mix(shapes(), "Q4_K_M", DENSE)
    wide = [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    for name in ("attn_v", "ffn_down"):
        assert layers_of(found, name, "Q6_K") == wide
        assert len(layers_of(found, name, "Q4_K")) == 12
    assert layers_of(found, "attn_k", "Q4_K") == [*range(24)]
    assert found["output.weight"] == "Q6_K" and found["token_embd.weight"] == "Q4_K"


def test_an_embedding_that_is_the_head_has_the_kind_of_the_head() -> None:
    found = kinds_in_mix(shapes(has_head=False), "Q3_K_S", DENSE)
    assert found["token_embd.weight"] == "Q6_K"


# Of a model of 32 layers: values, last projection, attention's output.
ROLES = {
    "Q2_K": ("Q4_K", "Q3_K", "Q3_K"),
    "Q3_K_S": ("Q3_K", "Q3_K", "Q3_K"),
    "Q3_K_L": ("Q5_K", "Q5_K", "Q5_K"),
    "Q5_K_S": ("Q5_K", "Q5_K", "Q5_K"),
    "Q6_K": ("Q6_K", "Q6_K", "Q6_K"),
}


@pytest.mark.parametrize("mix", ROLES)
def test_kinds_that_are_the_same_in_all_layers(mix: str) -> None:
    found = kinds_in_mix(shapes(32), mix, Facts(32, 0, 8, "llama"))
    for name, kind in zip(("attn_v", "ffn_down", "attn_output"), ROLES[mix], strict=True):
        assert layers_of(found, name, kind) == [*range(32)]


@pytest.mark.parametrize(
    ("mix", "name", "kind", "layers"),
    [
        ("Q4_K_S", "attn_v", "Q5_K", [0, 1, 2, 3]),
        ("Q4_K_S", "ffn_down", "Q5_K", [0, 1, 2, 3]),
        ("Q3_K_M", "attn_v", "Q5_K", [0, 1]),
        ("Q3_K_M", "ffn_down", "Q5_K", [0, 1]),
        ("Q3_K_M", "ffn_down", "Q4_K", [*range(2, 32)]),
        ("Q3_K_M", "attn_output", "Q4_K", [*range(32)]),
        ("IQ4_XS", "ffn_down", "Q5_K", [0, 1, 2, 3]),
    ],
)
def test_kinds_of_the_first_layers(mix: str, name: str, kind: str, layers: list[int]) -> None:
    found = kinds_in_mix(shapes(32), mix, Facts(32, 0, 1, "llama"))
    assert layers_of(found, name, kind) == layers


@pytest.mark.parametrize(("shared", "kind"), [(1, "Q3_K"), (3, "Q3_K"), (4, "Q4_K")])
def test_values_that_many_queries_share_are_wider(shared: int, kind: str) -> None:
    found = kinds_in_mix(shapes(2), "Q2_K", Facts(2, 0, shared, "llama"))
    assert layers_of(found, "attn_v", kind) == [0, 1]


def test_models_of_80_layers_have_wide_values() -> None:
    for facts, kind in ((Facts(80, 0, 8, "llama"), "Q5_K"), (Facts(80, 0, 8, "gemma"), "Q3_K")):
        found = kinds_in_mix(shapes(80), "Q3_K_S", facts)
        assert layers_of(found, "attn_v", kind) == [*range(80)]


EXPERTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down_exps", "ffn_down_shexp")


def test_eight_experts_have_wide_attention() -> None:
    found = kinds_in_mix(shapes(8, names=EXPERTS), "Q4_K_M", Facts(8, 8, 4, "llama"))
    layer = {name: found[f"blk.3.{name}.weight"] for name in EXPERTS}
    assert layer == {
        "attn_q": "Q4_K", "attn_k": "Q8_0", "attn_v": "Q8_0", "attn_output": "Q5_K",
        "ffn_down_exps": "Q6_K", "ffn_down_shexp": "Q6_K",
    }  # fmt: skip
    others = kinds_in_mix(shapes(8, names=EXPERTS), "Q4_K_M", Facts(8, 64, 4, "llama"))
    assert others["blk.3.attn_k.weight"] == others["blk.3.attn_output.weight"] == "Q4_K"
    old = kinds_in_mix(shapes(8, names=EXPERTS), "Q4_0", Facts(8, 8, 4, "llama"))
    assert set(old.values()) == {"Q4_0", "Q8_0"}


def test_mxfp4_is_the_kind_of_experts_alone() -> None:
    found = kinds_in_mix(shapes(8, names=EXPERTS), "MXFP4_MOE", Facts(8, 32, 8, "gpt-oss"))
    assert layers_of(found, "ffn_down_exps", "MXFP4") == [*range(8)]
    assert [*found.values()].count("Q8_0") == len(found) - 8


@pytest.mark.parametrize(
    ("kind", "width", "fallback"),
    [
        ("Q2_K", 576, "Q4_0"), ("Q3_K", 576, "Q4_0"), ("Q4_K", 576, "Q5_0"), ("Q5_K", 96, "Q5_1"),
        ("Q6_K", 576, "Q8_0"), ("IQ4_XS", 64, "IQ4_NL"), ("Q4_K", 101, "F16"), ("Q4_0", 16, "F16"),
        ("Q6_K", 512, "Q6_K"), ("IQ4_NL", 96, "IQ4_NL"), ("F16", 3, "F16"),
    ],
)  # fmt: skip
def test_rows_that_are_not_whole_blocks_have_another_kind(
    kind: str, width: int, fallback: str
) -> None:
    assert fitting(kind, width) == fallback


def test_every_mix_has_a_number_in_the_file() -> None:
    numbers = [file_type_of(name) for name in MIXES]
    assert len(set(numbers)) == len(MIXES)
    assert (file_type_of("Q4_K_M"), file_type_of("Q2_K"), file_type_of("MXFP4_MOE")) == (15, 10, 38)
