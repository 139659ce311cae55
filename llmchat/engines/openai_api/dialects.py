"""Differences between servers with OpenAI's API; the models' `owned_by` identifies a server.

Sources: vLLM's OpenAI-compatible server docs, llama.cpp's tools/server/README.md, Ollama's
docs/openai.md, SGLang's sampling parameters.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from llmchat.engines import Sampling
from llmchat.engines.parameter_names import PARAMETER_NAMES
from llmchat.settings.sampling import DISTRIBUTION, Penalties


class Dialect(Struct, frozen=True):
    """What a server accepts beyond OpenAI's API.

    parameters: our name of each sampling parameter → the server's; no_top_k: the value of top_k
    that turns it off
    sends_off: penalties that are off are sent too
    stop_ids, ignore_eos, max_tokens: the server's names of these fields, "" where it has none
    counts: the API it counts tokens with, "" where it has none
    resumes: it continues a last message that is an answer
    texts: /v1/completions passes a text to the model as it is
    stops: the most stop strings it takes
    think, think_budget: how it is told, with messages, how much to think; "" where it cannot be.
    `template`: by variables of the model's template, most of which ignore those of others
    tool_choice: it can make a model call a tool
    """

    title: str
    parameters: Mapping[str, str]
    no_top_k: int = 0
    sends_off: bool = True
    stop_ids: str = ""
    ignore_eos: str = ""
    counts: str = ""
    resumes: bool = False
    texts: bool = True
    stops: int = 4
    max_tokens: str = "max_tokens"
    think: Literal["", "effort", "template", "level"] = ""
    think_budget: str = ""
    tool_choice: bool = True


_KNOWN = {
    "vllm": Dialect(
        "vLLM",
        PARAMETER_NAMES["vllm"],
        no_top_k=-1,
        stop_ids="stop_token_ids",
        ignore_eos="ignore_eos",
        counts="vllm",
        resumes=True,
        stops=64,
        think="template",
        think_budget="thinking_token_budget",
    ),
    "sglang": Dialect(
        "SGLang",
        PARAMETER_NAMES["sglang"],
        no_top_k=-1,
        stop_ids="stop_token_ids",
        ignore_eos="ignore_eos",
        resumes=True,
        stops=64,
        think="template",
    ),
    # llama.cpp withholds the end of a text that only began like a stop string. So it gets no stop
    # strings, and the connection is closed at the first one that appears.
    "llamacpp": Dialect(
        "llama.cpp",
        PARAMETER_NAMES["llama.cpp"],
        ignore_eos="ignore_eos",
        counts="llama.cpp",
        resumes=True,
        stops=0,
        think="template",
        think_budget="thinking_budget_tokens",
    ),
    # Ollama applies its template to the text of a completion as well.
    "library": Dialect(
        "Ollama",
        PARAMETER_NAMES["ollama"],
        resumes=True,
        texts=False,
        stops=64,
        think="effort",
        tool_choice=False,
    ),
    "llmchat": Dialect(
        "llmchat",
        PARAMETER_NAMES["llmchat"],
        stops=64,
        think="level",
        think_budget="think_budget",
    ),
}
# Some of OpenAI's models refuse penalties, even if they are 0.
_OPENAI = Dialect(
    "OpenAI",
    PARAMETER_NAMES["openai"],
    sends_off=False,
    max_tokens="max_completion_tokens",
    texts=False,
    think="effort",
)
_OTHER = Dialect("", PARAMETER_NAMES["openai"], sends_off=False)
_OFF = Sampling()


def dialect_of(owner: str, host: str) -> Dialect:
    """The dialect of a server. owner: `owned_by` of a model in /v1/models."""
    if host.endswith("openai.com"):
        return _OPENAI
    return _KNOWN.get(owner, _OTHER)


def sampling_fields(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """The fields of a request. Parameters that are off are sent too, where the server permits it: a
    server has its own defaults.
    """
    sent = {
        theirs: getattr(sampling, ours)
        for ours, theirs in dialect.parameters.items()
        if dialect.sends_off or ours in DISTRIBUTION or _is_used(ours, sampling)
    }
    if "top_k" in dialect.parameters and not sampling.top_k:
        sent[dialect.parameters["top_k"]] = dialect.no_top_k
    if dialect.ignore_eos and sampling.ignore_eos:
        sent[dialect.ignore_eos] = True
    if sampling.max_tokens:
        sent[dialect.max_tokens] = sampling.max_tokens
    return sent


def thinking_fields(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """The fields of a request with messages for how much the model thinks."""
    sent: dict[str, Any] = {}
    level = sampling.think
    if level and dialect.think == "level":
        sent["think"] = level
    elif level and dialect.think == "effort":
        sent["reasoning_effort"] = {"off": "none", "on": "medium"}.get(level, level)
    elif level and dialect.think == "template":
        switch = {"enable_thinking": level != "off", "thinking": level != "off"}
        effort = {} if level in ("off", "on") else {"reasoning_effort": level}
        sent["chat_template_kwargs"] = switch | effort
    if dialect.think_budget and sampling.think_budget is not None:
        sent[dialect.think_budget] = sampling.think_budget
    return sent


def dropped(sampling: Sampling, dialect: Dialect, *, chat: bool = True) -> tuple[str, ...]:
    """The settings in use that this server does not support. chat: it is sent messages."""
    used = [
        name
        for name in Penalties.__struct_fields__
        if name not in dialect.parameters and _is_used(name, sampling)
    ]
    if sampling.ignore_eos and not dialect.ignore_eos:
        used.append("ignore_eos")
    if sampling.think and not (chat and dialect.think):
        used.append("think")
    if sampling.think_budget is not None and not (chat and dialect.think_budget):
        used.append("think_budget")
    return tuple(used)


def _is_used(name: str, sampling: Sampling) -> bool:
    return bool(getattr(sampling, name) != getattr(_OFF, name))
