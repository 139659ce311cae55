"""The model that a client will use: of the server that answers, or of this machine."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from llmchat.connect.clients import Client
from llmchat.engines.openai_api.connection import Connection
from llmchat.errors import ModelNotFound, NetworkError, NotAuthorised, UsageError, did_you_mean
from llmchat.hub import inspect_folder
from llmchat.memory_estimate import own_context
from llmchat.models.locate import locate
from llmchat.models.opener import preset_of
from llmchat.settings import World


class Offered(Struct, frozen=True):
    """A model as a server offers it.

    given: as a MODEL argument of `llmchat serve`. window: in tokens, 0 if unknown; longest: what it
    could be, 0 if unknown. tools: whether its own prompt format has tools; None if the server does
    not report it. running: whether a server answered.
    """

    name: str
    given: str
    window: int
    longest: int
    tools: bool | None
    running: bool = True


def offered(world: World, connection: Connection, model: str | None) -> Offered:
    """The model of the server by this name, or its only one.

    If no server answers, the model of this machine, as the server would offer it.
    """
    try:
        return _of_server(connection, model)
    except NetworkError as error:
        if not _is_unreachable(error):
            raise
        return _of_this_machine(world, model)


def problems(client: Client, model: Offered) -> list[str]:
    """Why this model does not suffice for the client; empty if it does, or if that is unknown."""
    found = []
    if 0 < model.window < client.window:
        found.append(
            f"{client.name} requires a window of {client.window:,} tokens; {model.name} has"
            f" {model.window:,}"
        )
    if client.tools and model.tools is False:
        found.append(
            f"{client.name} requires tools, which the prompt format of {model.name} does not have"
        )
    return found


def _is_unreachable(error: NetworkError) -> bool:
    import httpx2

    return isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)


def _of_server(connection: Connection, model: str | None) -> Offered:
    try:
        listed = connection.get("models", tries=1)
    except NotAuthorised as error:
        hint = "`llmchat serve keys add NAME` creates a key; put it into LLMCHAT_API_KEY"
        raise NotAuthorised(error.message, hint) from error
    entries = {str(entry["id"]): entry for entry in _entries(listed)}
    name = _chosen(list(entries), model, connection.host)
    details = connection.get(f"models/{quote(name)}", tries=1).get("llmchat") or {}
    window = entries[name].get("context_length") or entries[name].get("max_model_len") or 0
    longest = int(details.get("trained_context") or 0)
    return Offered(name, model or name, int(window), longest, details.get("tools"))


def _entries(listed: Any) -> list[dict[str, Any]]:
    entries = listed.get("data") if isinstance(listed, dict) else None
    return [entry for entry in entries or () if isinstance(entry, dict) and entry.get("id")]


def _chosen(names: list[str], model: str | None, host: str) -> str:
    """The name that a server has for a MODEL argument: a path is served by its last part."""
    if model is None and len(names) == 1:
        return names[0]
    shown = ", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "no model"
    if model is None:
        raise UsageError(f"{host} serves {shown}", "choose one with -m")
    for name in (model, Path(model).name):
        if name in names:
            return name
    hint = did_you_mean(model, names) or "-m takes a name that the server lists"
    raise ModelNotFound(f"{host} does not serve `{model}`; it serves {shown}", hint)


def _of_this_machine(world: World, model: str | None) -> Offered:
    preset = preset_of(world, model=model)
    found = locate(preset, world)
    own = own_context(inspect_folder(found.base).config) if found.base else 0
    window = min(filter(None, (found.preset.context.tokens, own)), default=0)
    name = Path(model).name if model and Path(model).expanduser().exists() else preset.name
    tools = found.preset.format.has_tools
    return Offered(name, model or preset.name, window, own, tools, running=False)
