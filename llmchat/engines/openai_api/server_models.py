"""Finds the model to use among those of a server, and its context window."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import Dialect, dialect_of
from llmchat.errors import LlmchatError, ModelNotFound, NetworkError, UsageError, did_you_mean

# The context window if neither the server nor --context names one: Ollama's default, and less than
# that of most servers.
ASSUMED_CONTEXT = 4096


class Served(Struct, frozen=True):
    """A model of a server.

    context: its context window in tokens, 0 if the server does not report it. certain: the server
    lists it by a name that was asked for.
    """

    name: str
    dialect: Dialect
    context: int = 0
    certain: bool = True
    assumed_context: int = ASSUMED_CONTEXT


def find_served(connection: Connection, wanted: Sequence[str], *, only: bool) -> Served:
    """The model that the server lists by one of the `wanted` names.

    only: if the server lists a single model, use that one whatever its name. Raises ModelNotFound
    with the models that it lists.
    """
    entries = _with_parents(_listed(connection))
    named = _by_name(entries)
    for name in filter(None, wanted):
        # Ollama lists `llama3.2:latest` for what everybody calls llama3.2.
        found = named.get(name.lower()) or named.get(f"{name.lower()}:latest")
        if found:
            return _served(connection, found)
    first = wanted[0] if wanted else ""
    if not entries and first:
        # A server without a list has to know the model by its name.
        return Served(first, dialect_of("", connection.host), certain=False)
    if len(entries) == 1 and only:
        return _served(connection, entries[0], certain=not first)
    raise _not_found(connection.host, first, [str(entry["id"]) for entry in entries])


def _with_parents(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries completed by those of their base: vLLM reports little of an adapter but its base."""
    by_id = {str(entry["id"]): entry for entry in entries}
    bases = [by_id.get(str(entry.get("parent")), {}) for entry in entries]
    known = [{key: value for key, value in one.items() if value is not None} for one in entries]
    return [base | entry for base, entry in zip(bases, known, strict=True)]


def _by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries by their names and aliases in lower case."""
    return {
        str(name).lower(): entry
        for entry in entries
        for name in (entry["id"], *(entry.get("aliases") or ()))
    }


def _not_found(host: str, wanted: str, names: list[str]) -> LlmchatError:
    listed = ", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "no model"
    if not wanted:
        return UsageError(f"{host} serves {listed}", "--model names one of them")
    hint = "--model takes a name of the server; --format NAME sends it one of our prompt formats"
    return ModelNotFound(
        f"{host} has no model `{wanted}`; it serves {listed}", did_you_mean(wanted, names) or hint
    )


def _listed(connection: Connection) -> list[dict[str, Any]]:
    try:
        table = connection.get("models", tries=2)
    except ModelNotFound:
        return []
    entries = table.get("data") if isinstance(table, dict) else None
    if isinstance(entries, list) and all(isinstance(one, dict) and "id" in one for one in entries):
        return entries
    raise NetworkError(
        f"{connection.host} lists no models as OpenAI's API does",
        "check the address; it usually ends with /v1",
    )


def _served(connection: Connection, entry: dict[str, Any], certain: bool = True) -> Served:
    dialect = dialect_of(str(entry.get("owned_by", "")), connection.host)
    return Served(str(entry["id"]), dialect, _context(connection, entry, dialect), certain)


def _context(connection: Connection, entry: dict[str, Any], dialect: Dialect) -> int:
    """The context window: vLLM lists it, llama.cpp reports what it was started with, and Ollama
    reports it for loaded models; 0 if it is unknown.
    """
    meta = entry.get("meta")
    of_llama_cpp = meta.get("n_ctx") if isinstance(meta, dict) else None
    listed = entry.get("max_model_len") or entry.get("context_length") or of_llama_cpp
    if isinstance(listed, int):
        return listed
    try:
        if dialect.title == "llama.cpp":
            props = connection.get(f"{connection.root}/props", tries=1)
            return int(props["default_generation_settings"]["n_ctx"])
        if dialect.title == "Ollama":
            running = connection.get(f"{connection.root}/api/ps", tries=1)["models"]
            contexts = {one.get("model"): one.get("context_length", 0) for one in running}
            return int(contexts.get(entry["id"], 0))
    except (LlmchatError, KeyError, TypeError, ValueError):
        pass
    return 0
