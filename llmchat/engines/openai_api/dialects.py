"""What the servers that speak OpenAI's API understand beyond it. A server is known by the owner that it gives its models.

Sources: vLLM's OpenAI-compatible server docs, llama.cpp's tools/server/README.md, Ollama's docs/openai.md, SGLang's sampling parameters.
"""

from typing import Any

from msgspec import Struct

from llmchat.engines import Sampling


class Dialect(Struct, frozen=True):
    """top_k, min_p, penalty, stop_ids, ignore_eos: what the server calls them, "" where it has no such thing; no_top_k: its value for "off".

    counts: how it counts tokens, "" where it does not; resumes: it goes on with a last message that is an answer; texts: /v1/completions takes a
    text as it is; stops: the most stop strings it takes; longest: what it calls max_tokens.
    """

    title: str
    top_k: str = ""
    no_top_k: int = 0
    min_p: str = ""
    penalty: str = ""
    stop_ids: str = ""
    ignore_eos: str = ""
    counts: str = ""
    resumes: bool = False
    texts: bool = True
    stops: int = 4
    longest: str = "max_tokens"


_VLLM = Dialect(
    "vLLM",
    "top_k",
    -1,
    "min_p",
    "repetition_penalty",
    "stop_token_ids",
    "ignore_eos",
    "vllm",
    resumes=True,
    stops=64,
)
_KNOWN = {
    "vllm": _VLLM,
    "sglang": Dialect(
        "SGLang",
        "top_k",
        -1,
        "min_p",
        "repetition_penalty",
        "stop_token_ids",
        "ignore_eos",
        resumes=True,
        stops=64,
    ),
    # llama.cpp does not give out an end of text that only began like a stop string, so it is told of none, and hung up on.
    "llamacpp": Dialect(
        "llama.cpp",
        "top_k",
        0,
        "min_p",
        "repeat_penalty",
        "",
        "ignore_eos",
        "llama.cpp",
        resumes=True,
        stops=0,
    ),
    # Ollama writes its template around the text of a completion as well.
    "library": Dialect("Ollama", resumes=True, texts=False, stops=64),
    "llmchat": Dialect("llmchat", "top_k", 0, "min_p", "repetition_penalty", stops=64),
}
_OTHER = Dialect("")


def dialect_of(owner: str, host: str) -> Dialect:
    """owner: `owned_by` of a model in /v1/models."""
    if host.endswith("openai.com"):
        return Dialect("OpenAI", longest="max_completion_tokens", texts=False)
    return _KNOWN.get(owner, _OTHER)


def fields(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """The request's fields for a sampling. What is off is said too, where it can be: a server has defaults of its own."""
    sent: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if dialect.top_k:
        sent[dialect.top_k] = sampling.top_k or dialect.no_top_k
    if dialect.min_p:
        sent[dialect.min_p] = sampling.min_p
    if dialect.penalty:
        sent[dialect.penalty] = sampling.repetition_penalty
    if dialect.ignore_eos and sampling.ignore_eos:
        sent[dialect.ignore_eos] = True
    return sent | ({dialect.longest: sampling.max_tokens} if sampling.max_tokens else {})


def dropped(sampling: Sampling, dialect: Dialect) -> tuple[str, ...]:
    """The settings in use that this server does not know."""
    asked = {
        "top_k": (sampling.top_k, dialect.top_k),
        "min_p": (sampling.min_p, dialect.min_p),
        "repetition_penalty": (sampling.repetition_penalty != 1, dialect.penalty),
        "ignore_eos": (sampling.ignore_eos, dialect.ignore_eos),
    }
    return tuple(name for name, (wanted, known) in asked.items() if wanted and not known)
