"""The spellings of a model that is not a preset: Hub repos with a file of theirs, other stores.

`org/repo`, `org/repo:Q4_K_M`, `org/repo:FILE.gguf`, the same after `hf.co/`, and the addresses of
huggingface.co; `ollama:NAME:TAG` and `lmstudio:publisher/repo/FILE`.
"""

import re
from urllib.parse import unquote, urlsplit

from llmchat.errors import UsageError
from llmchat.presets.types import Source

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# The names that llama.cpp gives its quantisations, as files have them: Q4_K_M, UD-IQ2_XXS, BF16.
_PART = r"(?:\d|K|XXS|XS|S|M|L|XL|XXL|NL)"
QUANTISATION = re.compile(
    rf"(?<![A-Za-z0-9])(?:UD-)?(?:I?Q\d(?:_{_PART})*|TQ\d_\d|BF16|FP?16|FP?32"
    r"|MXFP4(?:_MOE)?|NVFP4)(?![A-Za-z0-9])",
    re.I,
)
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_OF_A_FILE = ("blob", "resolve", "raw", "tree")
_WITH_VARIANT = re.compile(rf"({REPO_ID.pattern}):(\S+)")
_STORES = ("ollama", "lmstudio")


def source_of(model: str) -> Source | None:
    """The source that a spelling names; None for any other text.

    Raises UsageError for an address that is not of a repo.
    """
    kind, _, rest = model.partition(":")
    if kind in _STORES and rest and not rest.startswith("//"):
        return Source(kind, rest)  # type: ignore[arg-type]
    if "://" in model:
        return _of_address(model)
    host, _, rest = model.partition("/")
    if host.lower() in _HOSTS and rest.count("/"):
        return _of_address(f"https://{model}")
    return _of_repo(model)


def names_elsewhere(model: str) -> bool:
    """Whether a text that ends in `.gguf` names a file of a repo or a store, not a path."""
    return ":" in model or model.partition("/")[0].lower() in _HOSTS


def canonical_variant(variant: str) -> str:
    """A quantisation in capitals; the name of a file as it is; "" for `latest`."""
    if QUANTISATION.fullmatch(variant):
        return variant.upper()
    return "" if variant == "latest" else variant


def _of_repo(name: str, revision: str = "") -> Source | None:
    """`org/repo` or `org/repo:VARIANT`."""
    if REPO_ID.fullmatch(name):
        return Source("hub", name, revision)
    match = _WITH_VARIANT.fullmatch(name)
    return Source("hub", match[1], revision, variant=canonical_variant(match[2])) if match else None


def _of_address(address: str) -> Source:
    """`https://huggingface.co/org/repo/blob/REVISION/FILE` and its shorter forms."""
    parts = urlsplit(address)
    words = [unquote(word) for word in parts.path.strip("/").split("/")]
    found = _of_repo("/".join(words[:2]))
    if parts.scheme not in ("http", "https") or (parts.hostname or "") not in _HOSTS or not found:
        raise UsageError(
            f"`{address}` is not the address of a model",
            "a Hub repo is written org/name, or https://huggingface.co/org/name",
        )
    if len(words) < 4 or words[2] not in _OF_A_FILE:
        return found
    file = "/".join(words[4:])
    return Source(
        "hub",
        found.repo,
        "" if words[3] == "main" else words[3],
        variant=file if file.endswith(".gguf") else found.variant,
    )
