"""How many GPUs, and how they share a model: arithmetic on the configs of real models."""

import pytest

from llmchat.deploy.sizing import SHARE, WORK, Hardware, Layout, arrange, divides, room
from llmchat.errors import OutOfResources, UsageError

LLAMA_7B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "intermediate_size": 11008,
}
LLAMA_13B = {
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "hidden_size": 5120,
    "intermediate_size": 13824,
}
LLAMA_70B = {
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 8192,
    "intermediate_size": 28672,
}
FALCON_7B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "hidden_size": 4544,
    "multi_query": True,
}
GB = 1e9


def test_a_model_that_fits_one_gpu_gets_one_and_the_others_are_copies() -> None:
    layout = arrange(Hardware(1, 4, 80 * GB), LLAMA_7B, 6.74e9, 4096)
    assert (layout.tensor, layout.pipeline, layout.data, layout.gpus) == (1, 1, 4, 4)
    # 2 x 32 layers x 32 heads x 128 x 2 bytes = 524,288 bytes a token.
    assert (
        layout.cache == int((80 * GB * SHARE - WORK - 2 * 6.74e9) / 524_288)
        and layout.weights == 13.48e9
    )


def test_a_larger_model_is_shared_by_as_few_as_hold_it() -> None:
    assert arrange(Hardware(1, 8, 80 * GB), LLAMA_70B, 69e9, 4096) == Layout(
        4, 1, 2, 138e9, room(4, 1, 80 * GB, 138e9, LLAMA_70B)
    )
    assert arrange(Hardware(1, 4, 40 * GB), LLAMA_13B, 13e9, 2048).tensor == 2


def test_where_no_number_leaves_room_for_many_chats_all_gpus_share_it() -> None:
    layout = arrange(Hardware(1, 2, 80 * GB), LLAMA_70B, 69e9, 4096)
    assert layout.tensor == 2 and 4096 <= layout.cache < 8 * 4096


def test_without_the_memory_all_gpus_share_the_model() -> None:
    assert arrange(Hardware(1, 8), LLAMA_7B, 6.74e9, 4096) == Layout(8, weights=13.48e9)
    assert (
        arrange(Hardware(1, 6), LLAMA_7B, 6.74e9, 4096).tensor == 4
    )  # 32 heads do not divide by 6


def test_hosts_are_the_stages_of_a_pipeline() -> None:
    layout = arrange(Hardware(2, 8, 40 * GB), LLAMA_70B, 69e9, 4096)
    assert (layout.tensor, layout.pipeline, layout.data) == (8, 2, 1) and layout.gpus == 16
    with pytest.raises(UsageError, match="32 layers cannot be spread over 33 hosts"):
        arrange(Hardware(33, 1), LLAMA_7B, 6.74e9, 4096)


@pytest.mark.parametrize(
    ("config", "size", "possible"),
    [
        (LLAMA_7B, 8, True),
        (LLAMA_7B, 3, False),
        (LLAMA_13B, 5, False),
        (LLAMA_70B, 16, True),
        (FALCON_7B, 1, True),
        (FALCON_7B, 2, False),
        ({}, 2, False),
    ],
)
def test_heads_and_the_inner_width_must_divide(
    config: dict[str, int], size: int, possible: bool
) -> None:
    assert divides(size, config) is possible


def test_heads_of_keys_that_are_fewer_than_gpus_are_held_twice() -> None:
    free = 16 * (80 * GB * SHARE - WORK) - 138e9
    assert room(16, 1, 80 * GB, 138e9, LLAMA_70B) == int(free / (2 * 2 * 80 * 8 * 128 * 2))


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(OutOfResources, match=r"139 GB; these GPUs have room for 71 GB") as error:
        arrange(Hardware(1, 1, 80 * GB), LLAMA_70B, 69e9, 4096)
    assert error.value.hint == "--gpus 2 holds it"
    with pytest.raises(OutOfResources) as error:
        arrange(Hardware(1, 8, 16 * GB), LLAMA_70B, 69e9, 4096)
    assert error.value.hint == "at least 12 such GPUs: --gpus 8 --hosts 2"
    with pytest.raises(OutOfResources) as error:
        arrange(Hardware(1, 8, 1 * GB), LLAMA_7B, 6.74e9, 4096)
    assert error.value.hint == ""


def test_float32_takes_twice_the_room() -> None:
    with pytest.raises(OutOfResources):
        arrange(Hardware(1, 1, 24 * GB), LLAMA_7B, 6.74e9, 2048, "float32")
    assert arrange(Hardware(1, 1, 24 * GB), LLAMA_7B, 6.74e9, 2048, "bfloat16").cache > 2048
