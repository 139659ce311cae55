"""Tiny checkpoints of every family that the engine is meant to run.

`CASES` names each one: a bare name is the ordinary variant of its family, `name: variant` another
one. Ordinary variants have heads of 16, which every executor takes. Windows, chunks and the lengths
that a rotary embedding was trained for are shorter than the texts of the tests.
"""

from support.family_cases.llama import LLAMA, MISTRAL
from support.family_cases.mixtures import DEEPSEEK, GLM, HYBRID
from support.family_cases.others import OF_2023, OTHERS
from support.family_cases.qwen_gemma import GEMMA, QWEN

CASES = LLAMA | MISTRAL | QWEN | GEMMA | DEEPSEEK | GLM | HYBRID | OTHERS | OF_2023
ORDINARY = [name for name in CASES if ":" not in name]


def family_of(name: str) -> str:
    """The family that a case belongs to."""
    return name.partition(":")[0]


# Weights with which greedy decoding does not repeat a token or two for ever.
SEEDS = {
    "llama: linear rope": 1,
    "olmo2: odd": 1,
    "qwen3: odd, tied, biases": 1,
    "gemma3": 1,
    "granite-moe": 1,
    "cohere: odd, norms": 1,
    "gemma4: experts": 1,
    "phi: norms of heads": 2,
    "gpt-oss: odd": 1,
    "falcon-40b": 3,
    "falcon-40b: odd, biases, one norm": 2,
    "nemotron": 1,
    "falcon-rw": 3,
    "falcon-rw: odd": 3,
    "bloom: odd, residual after the norm": 3,
    "mpt: odd, scale": 1,
}
