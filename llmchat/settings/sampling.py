"""The sampling parameters, listed once: how an engine chooses the next token.

Flags, LLMCHAT_* variables, config and preset keys, `/set`, the fields of the HTTP API and of the
web page, and their documentation derive from these fields. A new parameter is a field here, its
effect in compiled/csrc/sampling.h and pytorch/sampler.py or in pytorch/penalties.py, and its names
in engines/parameter_names.py.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import fields

from llmchat.settings.types import Count, Seed, Think
from llmchat.structure import Structure

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Breaker = Annotated[str, Meta(min_length=1, max_length=40)]


class Distribution(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the model's probabilities for the next token are changed before one is drawn.

    Meta.title is the word for it in `/set`, Meta.description the help text of its flag. The C
    sampler holds the same fields in the same order (`SamplingParams` in compiled/csrc/sampling.h).
    """

    temperature: Annotated[
        float, Meta(ge=0, le=5, title="randomness", description="0 is greedy.")
    ] = 0.7
    top_p: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            title="nucleus",
            description="Keep the most likely tokens up to this probability mass.",
        ),
    ] = 1.0
    top_k: Annotated[
        Count,
        Meta(title="shortlist", description="Keep the K most likely tokens; 0 turns it off."),
    ] = 0
    min_p: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            title="floor",
            description="Drop tokens below this fraction of the top token's probability.",
        ),
    ] = 0.0


class Penalties(Distribution, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How logits are changed before that, by the tokens so far.

    They apply in this order, that of vLLM's and llama.cpp's samplers: bias, repetition penalty,
    frequency and presence penalty, DRY. The repetition penalty counts the prompt and the answer,
    frequency and presence the answer alone, DRY both in their order.
    """

    logit_bias: Annotated[
        dict[TokenId, Bias],
        Meta(
            title="bias",
            description='Added to the logits of tokens, as JSON: {"TOKEN_ID": -100 to 100}.',
        ),
    ] = {}
    repetition_penalty: Annotated[
        float,
        Meta(
            gt=0,
            le=10,
            title="repetition",
            description="Values above 1 penalise repetition; 1 turns it off.",
        ),
    ] = 1.0
    frequency_penalty: Annotated[
        float,
        Meta(
            ge=-2,
            le=2,
            title="frequency",
            description="Penalise tokens by how often the answer contains them; 0 turns it off.",
        ),
    ] = 0.0
    presence_penalty: Annotated[
        float,
        Meta(
            ge=-2,
            le=2,
            title="presence",
            description="Penalise tokens that the answer contains; 0 turns it off.",
        ),
    ] = 0.0
    dry_multiplier: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            title="DRY strength",
            description="Penalise tokens that extend a repeated sequence (DRY); 0 turns it off.",
        ),
    ] = 0.0
    dry_base: Annotated[
        float,
        Meta(
            ge=1,
            le=10,
            title="DRY growth",
            description="Growth of the DRY penalty with each further token.",
        ),
    ] = 1.75
    dry_allowed_length: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            title="DRY length",
            description="Longest sequence that may repeat without a DRY penalty.",
        ),
    ] = 2
    dry_sequence_breakers: Annotated[
        tuple[Breaker, ...],
        Meta(
            title="DRY breaks",
            max_length=64,
            description="Texts that end a repeated sequence for DRY, as a JSON list.",
        ),
    ] = ("\n", ":", '"', "*")


class Sampling(Penalties, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an answer is sampled and when it ends.

    max_tokens 0: up to the end of the context window. seed None: each answer draws its own. think
    None: as the model's template does by itself. think_budget None: thinking has no limit of its
    own; 0: the model does not think. ignore_eos: no token ends the answer before max_tokens. Fields
    without a Meta.title are set by the program or by an API request; they have no flag.
    """

    max_tokens: Annotated[
        Count,
        Meta(
            title="length",
            description="Most tokens of an answer; 0 for all the window leaves.",
        ),
    ] = 0
    seed: (
        Annotated[Seed, Meta(title="repeatable", description="Same seed, same answer.")] | None
    ) = None
    think: (
        Annotated[
            Think,
            Meta(
                title="thinking",
                description="Thinking before an answer: off, on, low, medium or high.",
            ),
        ]
        | None
    ) = None
    think_budget: (
        Annotated[
            Count,
            Meta(
                title="thoughts",
                description="Most tokens of thinking; then the thought is closed.",
            ),
        ]
        | None
    ) = None
    stops: tuple[str, ...] = ()
    """Stop strings."""
    logprobs: Count = 0
    """Number of alternatives with their log probabilities."""
    ignore_eos: bool = False
    """Whether stop tokens are ignored."""
    structure: Structure | None = None
    """What the answer must look like."""


# The parameters of the C sampler, and all that change how a token is chosen.
DISTRIBUTION = Distribution.__struct_fields__
PARAMETERS = Penalties.__struct_fields__
# What a user can set: name → type.
SAMPLING_SETTINGS: dict[str, Any] = {
    field.name: field.type
    for field in fields(Sampling)
    if field.name in (*PARAMETERS, "max_tokens", "seed", "think", "think_budget")
}
