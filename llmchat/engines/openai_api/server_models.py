"""Which of a server's models is meant, and what the server says about it."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import Dialect, dialect_of
from llmchat.errors import LlmchatError, ModelNotFound, NetworkError, UsageError, did_you_mean

# What a model is taken to hold that neither the server nor --context tells of: Ollama's default, and less than what others run with.
ASSUMED_CONTEXT = 4096


class Served(Struct, frozen=True):
    """A model as its server knows it. context: tokens it holds, 0 where the server does not say; certain: the server lists it by a name that
    was asked for."""

    name: str
    dialect: Dialect
    context: int = 0
    certain: bool = True
    assumed_context: int = ASSUMED_CONTEXT


def find_served(connection: Connection, wanted: Sequence[str], *, only: bool) -> Served:
    """The model that the server lists by one of the `wanted` names. only: where it lists just one, that one will do.

    Raises ModelNotFound naming those that there are.
    """
    entries = _listed(connection)
    # vLLM says of an adapter only which base it is put on.
    by_id = {str(entry["id"]): entry for entry in entries}
    entries = [
        by_id.get(str(entry.get("parent")), {})
        | {key: value for key, value in entry.items() if value is not None}
        for entry in entries
    ]
    by_name = {
        str(name): entry
        for entry in entries
        for name in (entry["id"], *(entry.get("aliases") or ()))
    }
    lowered = {name.lower(): name for name in by_name}
    for name in filter(None, wanted):
        # Ollama lists `llama3.2:latest` for what everybody calls llama3.2.
        found = next(
            (lowered[key] for key in (name.lower(), f"{name.lower()}:latest") if key in lowered),
            None,
        )
        if found:
            return _served(connection, by_name[found])
    if not entries and wanted and wanted[0]:
        # It keeps no list; then it must know itself what it is asked for.
        return Served(wanted[0], dialect_of("", connection.host), certain=False)
    if len(entries) == 1 and only:
        return _served(connection, entries[0], certain=not wanted or not wanted[0])
    names = [str(entry["id"]) for entry in entries]
    listed = ", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "no model"
    if not wanted or not wanted[0]:
        raise UsageError(f"{connection.host} serves {listed}", "--model says which one is meant")
    hint = (
        did_you_mean(wanted[0], names)
        or "--model takes a name of the server; --format NAME sends it one of our prompt formats"
    )
    raise ModelNotFound(f"{connection.host} has no model `{wanted[0]}`; it serves {listed}", hint)


def _listed(connection: Connection) -> list[dict[str, Any]]:
    try:
        table = connection.get("models", tries=2)
    except ModelNotFound:
        return []
    entries = table.get("data") if isinstance(table, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and "id" in entry for entry in entries
    ):
        raise NetworkError(
            f"{connection.host} lists no models as OpenAI's API does",
            "is the address right? It mostly ends with /v1",
        )
    return entries


def _served(connection: Connection, entry: dict[str, Any], certain: bool = True) -> Served:
    dialect = dialect_of(str(entry.get("owned_by", "")), connection.host)
    return Served(str(entry["id"]), dialect, _context(connection, entry, dialect), certain)


def _context(connection: Connection, entry: dict[str, Any], dialect: Dialect) -> int:
    """vLLM says it in the list, llama.cpp what it was started with; Ollama of the models that are loaded."""
    meta = entry.get("meta")
    told = (
        entry.get("max_model_len")
        or entry.get("context_length")
        or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    )
    if isinstance(told, int):
        return told
    try:
        if dialect.title == "llama.cpp":
            return int(
                connection.get(f"{connection.root}/props", tries=1)["default_generation_settings"][
                    "n_ctx"
                ]
            )
        if dialect.title == "Ollama":
            running = connection.get(f"{connection.root}/api/ps", tries=1)["models"]
            return int(
                next(
                    (
                        one.get("context_length", 0)
                        for one in running
                        if one.get("model") == entry["id"]
                    ),
                    0,
                )
            )
    except (LlmchatError, KeyError, TypeError, ValueError):
        pass
    return 0
